from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from largeconcept.data.reader import ConceptDataset, splits
from largeconcept.data.schema import DatasetMetadata, arrow_schema
from largeconcept.errors import DataError

Make = Callable[..., Path]


def test_stream_is_in_order_and_counts_agree(make_dataset: Make) -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 1300).tolist()
    dataset = ConceptDataset(make_dataset(sizes, documents_per_shard=700))
    assert len(dataset) == 1300
    assert dataset.num_concepts == sum(sizes)
    assert dataset.dim == 4
    assert not dataset.supervised
    assert len(dataset.row_groups) == 4  # two shards; at most 512 documents a group
    for _ in range(2):
        documents = list(dataset)
        assert [d.id for d in documents] == [f"d{i}" for i in range(1300)]
        for number, document in enumerate(documents[::100]):
            expected = [[number * 100, i, 1, 0] for i in range(sizes[number * 100])]
            assert document.concepts.tolist() == expected
            assert len(document.sentences) == len(expected)
    tables = [dataset.vectors(group) for group in range(4)]
    assert [id for table in tables for id in table.ids] == [d.id for d in documents]
    assert sum(len(table.concepts) for table in tables) == dataset.num_concepts
    assert all(len(table.concepts) <= 4096 + 8 for table in tables)


def test_row_groups_are_bounded_by_concepts(make_dataset: Make) -> None:
    dataset = ConceptDataset(make_dataset([1500, 1500, 1500, 5000, 1]))
    assert [len(dataset.vectors(i).concepts) for i in range(len(dataset.row_groups))] == [3000, 1500, 5000, 1]


def test_targets(make_dataset: Make) -> None:
    dataset = ConceptDataset(make_dataset([2, 1], targets=[1, 3]))
    assert dataset.supervised
    first, second = dataset
    assert first.target_sentences == ["0 0 2"]
    assert second.target_concepts is not None
    assert second.target_concepts.tolist() == [[1, i, 2, 0] for i in range(3)]
    assert dataset.vectors(0, targets=False).target_concepts is None


def test_datasets_that_are_not_there(make_dataset: Make, tmp_path: Path) -> None:
    path = make_dataset([2])
    assert splits(path) == ["train"]
    for folder, split, problem in [
        (tmp_path / "missing", "train", "no such dataset"),
        (path / "affixes.safetensors", "train", "is a file"),
        (path, "trian", r"no such split.*did you mean train\?"),
        (tmp_path, "train", "no such split"),
    ]:
        with pytest.raises(DataError, match=problem):
            ConceptDataset(folder, split)
    with pytest.raises(DataError, match="expected 5; got 4"):
        ConceptDataset(path, dim=5)
    with pytest.raises(DataError, match=r"codec fingerprint abc; got feedfacefeedface \(NumberCodec\)"):
        ConceptDataset(path, fingerprint="abc")


def test_damaged_datasets(make_dataset: Make, tmp_path: Path) -> None:
    path = make_dataset([2] * 6, documents_per_shard=2)
    shard = path / "train" / "shard-00001.parquet"
    whole = shard.read_bytes()

    def broken(problem: str) -> None:
        with pytest.raises(DataError, match=problem):
            list(ConceptDataset(path))

    for data in (whole[:-20], whole[: len(whole) // 2], b"", b"not parquet at all"):
        shard.write_bytes(data)
        broken(r"shard-00001\.parquet: not a readable Parquet file")
    data = bytearray(whole)
    data[4:200] = bytes(196)  # the footer is whole, the pages are not
    shard.write_bytes(data)
    broken("damaged|null")
    shard.write_bytes(whole)
    shutil.copy(shard, path / "train" / "shard-00009.parquet")
    broken("shard-00009.* not of this build")
    (path / "train" / "shard-00009.parquet").unlink()
    shard.unlink()
    broken(r"shard-00001\.parquet: the shard is missing")
    shard.write_bytes((make_dataset([2], "targets", targets=[1]) / "train" / "shard-00000.parquet").read_bytes())
    broken("some shards have targets")
    shard.write_bytes(whole)
    (path / "train" / "build.json").write_text("{")
    broken(r"build\.json: cannot read JSON")
    (path / "train" / "build.json").unlink()
    assert len(list(ConceptDataset(path))) == 6  # shards made elsewhere need no manifest
    (path / "affixes.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="affix file is damaged"):
        _ = ConceptDataset(path).affixes
    (path / "affixes.safetensors").unlink()
    with pytest.raises(DataError, match="no affix concepts"):
        _ = ConceptDataset(path).affixes


def test_affixes_of_another_space(make_dataset: Make, make_codec: type) -> None:
    path, other = make_dataset([2]), make_dataset([2], "other", codec=make_codec(4, "0" * 16))
    shutil.copy(other / "affixes.safetensors", path)
    with pytest.raises(DataError, match=r"expected feedfacefeedface; got 0000000000000000"):
        _ = ConceptDataset(path).affixes


def test_shards_of_two_spaces(make_dataset: Make, make_codec: type) -> None:
    path, other = make_dataset([2]), make_dataset([2], "other", codec=make_codec(4, "0" * 16))
    (path / "train" / "build.json").unlink()
    shutil.copy(other / "train" / "shard-00000.parquet", path / "train" / "shard-00001.parquet")
    with pytest.raises(DataError, match=r"shard-00001\.parquet: the file metadata differs"):
        ConceptDataset(path)


def test_foreign_shards(tmp_path: Path) -> None:
    folder = tmp_path / "d" / "train"
    folder.mkdir(parents=True)
    metadata = DatasetMetadata("c", "f", 2)
    good = arrow_schema(2, False, metadata.to_arrow())

    def attempt(schema: pa.Schema) -> ConceptDataset:
        pq.write_table(schema.empty_table(), folder / "a.parquet")
        return ConceptDataset(tmp_path / "d")

    assert len(attempt(good)) == 0
    assert attempt(good).metadata == metadata
    for drop in ("lang", "paragraph_starts"):
        attempt(good.remove(good.get_field_index(drop)))
    wide = pa.field("concepts", pa.list_(pa.list_(pa.float32(), 2)))
    loose = pa.field("concepts", pa.list_(pa.list_(pa.float16())))
    for schema, problem in [
        (good.remove(1), "column sentences: the column is missing"),
        (
            good.set(2, wide),
            r"column concepts: the column has another type; expected list<fixed_size_list<float16, 2>>",
        ),
        (good.set(2, loose), "another type"),
        (good.set(0, pa.field("id", pa.int64())), "column id: the column has another type; expected string; got int64"),
        (good.append(pa.field("target_sentences", pa.list_(pa.string()))), "go together"),
        (good.with_metadata(None), r"no largeconcept\.schema_version"),
        (good.with_metadata(metadata.to_arrow({"schema_version": "2"})), "another schema version; expected 1; got 2"),
        (good.with_metadata(metadata.to_arrow({"dim": "x"})), "metadata is damaged"),
        (good.with_metadata(metadata.to_arrow({"segmenter": "[1]"})), "metadata is damaged"),
        (good.with_metadata(metadata.to_arrow({"dim": "3"})), "float16, 3"),
    ]:
        with pytest.raises(DataError, match=problem):
            attempt(schema)


def test_manifest_holds_no_time_and_no_path(make_dataset: Make, tmp_path: Path) -> None:
    path = make_dataset([2])
    manifest = json.loads((path / "train" / "build.json").read_text())
    assert str(tmp_path) not in json.dumps(manifest)
    assert manifest["status"] == "finished"
    assert set(manifest) == {"format_version", "status", "settings", "report", "shards"}

"""Summaries that a dataset keeps beside its documents: they change nothing until a loader asks for pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from largeconcept.data.build import build_concepts
from largeconcept.data.documents import version_of
from largeconcept.data.inspect import inspect_dataset
from largeconcept.data.loader import ConceptLoader, LoaderConfig
from largeconcept.data.reader import ConceptDataset
from largeconcept.data.schema import PREFIX
from largeconcept.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"id": "a", "sentences": ["0 0 1", "0 1 1", "0 2 1"], "summary": "9 9 2."},
    {"id": "b", "sentences": ["1 0 1", "1 1 1"]},
    {"id": "c", "sentences": ["2 0 1", "2 1 1"], "summary": "ignored", "target_sentences": ["2 0 2", "2 1 2"]},
    {"id": "d", "sentences": ["3 0 1"], "summary": "  "},
]


def build(path: Path, out: Path, segmenter: Any, codec: Any, **more: Any) -> Any:
    return build_concepts(path, out, codec, segmenter, **more)


def batches(path: Path, **settings: Any) -> list[Any]:
    config = {"sources": [str(path)], "batch_concepts": 64, "max_length": 16, "min_length": 1, "append_end": False}
    return list(ConceptLoader(LoaderConfig.from_dict({**config, **settings})).epoch())


def test_targets_are_kept_and_documents_without_one_stay(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    report = build(write_jsonl(ROWS), tmp_path / "out", segmenter, make_codec(), documents_per_shard=3)
    assert report.documents == 4 and report.counts == {"with_target": 2} and report.shards == 2
    dataset = ConceptDataset(tmp_path / "out")
    assert [one.target_sentences for one in dataset] == [["9 9 2."], [], ["2 0 2", "2 1 2"], []]
    assert [None if one.target_concepts is None else len(one.target_concepts) for one in dataset] == [1, 0, 2, 0]
    assert dataset.supervised and not dataset.paired
    split = inspect_dataset(tmp_path / "out").splits["train"]
    assert (split.documents, split.targets, split.target_concepts, split.shards) == (4, 2, 3, 2)


def test_training_reads_plain_texts_until_it_is_told_otherwise(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    path = write_jsonl(ROWS)
    build(path, tmp_path / "kept", segmenter, make_codec())
    build(path, tmp_path / "plain", segmenter, make_codec(), target=None)
    assert not ConceptDataset(tmp_path / "plain").supervised
    kept, plain = batches(tmp_path / "kept"), batches(tmp_path / "plain")
    assert len(kept) == len(plain) > 0
    for one, other in zip(kept, plain, strict=True):
        assert one.source_lengths is None and torch.equal(one.concepts, other.concepts)
        assert torch.equal(one.sample_ids, other.sample_ids)
    (pairs,) = batches(tmp_path / "kept", targets=True, prompt_text=None)
    assert pairs.source_lengths is not None and sorted(pairs.source_lengths.tolist()) == [2, 3]
    assert sorted(pairs.lengths.tolist()) == [4, 4]  # documents without a target make no pair
    with pytest.raises(DataError, match="no targets"):
        batches(tmp_path / "plain", targets=True)


def test_the_normalizer_of_plain_texts_does_not_see_targets(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    from largeconcept.train.setup import concept_stream

    path = write_jsonl(ROWS)
    build(path, tmp_path / "kept", segmenter, make_codec())
    build(path, tmp_path / "pairs", segmenter, make_codec(), target="target_sentences")
    seen = torch.cat(list(concept_stream([ConceptDataset(tmp_path / "kept")], [1.0], 100)))
    assert len(seen) == 8 and not bool((seen[:, 2] == 2).any())
    seen = torch.cat(list(concept_stream([ConceptDataset(tmp_path / "pairs")], [1.0], 100)))
    assert len(seen) == 4 and int((seen[:, 2] == 2).sum()) == 2


def test_a_corpus_without_summaries_has_no_target_columns(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    build(write_jsonl([ROWS[1], ROWS[3]]), tmp_path / "out", segmenter, make_codec())
    schema = pq.read_schema(tmp_path / "out" / "train" / "shard-00000.parquet")
    assert "target_sentences" not in schema.names and PREFIX.encode() + b"partial_targets" not in schema.metadata
    assert inspect_dataset(tmp_path / "out").splits["train"].targets == 0


def test_plans_leave_no_room_for_targets(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    build(write_jsonl(ROWS), tmp_path / "out", segmenter, make_codec(), plan="first_sentence")
    dataset = ConceptDataset(tmp_path / "out")
    assert dataset.planned and not dataset.supervised


def test_an_empty_target_is_a_mistake_where_every_document_should_have_one(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    build(write_jsonl(ROWS), tmp_path / "out", segmenter, make_codec())
    shard = tmp_path / "out" / "train" / "shard-00000.parquet"
    table = pq.read_table(shard)
    kept = {name: value for name, value in table.schema.metadata.items() if not name.endswith(b"partial_targets")}
    assert len(kept) == len(table.schema.metadata) - 1
    pq.write_table(table.replace_schema_metadata(kept), shard)
    with pytest.raises(DataError, match=r"row 1: column target_sentences.*no sentence|no sentence.*row 1"):
        inspect_dataset(tmp_path / "out")
    pq.write_table(table.replace_schema_metadata({**kept, PREFIX.encode() + b"partial_targets": b"7"}), shard)
    with pytest.raises(DataError, match="partial_targets"):
        ConceptDataset(tmp_path / "out")


def test_a_killed_build_goes_on_with_its_targets(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    path = write_jsonl(ROWS)
    build(path, tmp_path / "whole", segmenter, make_codec(), documents_per_shard=1)

    def stop(done: int, total: int, unit: str) -> None:
        if unit == "documents" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(path, tmp_path / "again", segmenter, make_codec(), documents_per_shard=1, progress=stop)
    report = build(path, tmp_path / "again", segmenter, make_codec(), documents_per_shard=1)
    assert report.resumed_shards == 1 and report.counts == {"with_target": 2}
    for number in range(4):
        name = f"train/shard-{number:05d}.parquet"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_versions_in_other_languages_keep_their_id_in_their_name(
    tmp_path: Path, write_jsonl: Callable[..., Path], segmenter: Any, make_codec: Any
) -> None:
    languages = [("x", "en"), ("x#2", "en"), ("x", "de"), ("x#2", "de"), ("x", "de"), ("y", "de"), ("x", None)]
    rows = [{"id": id, "sentences": [f"{i} 1"], "lang": lang} for i, (id, lang) in enumerate(languages)]
    report = build(write_jsonl(rows), tmp_path / "out", segmenter, make_codec())
    ids = [one.id for one in ConceptDataset(tmp_path / "out")]
    assert ids == ["x", "x#2", "x#deu_Latn", "x#2#deu_Latn", "x#3", "y", "x#4"]
    assert [version_of(id) for id in ids[:4]] == ["x", "x#2", "x", "x#2"]
    assert report.counts == {"renamed_ids": 4}
    rows.insert(0, {"id": "x#deu_Latn", "sentences": ["8 8"], "lang": "en"})  # the name is taken
    build(write_jsonl(rows), tmp_path / "taken", segmenter, make_codec())
    ids = [one.id for one in ConceptDataset(tmp_path / "taken")]
    assert len(set(ids)) == 8 and ids[3] == "x#3"
    assert np.unique([len(one.concepts) for one in ConceptDataset(tmp_path / "taken")]).tolist() == [1]

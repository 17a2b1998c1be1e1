from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from largeconcept.data.affixes import DEFAULT_AFFIXES
from largeconcept.data.inspect import inspect_dataset
from largeconcept.errors import DataError

Make = Callable[..., Path]


def test_report(make_dataset: Make) -> None:
    path = make_dataset([1, 2, 6], targets=[1, 1, 2], documents_per_shard=2, lang="en")
    report = inspect_dataset(path)
    assert (report.dim, report.codec_id, report.codec_fingerprint) == (4, "NumberCodec", "feedfacefeedface")
    assert report.affixes == sorted(DEFAULT_AFFIXES)
    train = report.splits["train"]
    assert (train.documents, train.concepts, train.target_concepts, train.shards) == (3, 9, 4, 2)
    assert (train.min_length, train.median_length, train.max_length, train.mean_length) == (1, 2.0, 6, 3.0)
    assert train.min_norm == pytest.approx(1.0)  # (0, 0, 1, 0)
    assert train.max_norm == pytest.approx(30**0.5)  # (2, 5, 1, 0)
    assert train.languages == {"eng_Latn": 3}
    json.dumps(report.to_dict())


def change(path: Path, shard: str, column: str, row: int, value: Any) -> None:
    """Replace one value of a shard, keeping schema and metadata."""
    file = path / "train" / shard
    table = pq.read_table(file)
    values = table.column(column).to_pylist()
    values[row] = value
    field = table.schema.field(column)
    field = pa.field(column, field.type)  # nullable
    array = pa.array(values, field.type)
    index = table.schema.get_field_index(column)
    schema = table.schema.set(index, field)
    columns = [array if i == index else table.column(i) for i in range(table.num_columns)]
    pq.write_table(pa.table(columns, schema=schema), file, row_group_size=2)


F16 = np.float16
GOOD = [F16(1)] * 4


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("id", None, "the id is null"),
        ("id", "", "the id is empty"),
        ("id", "d1", "the id is not unique; got d1; also in .*shard-00000.parquet: row 1"),
        ("sentences", None, "the list is null"),
        ("sentences", [], "the document has no sentence"),
        ("sentences", ["a", None], r"a sentence is null \(item 1\)"),
        ("sentences", ["a", " \n"], r"a sentence is blank \(item 1\)"),
        ("concepts", None, "the list is null"),
        ("concepts", [GOOD], "another number of concepts than sentences; expected 2, one for each of sentences; got 1"),
        ("concepts", [GOOD, None], r"a concept is null \(item 1\)"),
        ("concepts", [[F16(1), None, F16(1), F16(1)], GOOD], r"a channel is null \(item 0\)"),
        ("concepts", [GOOD, [F16(1), F16("nan"), F16(1), F16(1)]], r"a concept is not finite \(item 1\)"),
        ("concepts", [[F16("inf")] * 4, GOOD], r"a concept is not finite \(item 0\)"),
        ("concepts", [GOOD, [F16(0)] * 4], r"a concept is all zeros \(item 1\)"),
        ("lang", "en", "not a FLORES-200 code; expected for example eng_Latn; got en"),
        ("lang", "klingon", "not a FLORES-200 code"),
        ("paragraph_starts", [], "the list is empty"),
        ("paragraph_starts", [1], "does not start at 0"),
        ("paragraph_starts", [0, None], "an index is null"),
        ("paragraph_starts", [0, 0], "do not rise"),
        ("paragraph_starts", [0, 2], "after the last sentence"),
        ("target_sentences", [" "], "a sentence is blank"),
        ("target_concepts", [GOOD, GOOD], "expected 1, one for each of target_sentences; got 2"),
        ("target_concepts", [[F16("nan")] * 4], "a concept is not finite"),
    ],
)
def test_each_broken_promise_is_named(make_dataset: Make, column: str, value: Any, problem: str) -> None:
    path = make_dataset([2] * 9, targets=[1] * 9, documents_per_shard=5, lang="en")
    inspect_dataset(path)
    change(path, "shard-00001.parquet", column, 3, value)
    with pytest.raises(DataError, match=rf"shard-00001\.parquet: row 3: column {column}: .*{problem}"):
        inspect_dataset(path, "train")


def test_splits_and_affixes(make_dataset: Make, make_codec: Any, tmp_path: Path) -> None:
    path, other = make_dataset([2]), make_dataset([2], "other", codec=make_codec(4, "0" * 16))
    (other / "train").rename(path / "second")
    with pytest.raises(DataError, match=r"train: the splits are of different concept spaces; .*got feedfacefeedface"):
        inspect_dataset(path)
    inspect_dataset(path, "train")
    (path / "affixes.safetensors").unlink()
    with pytest.raises(DataError, match="no affix"):
        inspect_dataset(path, "train")
    with pytest.raises(DataError, match="no such dataset"):
        inspect_dataset(tmp_path / "nothing")


def test_empty_split(make_dataset: Make) -> None:
    path = make_dataset([2])
    shard = path / "train" / "shard-00000.parquet"
    pq.write_table(pq.read_table(shard).slice(0, 0), shard)
    with pytest.raises(DataError, match="no documents"):
        inspect_dataset(path)


def test_speed(make_dataset: Make) -> None:
    """Vectorised: a million rows must take minutes at most, so 20,000 take less than a few seconds."""
    path = make_dataset([1] * 20_000)
    start = time.process_time()
    inspect_dataset(path)
    assert time.process_time() - start < 5

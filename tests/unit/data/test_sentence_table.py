from __future__ import annotations

import numpy as np
import pytest

from largeconcept.data.sentence_table import SentenceTable
from largeconcept.errors import DataError


def encode(texts):
    return [[ord(c) for c in text] for text in texts]


@pytest.fixture
def table() -> SentenceTable:
    return SentenceTable.build(
        encode,
        [("eng_Latn", "ab"), ("deu_Latn", "xyz"), ("eng_Latn", "ab"), ("eng_Latn", "q" * 9), ("deu_Latn", "")],
        [("eng_Latn", "ab", "deu_Latn", "new"), ("eng_Latn", "q" * 9, "deu_Latn", "xyz")],
        languages=("deu_Latn", "eng_Latn"),
        max_tokens=5,
    )


def test_equal_sentences_share_a_row_and_long_ones_are_left_out(table: SentenceTable) -> None:
    assert len(table) == 3
    tokens, lengths = table.rows(np.array([1, 0, 2]))
    assert lengths.tolist() == [3, 2, 3]
    assert ["".join(map(chr, row[:n])) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)] == [
        "xyz",
        "ab",
        "new",
    ]
    assert tokens[1, 2] == 0
    assert table.pairs.tolist() == [[0, 2]]
    assert table.langs.tolist() == [1, 0, 0]


def test_files(table: SentenceTable, tmp_path) -> None:
    table.save(tmp_path / "t.npz")
    again = SentenceTable.load(tmp_path / "t.npz")
    assert again.languages == table.languages
    for name in ("tokens", "offsets", "langs", "pairs"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    data = (tmp_path / "t.npz").read_bytes()
    for broken in (b"", b"nonsense", data[: len(data) // 2]):
        (tmp_path / "b.npz").write_bytes(broken)
        with pytest.raises(DataError, match="sentence table"):
            SentenceTable.load(tmp_path / "b.npz")


def test_errors() -> None:
    with pytest.raises(DataError, match="outside the codec"):
        SentenceTable.build(encode, [("fra_Latn", "a")], languages=("eng_Latn",))
    with pytest.raises(DataError, match="no sentence"):
        SentenceTable.build(encode, [("eng_Latn", "")])

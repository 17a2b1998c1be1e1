from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from largeconcept.data.pairs import read_sourced_pairs
from largeconcept.errors import DataError, LanguageError

LINES = "kde\tpt_BR\tHello there.\tOlá.\nddtp\tde\tA cat\tEine Katze\n"


def test_plain_and_compressed_tables_read_alike(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text(LINES)
    (tmp_path / "p.tsv.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "p.tsv.xz").write_bytes(lzma.compress(LINES.encode()))
    for name in ("p.tsv", "p.tsv.gz", "p.tsv.xz"):
        assert [tuple(pair) for pair in read_sourced_pairs([tmp_path / name])] == [
            ("kde", "por_Latn", "Hello there.", "Olá."),
            ("ddtp", "deu_Latn", "A cat", "Eine Katze"),
        ]


def test_what_cannot_be_read_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text(LINES + "kde\tde\tthree columns\n")
    with pytest.raises(DataError, match=r"p\.tsv:3: expected four"):
        list(read_sourced_pairs([path]))
    path.write_text(LINES + "kde\txx-nowhere\ta\tb\n")
    with pytest.raises(LanguageError, match=r"p\.tsv:3"):
        list(read_sourced_pairs([path]))
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(LINES.encode())[:-12])
    with pytest.raises(DataError, match="cannot read the pairs"):
        list(read_sourced_pairs([tmp_path / "cut.tsv.gz"]))
    with pytest.raises(DataError, match="cannot read the pairs"):
        list(read_sourced_pairs([tmp_path / "missing.tsv"]))

"""Tables of translation pairs: tab-separated ``source, language, English, other``, plain, ``.gz`` or ``.xz``."""

from __future__ import annotations

import functools
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from largeconcept.errors import DataError, LanguageError
from largeconcept.languages import flores

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}


class SourcedPair(NamedTuple):
    """An English sentence and its translation: where from, FLORES-200 code of the other language, both texts."""

    source: str
    lang: str
    english: str
    other: str


def read_sourced_pairs(
    paths: Iterable[str | Path], on_wrong: Callable[[list[str]], object] | None = None
) -> Iterator[SourcedPair]:
    """Read translation pairs.

    Args:
        paths: the tables.
        on_wrong: called with the columns of a line that has not four of them, which is then left out; by default such
            a line is refused.

    Raises:
        DataError: a missing or damaged file, or a line without four columns (with its number).
        LanguageError: an unknown language (with file and line).
    """
    for path in map(Path, paths):
        opener = _OPENERS.get(path.suffix)
        try:
            with opener(path, "rt", encoding="utf-8") if opener else path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    columns = line.rstrip("\r\n").split("\t")
                    if len(columns) != 4:
                        if on_wrong is not None:
                            on_wrong(columns)
                            continue
                        where = f"{path}:{number}"
                        raise DataError("expected four tab-separated columns", where=where, got=len(columns))
                    try:
                        lang = _flores(columns[1])
                    except LanguageError as error:
                        raise LanguageError(
                            error.problem, where=f"{path}:{number}", got=columns[1], hint=error.hint
                        ) from None
                    yield SourcedPair(columns[0], lang, columns[2], columns[3])
        except (UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise DataError("cannot read the pairs", where=path, got=error) from None


@functools.lru_cache(maxsize=1024)
def _flores(code: str) -> str:
    return flores(code)

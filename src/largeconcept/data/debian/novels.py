"""The novels of the R package ``janeaustenr``: a lazy-load database of character vectors."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from largeconcept.data.debian.text import tidy
from largeconcept.errors import DataError, missing_extra

_LARGEST = 64 * 2**20


def paragraphs_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the paragraphs of a text given line by line: a blank line ends one; ``_italics_`` lose their marks."""
    text = "\n".join(line.strip() for line in lines)
    found = (tidy(block.replace("_", "")) for block in re.split(r"\n\s*\n", text))
    return tuple(block for block in found if block)


def read_lazyload(index: bytes, data: bytes, where: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, lines) of the character vectors of an R lazy-load database.

    Args:
        index: the ``.rdx`` file: a compressed list of offsets and lengths.
        data: the ``.rdb`` file: the compressed objects.
        where: name for messages.

    Raises:
        DependencyError: the package ``rdata`` is missing.
        DataError: the files are not such a database.
    """
    try:
        import rdata
    except ImportError:
        raise missing_extra("rdata", "corpus") from None
    try:
        table = _convert(rdata, zlib.decompress(index, wbits=47))  # gzip or zlib
        variables = table["variables"]
        for name in sorted(variables):
            offset, length = (int(number) for number in variables[name])
            value = _convert(rdata, _inflate(data[offset : offset + length]))
            lines = [str(item) for item in value] if len(value) and isinstance(value[0], str) else []
            if lines:
                yield name, lines
    except (zlib.error, struct.error, KeyError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise DataError("not an R lazy-load database", where=where, got=error) from None


def _inflate(block: bytes) -> bytes:
    """Return one object: four bytes of length (big-endian), then zlib data."""
    (size,) = struct.unpack_from(">I", block)
    if size > _LARGEST:
        raise ValueError(f"an object of {size} bytes")
    return zlib.decompress(block[4:])


def _convert(rdata: Any, serialised: bytes) -> Any:
    return rdata.conversion.convert(rdata.parser.parse_data(serialised, extension=".rds"))

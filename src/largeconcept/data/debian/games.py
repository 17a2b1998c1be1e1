"""Stories and descriptions out of games: Wesnoth campaigns, Dungeon Crawl descriptions, FreeOrion string tables."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from largeconcept.data.debian.text import tidy

_STORY_KEYS = frozenset(
    ["message", "story", "description", "summary", "note", "text", "part", "caption", "objectives", "hint", "long_text"]
)  # keys of campaign files whose values are prose
_COMMENT = re.compile(r"(?m)^[ \t]*#(?!textdomain|define).*$")
_ASSIGNED = re.compile(r'(\w+)\s*=\s*_\s*"((?:[^"]|"")*)"((?:\s*\+\s*_\s*"(?:[^"]|"")*")*)')
_CONTINUED = re.compile(r'_\s*"((?:[^"]|"")*)"')
_CONTEXT = re.compile(r'^[^\^"]{1,60}\^')
_TAG = re.compile(r"<[^>]*>")
_SHORTEST = 15

_CRAWL_SEPARATOR = re.compile(r"(?m)^%%%%[ \t]*$")
_CRAWL_MACRO = re.compile(r"^\{\{|^<[^>]*>$")
_BLANK = re.compile(r"\n\s*\n")
_ORION_ENTRY = re.compile(r"(?m)^([A-Z][A-Z0-9_]+)[ \t]*\n(?:'''(.*?)'''|([^\n]+))", re.DOTALL)
_ORION_LINK = re.compile(r"\[\[[^\]]*\]\]")


def parse_campaign(text: str) -> list[str]:
    """Return the translatable prose of a Wesnoth ``.cfg`` file in file order: the message ids of its catalogue."""
    found: list[str] = []
    for match in _ASSIGNED.finditer(_COMMENT.sub("", text)):
        key, first, rest = match.groups()
        if key in _STORY_KEYS:
            pieces = (piece.replace('""', '"') for piece in (first, *_CONTINUED.findall(rest)))
            found.extend(piece for piece in pieces if len(piece) >= _SHORTEST)
    return found


def clean_message(message: str) -> str:
    """Return a message without its translation context (``context^``), mark-up and line breaks."""
    return tidy(_TAG.sub("", _CONTEXT.sub("", message)).replace("female^", ""))


def read_catalogue(data: bytes) -> dict[str, str]:
    """Return message id -> translation of a compiled gettext catalogue (``.mo``); empty if it is not one."""
    if len(data) < 20:
        return {}
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None:
        return {}
    _, count, originals, translations = struct.unpack_from(order + "4I", data, 4)
    catalogue: dict[str, str] = {}
    for index in range(min(count, len(data) // 16)):
        source = _entry(data, originals + 8 * index, order)
        target = _entry(data, translations + 8 * index, order)
        if source and target:  # the plural forms of a message follow a NUL
            catalogue[source.split("\0")[0]] = target.split("\0")[0]
    return catalogue


def _entry(data: bytes, position: int, order: str) -> str:
    if position + 8 > len(data):
        return ""
    length, offset = struct.unpack_from(order + "2I", data, position)
    return data[offset : offset + length].decode("utf-8", "replace") if offset + length <= len(data) else ""


def parse_crawl(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (key, paragraphs) of a Dungeon Crawl description file; aliases and macros are passed over."""
    for block in _CRAWL_SEPARATOR.split(text):
        lines = [line for line in block.strip("\n").split("\n") if not line.startswith("#")]
        while lines and not lines[0].strip():
            lines.pop(0)
        if len(lines) < 2 or _CRAWL_MACRO.match(lines[1].strip()):
            continue
        paragraphs = tuple(p for p in map(tidy, _BLANK.split("\n".join(lines[1:]))) if p)
        if paragraphs:
            yield tidy(lines[0]), paragraphs


def parse_stringtable(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (key, paragraphs) of a FreeOrion string table."""
    for key, long, short in _ORION_ENTRY.findall(re.sub(r"(?m)^#.*$", "", text)):
        plain = _ORION_LINK.sub("X", _TAG.sub("", long or short))
        paragraphs = tuple(p for p in map(tidy, _BLANK.split(plain)) if p)
        if paragraphs:
            yield key, paragraphs

"""Sentences that are too long, cut at the best place into pieces of about the same length."""

from __future__ import annotations

from collections.abc import Iterator

import regex

from largeconcept.segment.graphemes import boundaries, extends, is_simple

_CLOSERS = r"[\"'”’»›)\]」』】）》〉]*"
# Places to cut at, best first. A space must follow marks that also stand inside words and numbers; a full stop needs a
# word before and no small letter behind it as well: one that did not end a sentence is likely an abbreviation.
_PLACES = tuple(
    regex.compile(pattern)
    for pattern in (
        rf"[!?…;:]{_CLOSERS}(?=\s)|(?<=\p{{L}}{{3}})\.{_CLOSERS}(?=\s+[^\s\p{{Ll}}])"
        rf"|[\u3002\uff01\uff1f\uff1b\uff1a\uff61\u0964\u0965\u061f\u06d4\u061b\u1362\u0589]{_CLOSERS}",
        rf"[,\u060c]{_CLOSERS}(?=\s)|[\u3001\uff0c\uff64\u1363]{_CLOSERS}|(?=\s[–—(\[«„“])|[)\]](?=\s)",
        r"(?=\s)|(?<=\u200b)",
        r"[-/\\_&?=.,;:|+~]+|(?<=[\p{Pe}\p{Pf}])|(?<=\p{Han})(?=[\p{Latin}\p{N}])|(?<=[\p{Latin}\p{N}])(?=\p{Han})",
    )
)


# White space that never joins a mark; other white space may.
_CONTROL_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
_PREPEND = regex.compile(r"\p{GCB=PP}")


def pieces(text: str, start: int, end: int, max_chars: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of ``text[start:end]``, each at most ``max_chars`` long, only white space between them.

    Strong punctuation is preferred to a comma, a comma to a space, a space to any other grapheme boundary; among equals
    the place nearest to an even division wins. A cluster is never cut: one longer than ``max_chars`` is a piece of
    its own. Linear in the length.

    Args:
        text: the whole text.
        start, end: a sentence; both are grapheme boundaries, and neither end is white space.
        max_chars: at least 1.
    """
    while end - start > max_chars:
        cut = _cut(text, start, end, max_chars)
        yield start, trim_right(text, start, cut)
        start = trim_left(text, cut, end)
    if start < end:
        yield start, end


def _cut(text: str, start: int, end: int, max_chars: int) -> int:
    """Return where the first piece ends."""
    length = end - start
    count = -(-length // max_chars)
    target = start + -(-length // count)
    low = start + max(1, 3 * length // (4 * (count + 1)))
    high = start + max_chars
    allowed: set[int] | None = None
    if not is_simple(text, start, min(high + 1, end)):
        allowed = set()
        for position in boundaries(text, start, high + 1):
            if position > high and allowed:
                break
            allowed.add(position)
            if position > high:
                return min(position, end)  # one cluster is longer than a piece may be
    for place in _PLACES:
        best: int | None = None
        # The pattern may look a little behind the window, for what follows the mark.
        for match in place.finditer(text, low, min(high + 2, end)):
            position = int(match.end())
            if not low <= position <= high or (allowed is not None and position not in allowed):
                continue
            if best is None or abs(position - target) < abs(best - target):
                best = position
        if best is not None:
            return best
    if allowed is None:
        return target
    return min((p for p in allowed if p <= high), key=lambda position: (abs(position - target), position))


def trim_left(text: str, start: int, end: int) -> int:
    """Return the first position in ``text[start:end]`` that does not begin with white space of its own.

    A space that carries a combining mark is one character with it, and stays.
    """
    position = start
    while position < end and text[position].isspace():
        position += 1
    if start < position < end and text[position - 1] not in _CONTROL_SPACE and extends(text, position):
        position -= 1
    return position


def trim_right(text: str, start: int, end: int) -> int:
    """Return the end of ``text[start:end]`` without the white space at its end."""
    position = end
    while position > start and text[position - 1].isspace():
        position -= 1
    if start < position < end and text[position] not in _CONTROL_SPACE and _PREPEND.match(text, position - 1):
        position += 1  # the sign before it has taken the space into its cluster
    return position


__all__ = ["pieces", "trim_left", "trim_right"]

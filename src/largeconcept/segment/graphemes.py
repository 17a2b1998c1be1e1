"""Grapheme cluster boundaries (UAX #29, extended), fast for plain text and linear for hostile text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import regex

# Characters that can join a neighbour into one cluster. Where none occurs every position is a boundary, apart from
# the one inside CR LF. Hangul syllables, consonants of Indic scripts and emoji join only through one of these.
_JOINER = regex.compile(r"[\p{GCB=EX}\p{GCB=ZWJ}\p{GCB=SM}\p{GCB=PP}\p{GCB=L}\p{GCB=V}\p{GCB=T}\p{GCB=RI}]")
_EXTENDER = regex.compile(r"[\p{GCB=EX}\p{GCB=ZWJ}\p{GCB=SM}]")
_CLUSTER = regex.compile(r"\X")
_BLOCK = 256


def is_simple(text: str, start: int, stop: int) -> bool:
    """Return whether every position in ``text[start:stop]`` is a boundary (the one inside CR LF left aside)."""
    return _JOINER.search(text, start, stop) is None


def extends(text: str, position: int) -> bool:
    """Return whether the character at ``position`` clings to the one before it (a mark, a joiner)."""
    return position < len(text) and text[position] > "\u02ff" and _EXTENDER.match(text, position) is not None


def boundaries(text: str, start: int, stop: int) -> Iterator[int]:
    """Yield the ends of the clusters of ``text`` from ``start``, itself a boundary, until one reaches ``stop``.

    The last position yielded is the first boundary at or after ``stop`` (or the end of the text). The text is taken
    in slices: matching ``\\X`` in place looks back over a whole run of flags for every flag.
    """
    size = _BLOCK
    while start < stop:
        block = text[start : start + size]
        done = last = 0
        for match in _CLUSTER.finditer(block):  # one behind: the last cluster of a slice may go on after it
            if last:
                yield start + last
                if start + last >= stop:
                    return
                done = last
            last = match.end()
        if start + len(block) >= len(text):
            yield len(text)
            return
        size = _BLOCK if done else 4 * size
        start += done


def on_boundaries(text: str, positions: Iterable[int], start: int) -> Iterator[int]:
    """Yield those of the ascending ``positions`` that are cluster boundaries; ``start`` is one before all of them."""
    known = blocked = start  # blocked: the end of a cluster that is known to begin before the next position
    for position in positions:
        if position < blocked:
            continue
        if not _looks_like_boundary(text, position):
            for end in boundaries(text, known, position):
                if end > position:
                    blocked = end
                    break
                known = end
            if known != position:
                continue
        known = position
        yield position


def _looks_like_boundary(text: str, position: int) -> bool:
    """Decide from the two characters around ``position`` alone; false means that more context is needed."""
    if position <= 0 or position >= len(text):
        return True
    before, after = text[position - 1], text[position]
    if before <= "\u02ff" and after <= "\u02ff":
        return before != "\r" or after != "\n"
    return is_simple(text, position - 1, position + 1)


__all__ = ["boundaries", "extends", "is_simple", "on_boundaries"]

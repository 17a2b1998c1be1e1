"""Paragraphs of plain text: which line breaks end one, and which only wrap a line.

A paragraph ends at a blank line, at a form feed or paragraph separator, and at a line break that was meant (headings,
list items, verse, one paragraph a line). A break inside hard-wrapped prose is only a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A line of prose narrower than this is rather an item of a list; one wider than the second was not wrapped by hand.
_MIN_WRAP, _MAX_WRAP = 40, 132
_SHORT = 25

_SOFT_ENDS = ("\n", "\r\n", "\r", "\x0b", "\x85", "\u2028")
_BULLET = re.compile(r"\s*(?:[-*+•‣▪●○◦·–—>|]\s|#{1,6}\s|\|)")
_NUMBER = re.compile(r"\s*\(?(?:\d{1,3}[.)]|[a-zA-Z]\)|[ivxIVX]{1,4}\)|[一二三四五六七八九十]{1,3}、)\s?")
_WORD = re.compile(r"\s*(\S+)")
_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
    "\U0001f300-\U0001faff\U00020000-\U0003fffd]"
)
_TERMINAL = re.compile(r"[.!?…:。！？：；।۔؟։።][\"'”’»«“)\]」』】）]*\s*$")
_OPEN_END = re.compile(r"[,;،、，(\[{–—-]\s*$")


def paragraphs(text: str, join_wrapped_lines: bool = True) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of the paragraphs of ``text``, in order; between them lie only white space.

    Args:
        text: any text.
        join_wrapped_lines: whether to look for hard-wrapped prose; else every line is a paragraph.
    """
    block: list[str] = []
    begin = position = 0
    for line in text.splitlines(keepends=True):
        blank = line.isspace()
        if not blank:
            if not block:
                begin = position
            block.append(line)
        position += len(line)
        if block and (blank or not join_wrapped_lines or not line.endswith(_SOFT_ENDS)):
            yield from _split_block(block, begin)
            block = []
    if block:
        yield from _split_block(block, begin)


def _split_block(lines: list[str], begin: int) -> Iterator[tuple[int, int]]:
    """Yield the paragraphs of lines that no blank line parts."""
    position = start = begin
    hard = _hard_breaks(lines) if len(lines) > 1 else ()
    for index, line in enumerate(lines):
        if index and hard[index - 1]:
            yield start, position
            start = position
        position += len(line)
    yield start, position


def _hard_breaks(lines: list[str]) -> list[bool]:
    """Say for every line break between ``lines`` whether it was meant.

    Prose wrapped at a width has lines that could not have taken the first word of the next one. Where at least half of
    the lines of a block are full in this sense, the full ones go on in the next; unless every line begins with a
    capital and many are not full (verse). A line that begins in lower case goes on the one before, if that has no
    final mark and is not so short that both are rather items of a list.
    """
    lines = [line.rstrip() for line in lines]
    widths = [_width(line) for line in lines]
    limit = sorted(widths, reverse=True)[len(widths) // 10]
    full = [width + _first_width(after) > limit for width, after in zip(widths, lines[1:])]
    even = 4 * sum(full) >= 3 * len(full)  # wrapped throughout
    verse = len(lines) > 3 and not even and all(_first_letter(line).isupper() for line in lines)
    prose = _MIN_WRAP <= limit <= _MAX_WRAP and 2 * sum(full) >= len(full) and not verse
    if prose and len(lines) > 3:  # editors break a little early at long words
        full = [is_full or width > 0.9 * limit for is_full, width in zip(full, widths)]
    hard: list[bool] = []
    numbered = False
    for line, after, width, is_full in zip(lines, lines[1:], widths, full):
        numbered = numbered or _NUMBER.match(line) is not None
        closed = _TERMINAL.search(line, max(0, len(line) - 8)) is not None
        if _BULLET.match(after) or line.lstrip()[:1] == "#":
            hard.append(True)
        elif _NUMBER.match(after):  # "3. Mai" may begin a wrapped line
            hard.append(numbered or closed or not (prose and is_full))
        elif prose and is_full:
            hard.append(closed and (len(lines) == 2 or not even))
        else:
            long_enough = width >= _SHORT or _OPEN_END.search(line, max(0, len(line) - 4)) is not None
            hard.append(closed or not (_first_letter(after).islower() and long_enough))
    return hard


def _width(line: str) -> int:
    """Columns on a terminal, near enough."""
    return len(line) if line.isascii() else len(line) + len(_WIDE.findall(line))


def _first_letter(line: str) -> str:
    """The first character that is not an opening quote or bracket."""
    return line.lstrip().lstrip("\"'“„«‹(")[:1]


def _first_width(line: str) -> int:
    """Columns that the first word of ``line`` would have taken on the line before, with its space."""
    word = _WORD.match(line)
    if word is None:
        return 0
    if _WIDE.match(word[1]):
        return 4  # any character may end a line, but for punctuation that must not begin the next
    return 1 + _width(word[1])


__all__ = ["paragraphs"]

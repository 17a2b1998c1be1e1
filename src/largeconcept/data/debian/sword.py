"""Bible texts and commentaries of the SWORD project, as ``diatheke -f internal`` prints them.

``internal`` is the module's own mark-up. The plain output is not used: it prints the title of a psalm again before
every verse of every book that follows (a third of the sentences of an English Bible), and glues words of which the
mark-up says that they are two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from largeconcept.data.debian.text import tidy

VERSES_PER_PARAGRAPH = 12
"""Verses are printed one by one, sentences run across them: so many make one paragraph."""

_KEY = re.compile(r"((?:[IV]+ )?[A-Z][A-Za-z ]{2,40}?) (\d{1,3}):(\d{1,3}): ")
_NOT_TEXT = re.compile(r"<(title|note|figure|table)\b[^>]*?(?<!/)>.*?</\1\s*>", re.DOTALL)
_GLUED = re.compile(r"(?<=\w)(</w>)(<w\b)")
_BREAK = re.compile(r"</?(?:l|lg|lb|div|p|br|chapter|verse|milestone|q)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_PARAGRAPH = re.compile(r"<(?:div|p)\b[^>]*>|<br ?/?>|</p>")
_BOLD = re.compile(r"<hi type=\"bold\">.*?</hi>|<b>.*?</b>", re.DOTALL)
_REPEATED_STARS = re.compile(r"\*+")


def parse_verses(output: str) -> dict[tuple[str, int, int], str]:
    """Return (book, chapter, verse) -> text in the order of the module; empty verses are left out."""
    verses: dict[tuple[str, int, int], str] = {}
    for book, chapter, verse, markup in _entries(output):
        text = _GLUED.sub(r"\1 \2", _NOT_TEXT.sub(" ", markup))
        text = tidy(_TAG.sub("", _BREAK.sub(" ", text)).replace("¶", " "))
        if text:
            verses.setdefault((book, chapter, verse), text)
    return verses


def _entries(output: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield (book, chapter, verse, mark-up); what stands before a key on its line (a title) belongs to no verse."""
    for line in _logical_lines(output):
        match = _KEY.search(line)
        if match is not None:
            book, chapter, verse = match.groups()
            yield book, int(chapter), int(verse), line[match.end() :]


def _logical_lines(output: str) -> Iterator[str]:
    """Yield the lines that hold a key, each with the lines that follow it up to the next key."""
    current: list[str] = []
    for line in output.split("\n"):
        if _KEY.search(line) and current:
            yield "\n".join(current)
            current = []
        current.append(line)
    if current:
        if len(current) > 1 and re.fullmatch(r"\([\w.]+\)", current[-1].strip()):  # the module's name ends the output
            current.pop()
        yield re.sub(r"\n\([\w.]+\)\s*$", "", "\n".join(current))


def chapters_of(verses: dict[tuple[str, int, int], str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (``Genesis 1``, paragraphs) in order; every paragraph holds up to twelve verses."""
    grouped: dict[str, list[str]] = {}
    for (book, chapter, _), text in verses.items():
        grouped.setdefault(f"{book} {chapter}", []).append(text)
    step = VERSES_PER_PARAGRAPH
    for name, texts in grouped.items():
        yield name, tuple(" ".join(texts[i : i + step]) for i in range(0, len(texts), step))


def parse_commentary(output: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (chapter, paragraphs) of a commentary; a note that is printed for each of its verses is taken once."""
    seen: set[str] = set()
    grouped: dict[str, list[str]] = {}
    for book, chapter, _, markup in _entries(output):
        if markup in seen:
            continue
        seen.add(markup)
        texts = _PARAGRAPH.split(_BOLD.sub(" ", _NOT_TEXT.sub(" ", markup)))
        for text in (tidy(_REPEATED_STARS.sub(" ", _TAG.sub("", piece))).lstrip("- ") for piece in texts):
            if text:
                grouped.setdefault(f"{book} {chapter}", []).append(text)
    for name, paragraphs in grouped.items():
        yield name, tuple(dict.fromkeys(paragraphs))

"""Sentence pairs by position: translations of one document with the same paragraphs and as many sentences in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from largeconcept.data.debian.text import is_good

_RATIO = (0.4, 2.5)
_RATIO_CYRILLIC = (0.8, 3.6)
_CYRILLIC = frozenset({"be", "bg", "kk", "mk", "ru", "sr", "uk"})


def fits(english: str, other: str, lang: str) -> bool:
    """Return whether two sentences may be translations: both running text, different, of comparable length in bytes."""
    if english == other or "\t" in english or "\t" in other:
        return False
    if not (is_good(english, "en") and is_good(other, lang)):
        return False
    return comparable(english, other, lang)


def comparable(english: str, other: str, lang: str) -> bool:
    """Return whether the length of a sentence in bytes lets it be a translation of the English one.

    Args:
        english: not empty.
        other: the translation.
        lang: its BCP-47 tag.
    """
    low, high = _RATIO_CYRILLIC if lang in _CYRILLIC else _RATIO
    return low <= len(other.encode("utf-8", "replace")) / len(english.encode("utf-8", "replace")) <= high


def align(english: Sequence[Sequence[str]], other: Sequence[Sequence[str]], lang: str) -> Iterator[tuple[str, str]]:
    """Yield the sentence pairs of two documents given as paragraphs of sentences.

    Nothing is taken unless both have the same number of paragraphs, and from a paragraph only if both have the same
    number of sentences there. An empty paragraph keeps the place of one that is not translated.
    """
    if len(english) != len(other):
        return
    for ours, theirs in zip(english, other):
        if len(ours) == len(theirs) and ours != theirs:
            yield from ((a, b) for a, b in zip(ours, theirs) if fits(a, b, lang))

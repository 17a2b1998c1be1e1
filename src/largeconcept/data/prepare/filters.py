"""Cheap filters of sentences and pairs: what a look at the text alone tells.

They know the faults of single sources of the Debian corpus by name; texts of other sources pass untouched.
"""

from __future__ import annotations

import hashlib
import re

from largeconcept.codec.tokenizer import clean
from largeconcept.data.debian.align import comparable
from largeconcept.languages import bcp47
from largeconcept.segment.cap import pieces

# A footnote mark or a line end that went missing glued two words together.
_GLUED_BIBLE = re.compile(r"[a-zäöüßéèáíóúñ][,;:.!?]?[A-Z][a-z]|[a-z],[a-z]")
_GLUED = re.compile(r"[^\W\d_][a-záéíóú][A-ZÁÉÍÓÚ][a-záéíóú]")
# "A Psalm by David.", "For the Chief Musician.": titles that a reader of Bibles repeats before the verses.
_TITLE = re.compile(r"^(\W*(A|The) )?(Psalm|Song|For the Chief)", re.IGNORECASE)
_LONGEST_TITLE = 60
_STRAY_TITLES = (
    "A praise psalm by David.",
    "This Psalm is a genuine one of David, though extra, composed when he fought in single combat with Goliath.",
)
_VERSE_RANGE = re.compile(r"^\*\s*(?:Verses?|Chapter)\b[^*]*\*\s*")


def clean_sentence(text: str, source: str | None = None) -> str:
    """Return a sentence as the codec sees it, without what is no text: stray titles, verse ranges, marks of italics."""
    if source == "bible":
        for title in _STRAY_TITLES:
            text = text.replace(title, " ")
    elif source == "commentary":
        text = _VERSE_RANGE.sub("", text).replace("*", " ")
    elif source == "austen":
        text = text.replace("_", "")
    return clean(text)


def is_damaged(text: str, source: str | None = None) -> bool:
    """Return whether a cleaned sentence is no sentence: glued words, a title between verses."""
    if source == "bible":
        return bool(_GLUED_BIBLE.search(text) or (len(text) < _LONGEST_TITLE and _TITLE.match(text)))
    return source == "commentary" and bool(_GLUED.search(text))


def pieces_of(text: str, max_chars: int) -> list[str]:
    """Return a sentence, or the pieces that a segmenter makes of one that is too long."""
    if len(text) <= max_chars:
        return [text]
    return [text[start:end] for start, end in pieces(text, 0, len(text), max_chars)]


def pair_fault(english: str, other: str, lang: str, source: str | None, min_chars: int, max_chars: int) -> str | None:
    """Return the name of what is wrong with a pair of cleaned sentences, ``None`` if nothing is.

    Args:
        english, other: the two sentences.
        lang: FLORES-200 code of ``other``.
        source: where the pair comes from.
        min_chars, max_chars: lengths of a sentence.
    """
    if english == other:
        return "untranslated"
    if not all(min_chars <= len(text) <= max_chars for text in (english, other)):
        return "length"
    if not comparable(english, other, bcp47(lang)):
        return "length_ratio"
    if is_damaged(english, source) or is_damaged(other, source):
        return "damaged"
    return None


def draw(text: str, salt: str = "") -> float:
    """Return a number in [0, 1) that depends on the text alone: thinning by it needs no order and no state."""
    digest = hashlib.blake2b(f"{salt}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64

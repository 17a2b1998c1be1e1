"""Texts to words and sentences, in any language: what all metrics of words share."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import regex

from largeconcept.errors import DataError, LanguageError
from largeconcept.languages import flores, is_language_tag

if TYPE_CHECKING:
    from largeconcept.segment.base import BaseSegmenter

Text: TypeAlias = str | Sequence[str]
"""A text, or its sentences."""

# Scripts that do not write spaces between words. (Tibetan marks syllables, Korean writes spaces.)
_UNSPACED = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u30fc\p{Script=Bopomofo}"
    r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
)
_WORD = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]*"
)
_ASCII_WORD = regex.compile(r"[a-z0-9]+")
# Characters that stand inside words and are not seen: soft hyphen, joiners, marks of direction, byte order mark.
_UNSEEN = regex.compile("[\u00ad\u200c-\u200f\u2060\ufeff]")
_DOTLESS = frozenset({"tur_Latn", "azj_Latn", "crh_Latn"})
"""Languages whose small I has no dot."""


def words(text: Text, lang: str | None = None) -> list[str]:
    """Return the words of a text in lower case, without punctuation.

    A word is a run of letters, marks and digits; in Chinese, Japanese, Thai, Lao, Khmer and Burmese script, which do
    not separate words, it is one character with its marks. Scripts may be mixed. Compatibility forms (full-width
    letters, ligatures) are made plain (NFKC).

    Args:
        text: a text, or its sentences, whose words follow each other.
        lang: a code that :func:`largeconcept.languages.flores` reads; it decides how letters become small.

    Raises:
        DataError: not a text.
        LanguageError: ``lang`` is not a language code at all.
    """
    code = language(lang)
    whole = joined(text)
    if whole.isascii() and code not in _DOTLESS:
        return _found(_ASCII_WORD, whole.lower())
    plain = unicodedata.normalize("NFKC", _UNSEEN.sub("", whole))
    if code in _DOTLESS:
        plain = plain.replace("I", "ı").replace("İ", "i")
    return _found(_WORD, unicodedata.normalize("NFC", plain.lower()))


def rouge_words(text: Text, lang: str | None = None) -> list[str]:
    """Return words as the original ROUGE cuts them: in English runs of a–z and 0–9, else :func:`words`.

    Published figures of English are made so (https://github.com/google-research/google-research/tree/master/rouge,
    without stemming): other letters separate words there.
    """
    if language(lang) == "eng_Latn":
        return _found(_ASCII_WORD, joined(text).lower())
    return words(text, lang)


def sentences(text: Text, lang: str | None = None) -> list[str]:
    """Return the sentences of a text: those given, or those of each of its lines by the rules of ``segment``.

    Raises:
        DataError: not a text.
        LanguageError: ``lang`` is not a language code at all.
    """
    if isinstance(text, str):
        return _segmenter().sentences(text, lang)
    joined(text)
    return list(text)


def joined(text: Text) -> str:
    """Return a text on lines of a sentence each.

    Raises:
        DataError: neither a string nor a sequence of strings.
    """
    if isinstance(text, str):
        return text
    if not isinstance(text, Sequence) or not all(isinstance(one, str) for one in text):
        raise DataError("not a text", where="metrics", got=type(text).__name__, expected="str or a list of sentences")
    return "\n".join(text)


def _found(pattern: Any, text: str) -> list[str]:
    found: list[str] = pattern.findall(text)
    return found


@cache
def language(lang: str | None) -> str | None:
    """Return the FLORES-200 code of a language; ``None`` where it is unknown or has none.

    Raises:
        LanguageError: not a language code at all.
    """
    if lang is None:
        return None
    try:
        return flores(lang)
    except LanguageError:
        if is_language_tag(lang):
            return None
        raise


@cache
def _segmenter() -> BaseSegmenter:
    from largeconcept.segment import SegmenterConfig, build_segmenter

    return build_segmenter(SegmenterConfig(max_chars=None, join_wrapped_lines=False))

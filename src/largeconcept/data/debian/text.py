"""Small pure functions on text that every extractor uses: cleaning, decoding, language tags, sentences."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from largeconcept.errors import missing_extra

DEFAULT_LANGUAGES = (
    "en", "cs", "da", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "pt-BR", "ru", "sk", "sv", "uk", "zh-CN",
)  # fmt: skip
"""Languages of the corpus, BCP-47: those for which the packages hold enough running text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One document as an extractor found it, before cleaning.

    Attributes:
        package: Debian package it came from.
        lang: BCP-47 tag.
        id: path or key of the document inside its source, without the language.
        paragraphs: running text, one paragraph an entry; an empty entry keeps the place of a missing translation.
        title, summary: where the source has them.
    """

    package: str
    lang: str
    id: str
    paragraphs: tuple[str, ...]
    title: str | None = None
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pieces of text that the source itself keys together (a Bible verse in two languages)."""

    lang: str
    english: str
    other: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of mark-up says: title, one-line summary, paragraphs."""

    title: str | None
    summary: str | None
    paragraphs: tuple[str, ...]


_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"^([a-z]{2,3})(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|\d{3}))?$", re.IGNORECASE)
_END = re.compile("[.!?…。！？؟।][\"”»’'\\)」』]*$")
_WORD_GAP = " "


def tidy(text: str) -> str:
    """Return text in NFC on one line: white space collapsed; control characters, surrogates and soft hyphens gone."""
    text = _INVISIBLE.sub("", _CONTROL.sub(" ", text))
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def decode(data: bytes) -> str:
    """Return bytes as text: UTF-8, or Latin-1 for the few old files that are not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def language_of(tag: str) -> str | None:
    """Return the BCP-47 tag for a locale or folder name, or ``None`` if it is not a language.

    ``C`` is English. A region is kept only where the written languages differ: pt-BR, zh-CN, zh-TW, en-GB.
    """
    name = tag.split(".")[0].split("@")[0]
    if name == "C":
        return "en"
    match = _TAG.match(name)
    if match is None:
        return None
    language, script, region = (part.lower() if part else "" for part in match.groups())
    if language == "zh":
        return "zh-TW" if region in {"tw", "hk"} or script == "hant" else "zh-CN"
    if (language, region) in {("pt", "br"), ("en", "gb")}:
        return f"{language}-{region.upper()}"
    return language


def is_cjk(lang: str) -> bool:
    """Return whether sentences of the language are written without spaces."""
    return lang.split("-")[0] in {"ja", "zh"}


def split_sentences(text: str, lang: str) -> list[str]:
    """Return the sentences of one paragraph. The one place where the corpus depends on a splitting library.

    The rules for a text that a user typed (:mod:`largeconcept.segment`) cap the length; a corpus keeps whole sentences.
    """
    try:
        from sentencex import segment
    except ImportError:
        raise missing_extra("sentencex", "corpus") from None
    return [tidied for sentence in segment(lang.split("-")[0], text) if (tidied := tidy(sentence))]


def is_good(sentence: str, lang: str) -> bool:
    """Return whether a sentence is running text.

    20 to 400 characters and four words (8 to 160 characters in languages without spaces), an end mark, 60 % letters.
    """
    length = len(sentence)
    if is_cjk(lang):
        if not 8 <= length <= 160:
            return False
    elif not 20 <= length <= 400 or sentence.count(_WORD_GAP) < 3:
        return False
    return bool(_END.search(sentence)) and sum(map(str.isalpha, sentence)) > 0.6 * length


def is_good_paragraph(sentences: list[str], lang: str) -> bool:
    """Return whether at least 60 % of the sentences of a paragraph are running text."""
    return bool(sentences) and sum(is_good(s, lang) for s in sentences) >= 0.6 * len(sentences)

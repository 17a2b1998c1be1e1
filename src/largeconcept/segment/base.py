"""What all segmenters share: paragraphs, offsets, graphemes, the cap. A backend only says where sentences begin."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from largeconcept.errors import DataError, LanguageError
from largeconcept.languages import flores, is_language_tag
from largeconcept.segment.cap import pieces, trim_left, trim_right
from largeconcept.segment.config import SegmenterConfig
from largeconcept.segment.graphemes import on_boundaries
from largeconcept.segment.guess import guess_language
from largeconcept.segment.paragraphs import paragraphs
from largeconcept.types import Span

_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAK = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_WORD = re.compile(r"[^\W_]")
_LIST_MARK = re.compile(r"\(?(?:\d{1,3}(?:\.\d{1,3})*|[a-zA-Z]|[ivxIVX]{1,5})[.)]")
# Scripts written without spaces, where a wrapped line is joined as it is.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


class BaseSegmenter(ABC):
    """Cuts texts into sentences with exact character offsets.

    Args:
        config: the settings; see :class:`SegmenterConfig`.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        self.config = config

    def segment(self, text: str, lang: str | None = None) -> list[Span]:
        """Return the sentences of ``text``.

        Spans are in order and do not overlap, none is empty, only white space lies between them: the pieces with their
        gaps are the text, character for character. No span begins or ends inside a grapheme cluster, and none is longer
        than ``max_chars``, unless a single cluster is, which is then a span of its own.

        Args:
            text: any text, also with control characters or lone surrogates.
            lang: a language code in any form that :func:`largeconcept.languages.flores` reads. A language outside
                FLORES-200, or ``None``, is guessed from the script and the commonest words.

        Raises:
            LanguageError: ``lang`` is not a language code at all.
            DataError: ``text`` is not a string.
        """
        if not isinstance(text, str):
            raise DataError("not a text", where="segment", expected="str", got=type(text).__name__)
        language = self._language(text, lang)
        clean = _SURROGATE.sub("\ufffd", text) if not text.isascii() else text
        ranges: list[tuple[int, int]] = []
        for start, end in paragraphs(text, self.config.join_wrapped_lines):
            start, end = trim_left(text, start, end), trim_right(text, start, end)
            if start < end:
                ranges.append((start, end))
        bodies = [_LINE_BREAK.sub(" ", clean[start:end]) for start, end in ranges]
        spans: list[Span] = []
        for index, ((start, end), found) in enumerate(zip(ranges, self._starts(bodies, language), strict=True)):
            for low, high in self._sentences_of(text, start, end, found):
                spans.append(Span(low, high, index))
        return spans

    def sentences(self, text: str, lang: str | None = None) -> list[str]:
        """Return the sentences as strings on one line each: a line break inside one becomes a space.

        In scripts without spaces between words the break just goes. Raises as :meth:`segment`.
        """
        return [one_line(span.of(text)) for span in self.segment(text, lang)]

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain data; ``build_segmenter`` makes the same segmenter of them."""
        return self.config.to_dict()

    @abstractmethod
    def _starts(self, bodies: Sequence[str], lang: str) -> Iterable[Sequence[int]]:
        """Yield for each paragraph where its sentences begin, ascending, without the first.

        Args:
            bodies: paragraphs without line breaks and lone surrogates, no white space at either end.
            lang: FLORES-200 code.
        """

    def _language(self, text: str, lang: str | None) -> str:
        if lang is None:
            return guess_language(text)
        if not is_language_tag(lang):
            return flores(lang)  # raises, with a suggestion
        try:
            return flores(lang)
        except LanguageError:
            return guess_language(text)

    def _sentences_of(self, text: str, start: int, end: int, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
        inner = on_boundaries(text, (start + s for s in starts if 0 < s < end - start), start)
        limit = self.config.max_chars
        kept: list[tuple[int, int]] = []
        worded = False  # whether the last one kept has a letter or a digit
        for low, high in pairwise([start, *inner, end]):
            low = trim_left(text, low, high)
            high = trim_right(text, low, high)
            if low >= high:
                continue
            has_word = _WORD.search(text, low, high) is not None
            marker = len(kept) == 1 and _LIST_MARK.fullmatch(text, *kept[0]) is not None
            if kept and (marker or not (has_word and worded)) and (limit is None or high - kept[-1][0] <= limit):
                kept[-1] = (kept[-1][0], high)  # a stray quote or dash is no sentence: it goes with its neighbour
                worded = worded or has_word
            else:
                kept.append((low, high))
                worded = has_word
        for low, high in kept:
            if limit is None or high - low <= limit:
                yield low, high
            else:
                yield from pieces(text, low, high, limit)


def one_line(sentence: str) -> str:
    """Return ``sentence`` without line breaks; see :meth:`BaseSegmenter.sentences`."""
    first, *rest = (line.strip() for line in sentence.splitlines() or [""])
    for line in rest:
        joined = not line or not first or (_UNSPACED.match(first[-1]) and _UNSPACED.match(line))
        first += line if joined else f" {line}"
    return first


__all__ = ["BaseSegmenter", "one_line"]

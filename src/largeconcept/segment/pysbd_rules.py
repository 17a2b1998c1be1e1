"""Segmenter on pySBD: rules for 23 languages, careful and slow. Needs the extra ``pysbd``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from largeconcept.errors import missing_extra
from largeconcept.languages import bcp47
from largeconcept.segment.align import starts_of
from largeconcept.segment.base import BaseSegmenter
from largeconcept.segment.config import SegmenterConfig
from largeconcept.segment.rule import rule_starts
from largeconcept.segment.windows import windowed


class PysbdSegmenter(BaseSegmenter):
    """Sentence boundaries by pySBD, and by the default rules where it does not know the language or fails on the text.

    Raises:
        DependencyError: the package is not installed.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        try:
            import pysbd
            from pysbd.languages import LANGUAGE_CODES
        except ImportError:
            raise missing_extra("pysbd", "pysbd") from None
        self._build = pysbd.Segmenter
        self._known = frozenset(LANGUAGE_CODES)
        self._segmenters: dict[str, Any] = {}

    def _starts(self, bodies: Sequence[str], lang: str) -> Iterator[list[int]]:
        tag = bcp47(lang).partition("-")[0]
        for body in bodies:
            yield windowed(body, lambda part: self._find(part, tag, lang))

    def _find(self, text: str, tag: str, lang: str) -> list[int]:
        if tag not in self._known:
            return rule_starts(text, lang)
        if tag not in self._segmenters:
            self._segmenters[tag] = self._build(language=tag, clean=False)
        try:
            # Its character spans are wrong where a sentence occurs twice, so only the sentences are used.
            sentences = [str(sentence) for sentence in self._segmenters[tag].segment(text)]
        except Exception:  # it builds patterns out of the text and fails on some
            return rule_starts(text, lang)
        return starts_of(sentences, text)


__all__ = ["PysbdSegmenter"]

"""The default segmenter: rules for many languages from ``sentencex``, and corrections of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sentencex

from largeconcept.languages import bcp47
from largeconcept.segment.align import starts_of
from largeconcept.segment.base import BaseSegmenter
from largeconcept.segment.corrections import correct
from largeconcept.segment.windows import windowed

# Written Chinese of any kind has the rules of the standard language.
_SAME_RULES = {"yue": "zh"}


class RuleSegmenter(BaseSegmenter):
    """Sentence boundaries by rules.

    Every paragraph is read in windows of 1,000 characters: the library takes time quadratic in the length of a
    paragraph (minutes for a megabyte of Chinese in one line).
    """

    def _starts(self, bodies: Sequence[str], lang: str) -> Iterator[list[int]]:
        for body in bodies:
            yield windowed(body, lambda part: rule_starts(part, lang))


def rule_starts(text: str, lang: str) -> list[int]:
    """Return where the sentences of a short text begin, ascending, without the first.

    Args:
        text: without line breaks and lone surrogates.
        lang: FLORES-200 code.
    """
    tag = bcp47(lang).partition("-")[0]
    try:
        sentences = sentencex.segment(_SAME_RULES.get(tag, tag), text)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how a failed assertion in the library's Rust code arrives
            raise
        sentences = []
    return correct(text, starts_of(sentences, text), lang)


__all__ = ["RuleSegmenter", "rule_starts"]

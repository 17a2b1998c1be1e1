"""Writing anything but a given sentence.

A concept that was predicted stands for many sentences, each of which is unlikely. One that is always worded alike, such
as the one that ends texts, may then be the likeliest of all with a probability of a tenth: the mode says little about
what the concept means (Eikema & Aziz 2020, "Is MAP Decoding All You Need?", https://arxiv.org/abs/2005.10283).

Shape letters: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from largeconcept.codec.decoding import DecoderState
    from largeconcept.types import ConceptCodec


class Avoiding:
    """A state in which no row begins with the first token of a sentence.

    To forbid its end alone would not do: what is likely because of that sentence would be written with other words
    at the end ("End of formatting."). Others that begin with the same token cannot be written either.

    Args:
        state: whose scores are changed.
        tokens: of the sentence.
    """

    def __init__(self, state: DecoderState, tokens: Sequence[int]) -> None:
        self.end = state.end
        self._state = state
        self._first = tokens[0]
        self._begun = False
        self.feed, self.select = state.feed, state.select

    def scores(self) -> Tensor:
        """(R, V) scores of the next token."""
        scores = self._state.scores()
        if not self._begun:
            scores[:, self._first] = -torch.inf
            self._begun = True
        return scores


def with_avoided(codec: ConceptCodec, options: dict[str, Any], sentence: str | None) -> dict[str, Any]:
    """Return options of a codec's ``decode`` with a sentence to avoid, if there is one and the codec can."""
    if sentence is None or "avoid" not in signature(codec.decode).parameters:
        return options
    return {**options, "avoid": sentence}

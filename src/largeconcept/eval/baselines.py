"""Predictors of the next concept that stand beside a model: what no model, or a token model, would say.

A :data:`Guess` maps a stretch of a document to what it expects in the place of every concept but the first, from those
before it. Whatever it needs of training data it was given when it was made.

Shape letters: S concepts of a window, N concepts of the training data, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.held_out import Window

if TYPE_CHECKING:
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.generate.token_lm import TokenOptions
    from largeconcept.models.token_lm import TokenLM
    from largeconcept.objectives.token_lm import TextTokenizer
    from largeconcept.types import ConceptCodec

ROWS = 1024
"""Predictions that are compared with the training data at once."""


@dataclass(frozen=True, slots=True)
class Guessed:
    """What was expected in the place of concepts 1 … S - 1 of a window.

    Attributes:
        concepts: (S - 1, C) float32.
        sentences: the S - 1 sentences, where the predictor knows them better than the codec's decoder would.
    """

    concepts: Tensor
    sentences: Sequence[str] | None = None


Guess = Callable[[Window], Guessed]


def copy_last(window: Window) -> Guessed:
    """Say the last concept again."""
    sentences = None if window.sentences is None else window.sentences[:-1]
    return Guessed(window.concepts[:-1], sentences)


class Constant:
    """Say one concept everywhere, as the mean of the training data.

    Args:
        concept: (C,).
    """

    def __init__(self, concept: Tensor) -> None:
        self.concept = concept.detach().float().cpu()

    def __call__(self, window: Window) -> Guessed:
        """See :data:`Guess`."""
        return Guessed(self.concept.expand_as(window.concepts[1:]))


class NearestFollower:
    """Say what followed the training concept that is nearest (Euclidean) to the last one.

    A model that is no better has memorised its training data, or learnt less than a look-up finds there.

    Args:
        concepts: (N, C) concepts of the training data that another one follows.
        followers: (N, C) those that follow.
        sentences: the N sentences that follow, where there is text.

    Raises:
        DataError: shapes do not fit together, or nothing is given.
    """

    def __init__(self, concepts: Tensor, followers: Tensor, sentences: Sequence[str] | None = None) -> None:
        if concepts.ndim != 2 or concepts.shape != followers.shape or not len(concepts):
            got = f"{tuple(concepts.shape)} and {tuple(followers.shape)}"
            raise DataError("wrong shape", where="nearest follower", expected="(N, C) twice, N ≥ 1", got=got)
        if sentences is not None and len(sentences) != len(concepts):
            raise DataError("wrong number of sentences", expected=len(concepts), got=len(sentences))
        self.concepts, self.followers, self.sentences = concepts.float(), followers.float(), sentences
        self._squares = self.concepts.square().sum(dim=-1)

    @classmethod
    def of(cls, dataset: ConceptDataset, limit: int = 100_000) -> NearestFollower:
        """Take the first documents of a dataset, up to ``limit`` concepts.

        Raises:
            DataError: no document has two concepts.
            ConfigError: a limit below 1.
        """
        if limit < 1:
            raise ConfigError("out of range", where="limit", got=limit, expected="at least 1")
        concepts: list[Tensor] = []
        followers: list[Tensor] = []
        sentences: list[str] = []
        for document in dataset:
            room = limit - len(sentences)
            if room <= 0:
                break
            if len(document.concepts) < 2:
                continue
            concepts.append(document.concepts[:-1][:room])
            followers.append(document.concepts[1:][:room])
            sentences += document.sentences[1:][:room]
        if not concepts:
            raise DataError("no document with two concepts", where=dataset.folder)
        return cls(torch.cat(concepts), torch.cat(followers), sentences)

    def __call__(self, window: Window) -> Guessed:
        """See :data:`Guess`."""
        nearest = torch.cat([self._nearest(rows) for rows in torch.split(window.concepts[:-1], ROWS)])
        sentences = None if self.sentences is None else [self.sentences[i] for i in nearest.tolist()]
        return Guessed(self.followers[nearest], sentences)

    def _nearest(self, rows: Tensor) -> Tensor:
        # Distances without the rows' own squares; the nearest does not change with them.
        return (self._squares - 2.0 * rows.float() @ self.concepts.T).argmin(dim=-1)


class TokenGuess:
    """Let a token model write the next sentence at every place, and encode it.

    Args:
        model: the token model.
        tokenizer: of the codec it was trained with.
        codec: encodes what it writes.
        options: how tokens are chosen; greedy by default.

    Note: a sentence without anything printable has no concept; that of "." stands for it.
    """

    def __init__(
        self, model: TokenLM, tokenizer: TextTokenizer, codec: ConceptCodec, options: TokenOptions | None = None
    ) -> None:
        self.model, self.tokenizer, self.codec, self.options = model, tokenizer, codec, options

    def __call__(self, window: Window) -> Guessed:
        """See :data:`Guess`.

        Raises:
            DataError: the document has no sentences.
        """
        from largeconcept.generate.token_lm import predict_next_sentences

        if window.sentences is None:
            raise DataError("a token model needs sentences", where=f"document {window.owner}")
        ids = [window.owner]
        written = predict_next_sentences(self.model, self.tokenizer, [window.sentences], self.options, sample_ids=ids)[
            0
        ]
        lang = window.lang if window.lang in self.codec.languages else self.codec.languages[0]
        concepts = self.codec.encode([text if text.strip() else "." for text in written], lang)
        return Guessed(concepts.float().cpu(), written)

"""Held-out documents as the next-concept tasks see them: windows to predict, and concepts to tell the truth from.

Shape letters: S concepts of a document, M concepts of a pool, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.drawing import drawn, spread
from largeconcept.eval.metrics.concepts import contrastive_accuracy, near_in_text, nearest_context


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a document whose concepts are predicted one after the other.

    Attributes:
        owner: number of the document.
        start: place of the window's first concept in it.
        concepts: (S, C) float32 in the codec's space, on the CPU.
        scored: (S,) boolean, which concepts count.
        sentences: the S sentences, where the documents have text.
        before: the sentences of the document in front of the window.
        lang: FLORES-200 code, where it is known.
    """

    owner: int
    start: int
    concepts: Tensor
    scored: Tensor
    sentences: Sequence[str] | None = None
    before: Sequence[str] = ()
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class HeldOutDocument:
    """What is used of a document: (S, C) float32 concepts, which of them are scored, its text and language."""

    concepts: Tensor
    scored: Tensor
    sentences: Sequence[str] | None
    lang: str | None


def usable_documents(documents: Iterable[Any], dim: int) -> Iterator[HeldOutDocument]:
    """Yield the documents in which there is something to predict."""
    for index, document in enumerate(documents):
        concepts = document if isinstance(document, Tensor) else document.concepts
        where = f"document {getattr(document, 'id', index)}"
        if concepts.ndim != 2 or concepts.shape[1] != dim:
            raise DataError(
                "concepts of another dimension",
                where=where,
                expected=f"(S, {dim})",
                got=tuple(concepts.shape),
                hint="the dataset was built with another codec than the model's",
            )
        if not bool(torch.isfinite(concepts).all()):
            raise DataError("a concept is not finite", where=where)
        marked = getattr(document, "scored", None)
        scored = torch.ones(len(concepts), dtype=torch.bool) if marked is None else marked.cpu()
        sentences = getattr(document, "sentences", None) or None
        if sentences is not None and len(sentences) != len(concepts):
            got = f"{len(sentences)} sentences, {len(concepts)} concepts"
            raise DataError("sentences and concepts differ in number", where=where, got=got)
        if bool(scored[1:].any()):
            yield HeldOutDocument(concepts.detach().float().cpu(), scored, sentences, getattr(document, "lang", None))


def windows_of(documents: Sequence[HeldOutDocument], size: int) -> list[Window]:
    """Cut documents into windows of ``size`` concepts, each starting without context; single concepts are left out."""
    windows = []
    for owner, document in enumerate(documents):
        text = document.sentences
        for start in range(0, len(document.concepts) - 1, size):
            part = slice(start, start + size)
            if len(document.concepts[part]) < 2:
                continue
            windows.append(
                Window(
                    owner,
                    start,
                    document.concepts[part],
                    document.scored[part],
                    None if text is None else text[part],
                    () if text is None else text[:start],
                    document.lang,
                )
            )
    return windows


@dataclass(frozen=True, slots=True)
class ConceptPool:
    """Concepts to take distractors from: (M, C) float64, (M,) their documents, (M,) their places in them.

    ``center`` is (C,): distances do not change with it, rounding errors do. ``centered`` and ``squares`` are the
    concepts without it and the squares of their lengths.
    """

    concepts: Tensor
    owners: Tensor
    places: Tensor
    center: Tensor
    centered: Tensor = field(init=False, repr=False)
    squares: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "centered", self.concepts - self.center)
        object.__setattr__(self, "squares", self.centered.square().sum(dim=-1))

    def accuracy(self, predicted: Tensor, truth: Tensor, excluded: Tensor) -> Tensor:
        """Return (N,) contrastive accuracy of (N, C) predictions; ``excluded`` is (M,) or (N, M) boolean."""
        left, right = predicted - self.center, truth - self.center
        return contrastive_accuracy(left, right, self.centered, excluded, self.squares)

    @classmethod
    def of(cls, documents: Sequence[HeldOutDocument], first: int = 0) -> ConceptPool:
        """All scored concepts of documents, which are numbered from ``first``."""
        scored = [document.scored for document in documents]
        concepts = torch.cat([one.concepts[one.scored] for one in documents]).double()
        counts = torch.tensor([int(one.sum()) for one in scored])
        owners = torch.repeat_interleave(torch.arange(first, first + len(documents)), counts)
        return cls(concepts, owners, torch.cat([one.nonzero().squeeze(1) for one in scored]), concepts.mean(dim=0))

    @classmethod
    def drawn(cls, documents: Sequence[HeldOutDocument], size: int, seed: int) -> ConceptPool:
        """At most ``size`` concepts, drawn from all documents."""
        whole = cls.of(documents)
        if len(whole.owners) > size:
            chosen = np.sort(np.random.default_rng(seed).permutation(len(whole.owners))[:size])
            concepts = whole.concepts[chosen]
            whole = cls(concepts, whole.owners[chosen], whole.places[chosen], concepts.mean(dim=0))
        if bool((whole.owners == whole.owners[0]).all()):
            raise ConfigError("the pool holds concepts of one document only", where="pool", got=size, hint="raise it")
        return whole


def pools_of_batches(documents: Sequence[HeldOutDocument], size: int) -> list[ConceptPool]:
    """Return for each document the batch it is in: documents in their order, two or more, up to ``size`` concepts."""
    groups: list[list[int]] = [[]]
    room = size
    for number, document in enumerate(documents):
        if len(document.concepts) > room and len(groups[-1]) >= 2:
            groups.append([])
            room = size
        groups[-1].append(number)
        room -= len(document.concepts)
    if len(groups) > 1 and (len(groups[-1]) < 2 or room > size // 2):  # too small to be one of its own
        rest = groups.pop()
        groups[-1] += rest
    made = [ConceptPool.of([documents[i] for i in group], group[0]) for group in groups]
    return [pool for pool, group in zip(made, groups, strict=True) for _ in group]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out documents with all that scoring needs of them and that no prediction changes.

    Make it once where many predictors, or many settings of one, are scored on the same documents.

    Attributes:
        documents: those that were drawn.
        windows: their stretches that are predicted.
        pool: concepts that distractors are taken from, whatever the document.
        batches: for each document the concepts of the batch it is in.
        nearest: for each window (N,), how near its scored concepts come to one before them (their greatest cosine).
        excluded: for each window (N, M), which concepts of its batch are the truth itself or a neighbour of it.
    """

    documents: Sequence[HeldOutDocument]
    windows: Sequence[Window]
    pool: ConceptPool
    batches: Sequence[ConceptPool]
    nearest: Sequence[Tensor]
    excluded: Sequence[Tensor]

    @classmethod
    def of(
        cls,
        documents: Iterable[Any],
        dim: int,
        *,
        limit: int | None = None,
        seed: int = 0,
        pool: int = 4096,
        contrastive_batch: int = 1024,
        max_length: int = 128,
    ) -> HeldOut:
        """Read documents; see :func:`~largeconcept.eval.next_concept.evaluate_next_concept` for the arguments.

        Raises:
            DataError: fewer than two documents with at least two concepts, another dimension, or values that are not
                finite.
            ConfigError: a setting out of range.
        """
        for name, value, least in (("pool", pool, 1), ("contrastive_batch", contrastive_batch, 1),
                                   ("max_length", max_length, 2)):  # fmt: skip
            if value < least:
                raise ConfigError("out of range", where=name, got=value, expected=f"at least {least}")
        chosen = drawn(usable_documents(spread(documents, limit, seed), dim), limit, seed)
        if len(chosen) < 2:
            raise DataError(
                "too few documents to evaluate on",
                expected="two or more with at least two concepts each",
                got=f"{len(chosen)} such",
                hint="raise the limit or use another split",
            )
        windows = windows_of(chosen, max_length)
        fixed = ConceptPool.drawn(chosen, pool, seed)
        batches = pools_of_batches(chosen, contrastive_batch)
        nearest, excluded = [], []
        for window in windows:
            judged, batch = window.scored[1:], batches[window.owner]
            places = window.start + 1 + judged.nonzero().squeeze(1)
            nearest.append(nearest_context(window.concepts[1:], window.concepts)[judged])
            excluded.append(near_in_text(window.owner, places, batch.owners, batch.places))
        return cls(chosen, windows, fixed, batches, nearest, excluded)

"""Which documents a limited evaluation works on: drawn by seed, from all over a dataset, without reading all of it.

The first documents of a dataset are mostly of one source: other texts are then harder to tell apart than they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
CANDIDATES = 4096
"""Most documents that a limited number is drawn from."""


def candidates(limit: int | None) -> int | None:
    """Return from how many documents ``limit`` of them are drawn; ``None`` from all."""
    return None if limit is None else max(CANDIDATES, 4 * limit)


def spread(documents: Iterable[Any], limit: int | None, seed: int) -> Iterable[Any]:
    """Return the documents to draw from: of a :class:`~largeconcept.data.reader.ConceptDataset`, where a limit is set,
    its row groups in an order drawn from the seed; anything else as it comes.
    """
    groups = getattr(documents, "row_groups", None)
    if limit is None or groups is None:
        return documents
    order = np.random.default_rng([seed, 2]).permutation(len(groups)).tolist()
    return _in_groups(documents, order)


def _in_groups(dataset: Any, order: Iterable[int]) -> Iterator[Any]:
    for group in order:
        yield from dataset.documents(group)


def drawn(documents: Iterable[T], limit: int | None, seed: int) -> list[T]:
    """Return ``limit`` of the first :func:`candidates` things, each as likely as any other, in their order.

    No more than ``limit`` are held at a time (Vitter 1985, algorithm R).
    """
    if limit is None:
        return list(documents)
    generator = np.random.default_rng([seed, 1])
    kept: list[tuple[int, T]] = []
    for number, document in enumerate(islice(documents, candidates(limit))):
        if number < limit:
            kept.append((number, document))
        elif (place := int(generator.integers(number + 1))) < limit:
            kept[place] = (number, document)
    return [document for _, document in sorted(kept, key=lambda one: one[0])]


__all__ = ["CANDIDATES", "candidates", "drawn", "spread"]

"""Rows that every codec works on: checking those that come in, and grouping them by length.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from largeconcept.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.types import ConceptCodec, DifferentiableDecoder


def meaning_dim(codec: ConceptCodec | DifferentiableDecoder) -> int:
    """Return how many channels of a codec's concepts, the first ones, say what a sentence means.

    All of them, unless the codec keeps the wording in others; see :mod:`largeconcept.codec.network`.
    """
    found: int = getattr(codec, "meaning_dim", codec.dim)
    return found


def check_concepts(concepts: Tensor, dim: int) -> None:
    """Refuse tensors that are not (N, C) finite numbers.

    Raises:
        DataError: says what was expected, or which concept is not finite.
    """
    if concepts.ndim != 2 or concepts.shape[1] != dim:
        raise DataError(
            "wrong shape",
            where="concepts",
            expected=f"(N, {dim})",
            got=tuple(concepts.shape),
            hint="were these concepts made by another codec?",
        )
    finite = concepts.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise DataError("a value is not finite", where=f"concepts, row {int((~finite).nonzero()[0])}")


def too_long(lengths: Sequence[int], limit: int, on_long: str, *, counted: str = "", hint: str = "") -> list[int]:
    """Return the places of sentences of more than ``limit`` tokens; complain about them, or warn where they are cut.

    Args:
        lengths: tokens of each sentence.
        limit: what the codec reads.
        on_long: ``error``, ``truncate`` (then a warning is given), or another word for what is done with them.
        counted: what is counted besides words, as ", end mark included".
        hint: what else one can do about it.

    Raises:
        DataError: under ``error``, names the first.
    """
    found = [i for i, length in enumerate(lengths) if length > limit]
    if found and on_long == "error":
        raise DataError(
            "a sentence is too long",
            where=f"sentences[{found[0]}]",
            got=f"{lengths[found[0]]} tokens",
            expected=f"≤ {limit}{counted}",
            hint=f"segment the text with a smaller max_chars{hint}",
        )
    if found and on_long == "truncate":
        warnings.warn(
            f"{len(found)} sentence(s) have more than {limit} tokens and were cut; the first is number {found[0]}",
            stacklevel=4,
        )
    return found


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group indices by similar length so that (longest × count) stays within the budget."""
    groups: list[list[int]] = []
    current: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda j: lengths[j]):
        if current and lengths[i] * (len(current) + 1) > batch_tokens:
            groups.append(current)
            current = []
        current.append(i)
    if current:
        groups.append(current)
    return groups

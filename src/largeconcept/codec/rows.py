"""Rows that every codec works on: checking those that come in, and grouping them by length.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from largeconcept.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


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

"""Scores of predicted concepts, as pure functions of tensors (arXiv:2412.08821, section 2.4.2).

Shape letters: N predictions, M distractors, S concepts of a document, C concept dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 1
"""Concepts on either side of the truth that are no distractors in a batch, as in the paper."""


def contrastive_accuracy(
    predicted: Tensor,
    truth: Tensor,
    distractors: Tensor,
    excluded: Tensor | None = None,
    squares: Tensor | None = None,
) -> Tensor:
    """Return (N,) float64: the share of (M, C) distractors farther from each (N, C) prediction than its truth is.

    Args:
        predicted: (N, C).
        truth: (N, C).
        distractors: (M, C).
        excluded: (N, M) or (M,) boolean, distractors that do not count for a prediction; at least one has to remain
            for each.
        squares: (M,) float64, squared lengths of the distractors, where they are known.

    Note: a distractor exactly as far as the truth (usually the same sentence in another document) counts one half, so
    that a prediction without information gets 0.5.
    """
    # Squared distances without |prediction|², which all share.
    p, t, d = predicted.double(), truth.double(), distractors.double()
    far = torch.addmm(d.square().sum(dim=-1) if squares is None else squares, p, d.T, alpha=-2.0)
    far -= (t.square().sum(dim=-1) - 2.0 * (p * t).sum(dim=-1)).unsqueeze(-1)
    # Equal distances differ by rounding here.
    tolerance = 1e-9 * (p.square().sum(dim=-1) + t.square().sum(dim=-1)).unsqueeze(-1)
    counted: Tensor | int = far.shape[-1]
    if excluded is not None:
        far.masked_fill_(excluded, torch.nan)  # neither farther nor as far
        counted = (~excluded).sum(dim=-1)
    won = (far > tolerance).sum(dim=-1) + (far >= -tolerance).sum(dim=-1)  # each farther one twice, each tie once
    return won.double() / (2 * counted)


def near_in_text(owner: int, positions: Tensor, owners: Tensor, places: Tensor) -> Tensor:
    """Return (N, M) boolean: which concepts of a batch are a truth itself or one of its two neighbours.

    Args:
        owner: the document of the predictions.
        positions: (N,) places of their truths in it.
        owners: (M,) documents of the batch's concepts.
        places: (M,) where they stand in them.
    """
    close = (positions.unsqueeze(-1) - places).abs() <= NEIGHBOURS
    return close & (owners == owner)


def nearest_context(concepts: Tensor, text: Tensor) -> Tensor:
    """Return (S - 1,) float64: the greatest cosine of concept i of (S - 1, C) to the first i + 1 of (S, C) concepts.

    Concept i stands in the place of concept i + 1 of the text.
    """
    cosines = _unit(concepts) @ _unit(text[:-1]).T
    hidden = torch.ones_like(cosines, dtype=torch.bool).triu(1)
    return cosines.masked_fill(hidden, -torch.inf).amax(dim=-1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.double(), dim=-1)

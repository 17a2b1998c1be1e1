"""Which concepts a denoiser's row may look at, as boolean masks: ``True`` is visible.

Key 0 is the zero vector in front of the context; key k is concept k-1. Shape letters: B batch, T rows (noisy
concepts), S concepts of the context.

A causal stack on right-padded rows needs no padding mask: a real position only looks to its left, where everything
is real.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shifted_causal_mask(
    num_rows: int, num_keys: int, source_lengths: Tensor | None = None, *, device: torch.device | None = None
) -> Tensor:
    """Return the mask of the denoiser's cross-attention in training (arXiv:2412.08821, §2.3.3).

    Without ``source_lengths``: (T, S+1), row i sees keys 0..i, that is the zero key and the clean concepts before i.
    With ``source_lengths`` (B,): (B, 1, T, S+1), row j of the targets sees keys 0..source_length+j.

    Args:
        num_rows: T.
        num_keys: S + 1.
        source_lengths: how many leading concepts of each document are its source.
        device: where to build the mask; that of ``source_lengths`` when given.
    """
    device = source_lengths.device if source_lengths is not None else device
    rows = torch.arange(num_rows, device=device).unsqueeze(1)
    keys = torch.arange(num_keys, device=device)
    if source_lengths is None:
        return keys <= rows
    return (keys <= source_lengths.view(-1, 1, 1) + rows).unsqueeze(1)


def lengths_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size): ``True`` at the first ``lengths[b]`` places of each row."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def num_dropped_rows(num_rows: int, probability: float) -> int:
    """Return how many rows the reference implementation trains without context: ``floor((T - 1) * p)``.

    Kept for comparisons. Note: 0 for T up to 7 at p = 0.15, and never row 0; the library itself drops rows
    independently.
    """
    return int((num_rows - 1) * probability)

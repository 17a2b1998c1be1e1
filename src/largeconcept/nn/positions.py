"""Positions that are added to the input: a learned table, or sinusoids. Shape letters: B batch, S concepts, D width."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from largeconcept.errors import DataError

PositionStyle = Literal["rope", "learned", "sine", "none"]


class LearnedPositions(nn.Module):
    """A table (max_positions, D) of learned vectors, drawn from N(0, std)."""

    def __init__(self, max_positions: int, dim: int, std: float) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(max_positions, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, positions: Tensor, last: int) -> Tensor:
        """Return the vectors (…, D) of ``positions`` (…,), whose largest is ``last`` (known on the host).

        Raises:
            DataError: ``last`` lies beyond the table.
        """
        size = self.weight.shape[0]
        if last >= size:
            raise DataError(
                "the document is longer than the model's learned positions",
                expected=f"at most {size} concepts",
                got=last + 1,
                hint="shorten the document or ask for fewer concepts",
            )
        return self.weight[positions]


def sine_positions(positions: Tensor, dim: int) -> Tensor:
    """Return sinusoids (…, D) float32 of ``positions`` (…,): all sines, then all cosines (Vaswani et al. 2017, §3.5).

    Frequencies fall geometrically from 1 to 1/10 000, both ends included.
    """
    half = dim // 2
    step = math.log(10_000.0) / max(half - 1, 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=positions.device) * -step)
    angles = positions.float().unsqueeze(-1) * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)

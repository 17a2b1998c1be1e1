"""Adaptive layer norm with zero initialisation, the conditioning of a denoiser on the timestep (arXiv:2212.09748,
§3.2).

Shape letters: D width, N timesteps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.nn.linear import Linear

NUM_CHUNKS = 9  # shift, scale, gate for self-attention, then cross-attention, then the MLP


class Modulator(nn.Module):
    """SiLU and one linear from the timestep embedding to nine vectors; zero at first, so every branch starts shut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = Linear(dim, NUM_CHUNKS * dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, timestep_embedding: Tensor) -> Tensor:
        """Map (N, D) to (N, 9 D)."""
        out: Tensor = self.fc(F.silu(timestep_embedding))
        return out


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return ``x * (1 + scale) + shift`` for a normalised ``x`` (…, D)."""
    return torch.addcmul(shift + x, x, scale)

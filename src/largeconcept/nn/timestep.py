"""The embedding of the diffusion timestep. Shape letters: N timesteps, D width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.nn.linear import Linear

NUM_FREQUENCIES = 128


def timestep_sinusoids(timesteps: Tensor) -> Tensor:
    """Return (…, 256) float32 of integer ``timesteps`` (…,): 128 cosines, then 128 sines, of the raw integer.

    Frequencies are ``10 000 ** (-k / 128)`` for k = 0..127.
    """
    k = torch.arange(NUM_FREQUENCIES, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(10_000.0) * k / NUM_FREQUENCIES)
    angles = timesteps.float().unsqueeze(-1) * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoids, linear, SiLU, linear (arXiv:2212.09748, §3.2); weights from N(0, 0.02), biases zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(2 * NUM_FREQUENCIES, dim)
        self.fc2 = Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for linear in (self.fc1, self.fc2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Map integers (…,) to (…, D)."""
        sinusoids = timestep_sinusoids(timesteps).to(self.fc1.weight.dtype)
        out: Tensor = self.fc2(F.silu(self.fc1(sinusoids)))
        return out

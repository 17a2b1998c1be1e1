"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) that turns neighbouring pairs of channels.

Shape letters: S concepts, H heads, K head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (…, K/2) float32 of the angles ``position * theta ** (-2 i / K)``.

    ``positions`` (…,) are integers; a table is cheap enough to be made once a forward pass, so nothing is stored.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float().unsqueeze(-1) * theta**-exponent
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the channel pairs (2i, 2i+1) of (…, K) by angles that broadcast as (…, K/2); computed in float32."""
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1)
    return turned.flatten(-2).to(x.dtype)

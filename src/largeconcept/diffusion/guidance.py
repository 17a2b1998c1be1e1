"""Classifier-free guidance (Ho & Salimans, arXiv:2207.12598) with rescaling (Lin et al., arXiv:2305.08891, 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def guide(cond_eps: Tensor, uncond_eps: Tensor, guidance_scale: float, guidance_rescale: float = 0.0) -> Tensor:
    """Combine the noise predicted with and without context, both (…, C).

    ``eps = uncond + guidance_scale * (cond - uncond)``; then a share ``guidance_rescale`` of it is brought back to the
    standard deviation that ``cond_eps`` has over the channels of each vector. A scale of 1 returns ``cond_eps``
    itself.
    """
    if guidance_scale == 1.0:
        return cond_eps
    eps = uncond_eps + guidance_scale * (cond_eps - uncond_eps)
    if guidance_rescale == 0.0:
        return eps
    factor = cond_eps.std(dim=-1, keepdim=True) / eps.std(dim=-1, keepdim=True)
    return eps * (guidance_rescale * factor + (1.0 - guidance_rescale))

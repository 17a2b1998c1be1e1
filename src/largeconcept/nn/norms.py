"""Normalisation over the last dimension, always computed in float32. Shape letters: D width."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.errors import ConfigError

NormStyle = Literal["rms", "layer", "layer_weight", "layer_plain"]
EPS = 1e-5


class Norm(nn.Module):
    """RMSNorm or LayerNorm with epsilon 1e-5 inside the root.

    Args:
        dim: D, the width of the last dimension.
        style: ``rms`` (a weight), ``layer`` (weight and bias), ``layer_weight`` (LayerNorm without bias) or
            ``layer_plain`` (LayerNorm without weight and bias).
    """

    def __init__(self, dim: int, style: NormStyle = "rms") -> None:
        super().__init__()
        if style not in get_args(NormStyle):
            raise ConfigError("unknown normalisation", got=style, expected=get_args(NormStyle))
        self.style: NormStyle = style
        self.weight = None if style == "layer_plain" else nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if style == "layer" else None

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (…, D); the result has the type of ``x``."""
        return normalize(x, self.style, self.weight, self.bias)

    def modulated(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Fold ``norm(x) * (1 + scale) + shift`` into one (weight, bias) pair for :func:`normalize`.

        ``scale`` and ``shift`` are (…, D). Used where the same modulation serves many vectors, as in generation.
        """
        factor = scale + 1
        bias = shift if self.bias is None else torch.addcmul(shift, factor, self.bias)
        return (factor if self.weight is None else factor * self.weight), bias


def normalize(x: Tensor, style: NormStyle, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Normalise (…, D) and apply ``weight`` and ``bias``, each (D,) or ``None``.

    Note: the weight is applied in float32 and the result is rounded once; with float32 inputs this is the usual order.
    """
    shape = x.shape[-1:]
    if style != "rms":
        return F.layer_norm(x, shape, weight, bias, EPS)
    y = F.rms_norm(x.float(), shape, weight if weight is None else weight.float(), EPS)
    return (y if bias is None else y + bias).to(x.dtype)

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


class ModulatedNorm:
    """:func:`normalize` with a fixed weight and bias, for a few vectors at a time; made by :meth:`table`.

    Outside of autograd RMSNorm is taken as LayerNorm of (x, -x), whose mean is zero and whose variance is the mean
    square of x: three operations instead of seven, the same result up to rounding.
    """

    __slots__ = ("bias", "dim", "style", "weight")

    def __init__(self, style: NormStyle, dim: int, weight: Tensor, bias: Tensor) -> None:
        self.style, self.dim, self.weight, self.bias = style, dim, weight, bias

    @classmethod
    def table(cls, style: NormStyle, weights: Tensor, biases: Tensor) -> list[ModulatedNorm]:
        """Return one norm for each row of weights and biases (N, D), modulation included."""
        dim = weights.shape[-1]
        if style == "rms":
            weights, biases = (F.pad(table, (0, dim)) for table in (weights, biases))
        return [cls(style, dim, w, b) for w, b in zip(weights.unbind(0), biases.unbind(0), strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        dim = self.dim
        if self.style != "rms":
            return F.layer_norm(x, (dim,), self.weight, self.bias, EPS)
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
            return normalize(x, self.style, self.weight[:dim], self.bias[:dim])
        mirrored = torch.cat((x, -x), dim=-1)
        return F.layer_norm(mirrored, (2 * dim,), self.weight, self.bias, EPS)[..., :dim]

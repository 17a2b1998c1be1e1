"""Products with fixed weights on a CPU, in float32 and bfloat16, for any number of rows.

The default product of float32 rows runs at half to two thirds of the processor's rate, and of few rows at a fraction
of it in either type, because weights are rearranged at every call. oneDNN's product reaches 90 % and more from some
hundred rows on, and with weights kept in its own order from some tens (``benchmarks/sonar.py``; figures in
docs/sonar.md). Where it does not apply (another device or type, gradients, autocast, ``torch.compile``, torch without
oneDNN) torch's own product is taken; all give the same up to rounding.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.nn.linear import has_onednn

CHUNK = 1 << 24
"""Elements of a weight that oneDNN rearranges at once where the rearranged ones are not kept: bounds their memory."""

Activation = Literal["none", "relu"]


def is_quick(weight: Tensor) -> bool:
    """Tell whether oneDNN's product may be taken with a weight: no gradients, a CPU, float32 or native bfloat16."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu") or not has_onednn():
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _has_bfloat16())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """Return ``activation(x @ weight.T + bias)`` for (R, D) rows; nothing is kept for the next call."""
    if not len(x) or not is_quick(weight) or x.dtype != weight.dtype:
        out = F.linear(x, weight, bias)
        return F.relu_(out) if activation == "relu" else out
    if weight.numel() <= CHUNK:
        return _onednn(x, weight, bias, activation)
    rows = max(1, CHUNK // weight.shape[1])
    out = x.new_empty(len(x), len(weight))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        out[:, part] = _onednn(x, weight[part], None if bias is None else bias[part], activation)
    return out


class PackedProduct:
    """A fixed linear map with its weights in oneDNN's order; they must not change afterwards.

    Takes the memory of the weights once more where :func:`is_quick` holds; elsewhere it is :func:`product`.

    Args:
        weight: (F, D).
        bias: (F,) or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._width, self._bias = len(weight), bias
        self._packed = is_quick(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None) if self._packed else weight

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """Map (R, D) to (R, F)."""
        if not self._packed:
            return product(x, self._weight, self._bias, activation)
        return _onednn(x, self._weight, self._bias, activation) if len(x) else x.new_empty(0, self._width)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return out


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

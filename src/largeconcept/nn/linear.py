"""A linear layer that is quick for two or three vectors on a CPU, the usual number in guided generation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias`` for (…, D), the same up to rounding as torch's own.

    For two or three float32 rows on a CPU the product is taken as ``weight @ x.T``: the math library then reads the
    weights at the speed of memory, up to three times faster than in the usual order, where it first rearranges them.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    if (
        rows not in (2, 3)
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    columns = x.reshape(rows, -1).contiguous().t()  # the memory order of both sides decides which kernel runs
    y = torch.mm(weight, columns) if bias is None else torch.addmm(bias.unsqueeze(1), weight, columns)
    return y.t().contiguous().view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """``nn.Linear`` through :func:`few_rows_linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, D) to (…, F)."""
        return few_rows_linear(input, self.weight, self.bias)

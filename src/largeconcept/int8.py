"""Weight-only int8 storage: every row of a matrix as int8 with one float32 scale. Dequantised at load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SCALE = "::scale"


def quantize_rows(tensors: Mapping[str, Tensor], *, max_error: float | None = None) -> dict[str, Tensor]:
    """Store matrices as int8 rows, vectors and scalars as float32.

    A row r becomes round(r / s) with s = max|r| / 127, so no entry moves by more than s / 2.

    Args:
        tensors: name -> weights.
        max_error: matrices that rounding would move by more than this share of their norm are stored as float16
            instead: a row with one large entry leaves few steps to the others. Rows of normal numbers move by 1 %.
    """
    import torch

    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().float()
        if value.ndim < 2:
            stored[name] = value
            continue
        rows = value.flatten(1)
        scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127.0
        whole = (rows / scale[:, None]).round()
        if max_error is not None and (whole * scale[:, None] - rows).norm() > max_error * rows.norm():
            stored[name] = value.half()
            continue
        stored[name] = whole.to(torch.int8).view(value.shape)
        stored[name + SCALE] = scale
    return stored


def dequantize_rows(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`quantize_rows`; tensors that were stored as they are pass through."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype == torch.int8 and name + SCALE in stored:
            scale = stored[name + SCALE].view(-1, *([1] * (tensor.ndim - 1)))
            tensors[name] = tensor.float() * scale
        else:
            tensors[name] = tensor
    return tensors

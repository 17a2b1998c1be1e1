"""A linear layer that takes the quickest of torch's own products in float32 on a CPU.

In training that is oneDNN's product, often quicker than the default one (``benchmarks/linear.py`` measures it).

Generation works on a handful of vectors. A product with few rows costs what reading its weights costs. The math
library's usual path first rearranges the weights and so reads them at a fraction of the memory's speed. Two other paths
do not:

* one or two rows: ``weight @ x.T``, of one row twice: with two columns a kernel runs that reads weights at nearly the
  speed of memory;
* three to 32 rows: weights kept in the library's own blocked order, made at the first such call and kept beside the
  weights until they change. They take the memory of the weights once more; layers above :data:`PACK_LIMIT` elements go
  without.

All paths give the same result up to rounding; under autocast or ``torch.compile``, on other devices and in other types
torch decides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACK_ROWS = 32
PACK_LIMIT = 1 << 23


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias`` for (…, D), quick for one or two rows; nothing is kept for the next call."""
    rows = x.numel() // max(x.shape[-1], 1)
    if not 1 <= rows <= 2 or not _is_plain(x, weight):
        return F.linear(x, weight, bias)
    return _by_columns(x, weight, bias, rows)


class PackedLinear:
    """A fixed linear map that is quick for one to :data:`PACK_ROWS` rows; weights must not change afterwards.

    Args:
        weight: (F, D).
        bias: (F,) or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._may_pack = self._plain and weight.numel() <= PACK_LIMIT and has_onednn()
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, F)."""
        rows = x.numel() // x.shape[-1]
        if rows > PACK_ROWS or not self._plain or not _may_choose(x):
            return F.linear(x, self.weight, self.bias)
        if 1 <= rows <= 2:
            return _by_columns(x, self.weight, self.bias, rows)
        if not self._may_pack or not rows:
            return F.linear(x, self.weight, self.bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), PACK_ROWS)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out


class Linear(nn.Linear):
    """``nn.Linear`` that keeps a :class:`PackedLinear` of its present weights."""

    _fast: tuple[tuple[int, int, int], PackedLinear] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, D) to (…, F)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            if not _is_plain(input, self.weight, grad=True) or not has_onednn():
                return F.linear(input, self.weight, self.bias)
            out: Tensor = _OneDnnLinear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return out
        if self.weight.is_inference():  # these do not say when they change
            return few_rows_linear(input, self.weight, self.bias)
        return self.packed()(input)

    def packed(self) -> PackedLinear:
        """Return the layer as it is now, for calls that follow each other closely."""
        weight, bias = self.weight, self.bias
        key = weight.data_ptr(), weight._version, id(bias)
        if self._fast is None or self._fast[0] != key:
            self._fast = key, PackedLinear(weight, bias)
        return self._fast[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rearranged weights out of copies."""
        state = dict(self.__dict__)
        state.pop("_fast", None)
        return state


class _OneDnnLinear(torch.autograd.Function):
    """``F.linear`` with oneDNN's product in the forward pass and for the gradient of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (…, D) to (…, F)."""
        ctx.save_for_backward(x, weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias."""
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.mkldnn._linear_pointwise(rows, weight.t(), None, "none", [], "").view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = rows.t() @ x.reshape(-1, x.shape[-1])
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias


def has_onednn() -> bool:
    """Tell whether torch was built with oneDNN and it is switched on (``torch.backends.mkldnn.enabled``)."""
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _is_plain(x: Tensor, weight: Tensor, grad: bool = False) -> bool:
    return x.device.type == "cpu" and weight.dtype == torch.float32 and _may_choose(x, grad)


def _may_choose(x: Tensor, grad: bool = False) -> bool:
    """Tell whether a product of float32 weights on a CPU may be taken in another way than torch's."""
    return (
        x.dtype == torch.float32
        and torch.is_grad_enabled() == grad
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _by_columns(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    # The memory order of both sides decides which kernel runs: this one takes two columns that lie in rows.
    flat = x.reshape(rows, x.shape[-1]).contiguous()
    if rows == 1:
        flat = torch.cat((flat, flat))
    y = torch.mm(weight, flat.t()).t()
    if rows == 1:
        y = y[:1]
    out = torch.empty(*x.shape[:-1], weight.shape[0])
    flat_out = out.view(rows, -1)
    if bias is None:
        flat_out.copy_(y)
    else:
        torch.add(y, bias, out=flat_out)
    return out

"""How well a decoder's states predict the tokens of given sentences, without ever holding all the scores.

Shape letters: R rows (tokens of all sentences), D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _TokenCrossEntropy(torch.autograd.Function):
    """Cross-entropy of each row in chunks; the gradient for the states is made on the way, that of the table later.

    A decoder that only passes gradients on (its table is frozen) then costs two products with the table instead of
    three, and (chunk, V) scores instead of (R, V).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, learning: bool) -> Any:
        """Return (R,) float32 nats and (R,) bool, whether the target has the highest score."""
        nats = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        keep = learning and ctx.needs_input_grad[0]
        grad_hidden = torch.empty_like(hidden) if keep else None
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            gradient, nats[rows], correct[rows] = _scored(hidden[rows], weight, targets[rows])
            if grad_hidden is not None:
                grad_hidden[rows] = torch.mm(gradient, weight)
        ctx.chunk = chunk
        if keep or ctx.needs_input_grad[1]:
            ctx.save_for_backward(hidden, weight, targets, grad_hidden)
        ctx.mark_non_differentiable(correct)
        return nats, correct

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Scale what was stored by the weight of each row; make the gradient of the table if it learns."""
        hidden, weight, targets, grad_hidden = ctx.saved_tensors
        scale = grads[0][:, None]
        into_hidden = None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype)
        if not ctx.needs_input_grad[1]:
            return into_hidden, None, None, None, None
        into_weight = torch.zeros_like(weight)
        for start in range(0, len(hidden), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            gradient, _, _ = _scored(hidden[rows], weight, targets[rows])
            into_weight += torch.mm((gradient * scale[rows].to(gradient.dtype)).t(), hidden[rows])
        return into_hidden, into_weight, None, None, None


def _scored(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient with respect to the scores (n, V), nats (n,), and whether the target comes first (n,)."""
    scores = torch.mm(hidden, weight.t()).float()
    index = targets[:, None]
    picked = scores.gather(1, index)
    correct = picked.squeeze(1) >= scores.amax(dim=1)
    log_probability = scores.log_softmax(dim=1)
    nats = -log_probability.gather(1, index).squeeze(1)
    gradient = log_probability.exp_()
    gradient.scatter_add_(1, index, torch.full_like(picked, -1.0))
    return gradient.to(hidden.dtype), nats, correct


def token_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Score the target of each row: what a softmax over ``hidden @ weight.T`` loses on it.

    Products run in the autocast dtype when one is active, the softmax in float32.

    Args:
        hidden: (R, D) decoder states.
        weight: (V, D) output table.
        targets: (R,) int64.
        chunk: rows scored at once.

    Returns:
        (R,) float32 nats, differentiable in ``hidden`` and ``weight``, and (R,) bool: the target has the highest score.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        function: Any = _TokenCrossEntropy
        nats, correct = function.apply(hidden.to(dtype), weight.to(dtype), targets, chunk, torch.is_grad_enabled())
    return nats, correct

"""An exponential moving average of the weights, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class EMA:
    """Keeps ``average ← d · average + (1 - d) · weight`` of every trainable parameter.

    Args:
        model: the model whose weights are averaged; its present weights are the start.
        decay: the limit of d.
        warmup: use ``d = min(decay, (1 + t) / (10 + t))`` at update t, so that a short run is not dominated by its
            random start.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._averages = [p.detach().float().clone() for p in self._weights]

    def decay_at(self, update: int) -> float:
        """Return d at an update counted from 0."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights in."""
        weights = [w.detach().float() for w in self._weights]
        torch._foreach_lerp_(self._averages, weights, 1.0 - self.decay_at(self.updates))
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name (the tensors themselves, not copies)."""
        return dict(zip(self._names, self._averages, strict=True))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights inside the context, and its own back after it."""
        kept = [w.detach().clone() for w in self._weights]
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)

"""What a model has read, kept: predictions with other options of generation need not read the same documents again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from largeconcept.errors import ConfigError


class ContextStore:
    """Contexts of one model for batches of documents, until their room is used up; the others are read each time.

    Args:
        model: whose contexts these are; its weights must not change meanwhile.
        max_bytes: room for contexts on the model's device.
    """

    def __init__(self, model: nn.Module, max_bytes: int = 1 << 30) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_read = 0
        """How often documents were read."""
        self.seconds = 0.0
        """Time that reading took."""
        self._kept: dict[Hashable, tuple[Tensor, Any]] = {}

    def get(self, model: nn.Module, x: Tensor, sample_ids: Sequence[int], read: Callable[[], Any]) -> Any:
        """Return the context of (B, S, C) documents: the one that is kept, or what ``read`` returns.

        Raises:
            ConfigError: another model than the store's.
        """
        if model is not self.model:
            raise ConfigError("contexts of another model", where="contexts", got=type(model).__name__)
        key = (tuple(sample_ids), tuple(x.shape))
        kept = self._kept.get(key)
        if kept is not None and torch.equal(kept[0], x):
            return kept[1]
        began = time.perf_counter()
        context = read()
        self.seconds += time.perf_counter() - began
        self.num_read += 1
        size = tensor_bytes(context) + tensor_bytes(x)
        if kept is None and self.num_bytes + size <= self.max_bytes:
            self._kept[key] = (x, context)
            self.num_bytes += size
        return context


def tensor_bytes(value: Any) -> int:
    """Return the size of all tensors in plain data, dataclasses and the caches of models."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if dataclasses.is_dataclass(value):
        return sum(tensor_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(one) for one in value)
    return sum(tensor_bytes(one) for one in vars(value).values()) if hasattr(value, "__dict__") else 0


__all__ = ["ContextStore", "tensor_bytes"]

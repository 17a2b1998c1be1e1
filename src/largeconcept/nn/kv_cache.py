"""Keys and values of what was read so far, in memory that is allocated once.

Every row of a batch has its own length, so prompts of different lengths live side by side: a new concept is written
at the row's own end, and the mask hides what lies beyond it. Lengths are kept on the host; using the cache never waits
for a device.

Shape letters: B batch, H heads, K head dimension, V value dimension, L capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class KVCache:
    """Keys (B, H, L, K) and values (B, H, L, V) of each layer.

    Args:
        num_layers: number of attention layers that share the lengths.
        batch: B.
        num_heads: H.
        head_dim: K.
        capacity: L, room for this many entries a row; grows by doubling when more are appended.
        like: a tensor whose device and type the cache takes.
        value_dim: V; ``None`` for K.
    """

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_heads: int,
        head_dim: int,
        capacity: int,
        like: Tensor,
        value_dim: int | None = None,
    ) -> None:
        shape = (batch, num_heads, max(capacity, 1))
        # Zeros, not garbage: hidden entries are multiplied by a weight of zero, and 0 * NaN is NaN.
        self.keys, self.values = (
            [torch.zeros(*shape, dim, device=like.device, dtype=like.dtype) for _ in range(num_layers)]
            for dim in (head_dim, head_dim if value_dim is None else value_dim)
        )
        self.lengths: list[int] = [0] * batch
        self._refresh()

    @property
    def capacity(self) -> int:
        """L, how many entries fit before memory grows."""
        return self.keys[0].shape[2]

    @property
    def size(self) -> int:
        """The longest row."""
        return max(self.lengths, default=0)

    def fill(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write (B, H, S, K) and (B, H, S, V) to the front of every row; after the last layer, :meth:`set_lengths`."""
        self._reserve(keys.shape[2])
        self.keys[layer][:, :, : keys.shape[2]] = keys
        self.values[layer][:, :, : keys.shape[2]] = values

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Declare how many entries of each row are real."""
        self.lengths = list(lengths)
        self._refresh()

    def begin(self) -> None:
        """Add one place to every row; then :meth:`append` in each layer."""
        if self.size == self.capacity:
            self._reserve(2 * self.capacity)
        self.set_lengths([n + 1 for n in self.lengths])

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write (B, H, K) and (B, H, V) to the last place of every row."""
        if self._last is None:
            self.keys[layer][:, :, self.size - 1] = keys
            self.values[layer][:, :, self.size - 1] = values
        else:
            rows, places = self._last
            self.keys[layer][rows, :, places] = keys
            self.values[layer][rows, :, places] = values

    def view(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return keys (B, H, size, K) and values (B, H, size, V); use together with :attr:`mask`."""
        return self.keys[layer][:, :, : self.size], self.values[layer][:, :, : self.size]

    @property
    def mask(self) -> Tensor | None:
        """(B, 1, 1, size) boolean, ``True`` where visible; ``None`` when all rows are equally long."""
        return self._mask

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.keys[0].device)
        self.keys = [k.index_select(0, index) for k in self.keys]
        self.values = [v.index_select(0, index) for v in self.values]
        self.set_lengths([self.lengths[i] for i in rows])

    def join(self, other: KVCache) -> None:
        """Take the rows of another cache after one's own."""
        room = max(self.capacity, other.capacity)
        self._reserve(room)
        other._reserve(room)
        self.keys = [torch.cat(pair) for pair in zip(self.keys, other.keys, strict=True)]
        self.values = [torch.cat(pair) for pair in zip(self.values, other.values, strict=True)]
        self.set_lengths(self.lengths + other.lengths)

    def _reserve(self, size: int) -> None:
        if size <= self.capacity:
            return
        extra = size - self.capacity
        self.keys = [torch.nn.functional.pad(k, (0, 0, 0, extra)) for k in self.keys]
        self.values = [torch.nn.functional.pad(v, (0, 0, 0, extra)) for v in self.values]

    def _refresh(self) -> None:
        """Rebuild what depends on the lengths: once a concept, not once a layer."""
        self._mask: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None
        if len(set(self.lengths)) > 1:
            device = self.keys[0].device
            lengths = torch.tensor(self.lengths, device=device)
            self._mask = (torch.arange(self.size, device=device) < lengths.unsqueeze(1)).view(-1, 1, 1, self.size)
            self._last = (torch.arange(len(self.lengths), device=device), lengths - 1)


@dataclass(slots=True)
class StateCache:
    """What a model with one causal stack remembers of B texts: what it read, and what comes out of the last place.

    Attributes:
        context: keys and values of what was read.
        state: (B, …), made from the last entry read; each family says what it is (a prediction, a hidden state).
        copied: keys and concepts of what was read, of a model that copies.
    """

    context: KVCache
    state: Tensor
    copied: KVCache | None = None

    @property
    def lengths(self) -> list[int]:
        """Number of entries read, of each row."""
        return self.context.lengths

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; a row may be kept more than once."""
        self.context.select(rows)
        self.state = self.state[list(rows)]
        if self.copied is not None:
            self.copied.select(rows)

    def join(self, other: StateCache) -> None:
        """Take the rows of another cache after one's own."""
        self.context.join(other.context)
        if self.copied is not None and other.copied is not None:
            self.copied.join(other.copied)
        self.state = torch.cat((self.state, other.state))

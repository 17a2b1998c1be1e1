"""Attention that copies: concepts that were read go into the prediction as they are, not through the layers.

What a text says next, or in short, is often partly what it has said: a summary takes over words of the first
sentence. A transformer of width D < C cannot even pass a concept on, since its input is squeezed into D channels. Here
a prediction adds to what the layers say a weighted mean of the concepts read, as pointer networks do for words (See,
Liu & Manning 2017, "Get To The Point", https://aclanthology.org/P17-1099, where the mixture is of distributions):

    copied_i = Σ_p g_p(h_i) · w_p ⊙ Σ_{j ≤ i} a_p(h_i, h_j) x_j

with P heads, softmax weights a, gates g in (0, 1) and channel weights w.

Shape letters: B batch, S concepts, C concept dimension, D width, P heads, K head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear

HEAD_DIM = 64


class CopyAttention(nn.Module):
    """Weighted means of the concepts read, P of them, weighted and added up.

    Args:
        concept_dim: C.
        model_dim: D, of the hidden states.
        num_heads: P.
    """

    def __init__(self, concept_dim: int, model_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_proj = Linear(model_dim, num_heads * HEAD_DIM)
        self.key_proj = Linear(model_dim, num_heads * HEAD_DIM)
        self.gate_proj = Linear(model_dim, num_heads)
        self.weight = nn.Parameter(torch.full((num_heads, concept_dim), 1.0 / num_heads))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Return (B, S, C) float32 from hidden states (B, S, D) and the concepts read (B, S, C)."""
        size = x.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
        return self._mix(hidden, self.key_proj(hidden), x, mask)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for ``batch`` rows of up to ``capacity`` concepts."""
        like = self.key_proj.weight
        dims = (1, self.num_heads * HEAD_DIM)
        return KVCache(1, batch, *dims, capacity, like, value_dim=self.weight.shape[1])

    def prefill(self, hidden: Tensor, last: Tensor, x: Tensor, lengths: Sequence[int], cache: KVCache) -> Tensor:
        """Read right-padded prompts into ``cache``; return (B, C) for the hidden states (B, D) at their ends."""
        cache.fill(0, self.key_proj(hidden).unsqueeze(1), x.unsqueeze(1))
        cache.set_lengths(lengths)
        return self._of_cache(last, cache)

    def step(self, hidden: Tensor, x: Tensor, cache: KVCache) -> Tensor:
        """Read one more concept (B, C) with its hidden state (B, D); return (B, C)."""
        cache.begin()
        cache.append(0, self.key_proj(hidden).unsqueeze(1), x.unsqueeze(1).to(self.key_proj.weight.dtype))
        return self._of_cache(hidden, cache)

    def _of_cache(self, hidden: Tensor, cache: KVCache) -> Tensor:
        keys, values = cache.view(0)
        mask = None if cache.mask is None else cache.mask.squeeze(1)
        return self._mix(hidden.unsqueeze(1), keys.squeeze(1), values.squeeze(1), mask).squeeze(1)

    def _mix(self, hidden: Tensor, keys: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, C) from (B, T, D), (B, S, P K) and (B, S, C); ``mask`` broadcasts to (B, T, S)."""
        queries_BPTK, keys_BPSK = (
            part.unflatten(-1, (self.num_heads, HEAD_DIM)).transpose(1, 2) for part in (self.query_proj(hidden), keys)
        )
        scores = torch.matmul(queries_BPTK, keys_BPSK.transpose(-1, -2)).float() / math.sqrt(HEAD_DIM)
        if mask is not None:
            scores = scores.masked_fill(~mask.view(-1, 1, *mask.shape[-2:]), -torch.inf)
        shares = scores.softmax(dim=-1) * torch.sigmoid(self.gate_proj(hidden).float()).transpose(1, 2).unsqueeze(-1)
        with torch.autocast(x.device.type, enabled=False):
            means_BPTC = torch.matmul(shares, x.float().unsqueeze(1))
            out: Tensor = (means_BPTC * self.weight.float().unsqueeze(1)).sum(dim=1)
        return out

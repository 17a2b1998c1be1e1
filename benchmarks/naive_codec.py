"""The codec as one would first write it: separate projections, fused attention with masks, whole-vocabulary scores.

It has the size of ``AutoencoderNetwork`` of the same settings and the same task, and serves as the baseline of
``benchmarks/codec_training.py``; nothing else uses it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.codec.network import AutoencoderConfig


class NaiveAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        out = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(context)), split(self.v(context)), mask)
        return self.o(out.transpose(1, 2).flatten(2))


class NaiveLayer(nn.Module):
    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = NaiveAttention(width, heads)
        self.cross = NaiveAttention(width, heads) if cross else None
        self.norm3 = nn.LayerNorm(width) if cross else None
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, mask)
        if self.cross is not None and self.norm3 is not None and memory is not None:
            x = x + self.cross(self.norm3(x), memory, None)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class NaiveCodec(nn.Module):
    """Encoder, mean pooling, one vector, memory tokens, decoder with cross-attention, scores over every piece."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_tokens + 1, width)
        self.language = nn.Embedding(len(config.languages), width)
        self.encoder = nn.ModuleList(NaiveLayer(width, config.num_heads, False) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(NaiveLayer(width, config.num_heads, True) for _ in range(config.decoder_layers))
        self.to_concept = nn.Linear(width, config.dim)
        self.to_memory = nn.Linear(config.dim, config.memory_tokens * width)
        self.norm = nn.LayerNorm(width)

    def loss(self, tokens: Tensor, lengths: Tensor, lang: Tensor, noise: float) -> Tensor:
        rows, steps = tokens.shape
        places = torch.arange(steps + 1)
        real = places[:steps] < lengths[:, None]
        x = self.embedding(tokens) + self.positions(places[:steps])
        mask = real[:, None, None, :].expand(rows, 1, steps, steps)
        for layer in self.encoder:
            x = layer(x, mask)
        pooled = (x * real[..., None]).sum(1) / lengths[:, None]
        concept = F.layer_norm(self.to_concept(pooled), (self.config.dim,))
        concept = concept + noise * torch.randn_like(concept)
        memory = self.to_memory(concept).unflatten(-1, (self.config.memory_tokens, -1))
        y = torch.cat([self.language(lang)[:, None], self.embedding(tokens)], 1) + self.positions(places)
        causal = torch.ones(steps + 1, steps + 1, dtype=torch.bool).tril().expand(rows, 1, -1, -1)
        for layer in self.decoder:
            y = layer(y, causal, memory)
        scores = F.linear(self.norm(y), self.embedding.weight)
        targets = F.pad(tokens, (0, 1))
        targets = torch.where(places == lengths[:, None], 2, targets)
        targets = torch.where(places > lengths[:, None], -100, targets)
        return F.cross_entropy(scores.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)

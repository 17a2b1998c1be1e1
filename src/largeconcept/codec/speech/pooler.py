"""Attention pooling: a small decoder that asks one question about an utterance and returns the answer as a concept.

A post-LN Transformer decoder over a single token (SONAR, Duquenne et al. 2023, arXiv:2308.11466, §4.2). Self-attention
over one position is ``out(v(x))`` whatever its queries and keys are, so these are not part of the module.

Shape letters: N utterances, T frames, D width, H heads, K head dimension, C concept dimension.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from largeconcept.nn.positions import sine_positions


class SingleSelfAttention(nn.Module):
    """Self-attention over one position: two projections in a row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D)."""
        return cast(Tensor, self.out_proj(self.v_proj(x)))


class FrameAttention(nn.Module):
    """One query of each utterance over its frames."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: Tensor, seen: Tensor | None) -> Tensor:
        """Return (N, D) from ``x`` (N, D), ``frames`` (N, T, D) and ``seen`` (N, 1, 1, T), true where a frame is."""
        query, key, value = (
            part.view(*part.shape[:2], self.num_heads, -1).transpose(1, 2)
            for part in (self.q_proj(x).unsqueeze(1), self.k_proj(frames), self.v_proj(frames))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return cast(Tensor, self.out_proj(mixed.flatten(1)))


class PoolerLayer(nn.Module):
    """Self-attention, attention to the frames and a ReLU network, a LayerNorm after each sum."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = SingleSelfAttention(dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_attn = FrameAttention(dim, num_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, frames: Tensor, seen: Tensor | None) -> Tensor:
        """Return (N, D); arguments as :meth:`FrameAttention.forward`."""
        x = self.self_attn_layer_norm(x + self.self_attn(x))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x, frames, seen))
        return cast(Tensor, self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x)))))


class AttentionPooler(nn.Module):
    """Frames (N, T, D) to concepts (N, C).

    The question is one learned vector times sqrt(D) plus the sinusoid of position 0: zeros, then ones. (Text in SONAR
    starts at position 2; here there is no such offset.)
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, ffn_dim: int, concept_dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))
        self.layers = nn.ModuleList(PoolerLayer(dim, num_heads, ffn_dim) for _ in range(num_layers))
        self.projection = nn.Linear(dim, concept_dim, bias=False)

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return (N, C); ``padding`` (N, T) is true where there is no frame."""
        dim = len(self.token)
        question = self.token.float() * dim**0.5 + sine_positions(torch.zeros((), device=self.token.device), dim)
        x = question.to(frames.dtype).expand(len(frames), -1)
        seen = None if padding is None else ~padding[:, None, None, :]
        for layer in self.layers:
            x = layer(x, frames, seen)
        return cast(Tensor, self.projection(x))


__all__ = ["AttentionPooler", "PoolerLayer"]

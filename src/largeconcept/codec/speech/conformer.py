"""The conformer of w2v-BERT 2.0 as Seamless first trained it: relative attention, convolution to both sides.

A block (Gulati et al. 2020, arXiv:2005.08100) is half a feed-forward network, self-attention, a convolution module and
the other half; attention knows distances as in Transformer-XL (Dai et al. 2019, arXiv:1901.02860, §3.3 and appendix B).
The depthwise convolution is followed by BatchNorm, whose statistics never change here, and pads both ends alike. The
later release "w2v-bert-2.0" (causal convolution, LayerNorm, clipped distances) is another network.

Shape letters: N utterances, T frames, D width, H heads, K head dimension, Q queries at once.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUERY_BLOCK = 128
"""Queries whose scores of distance are held at once."""


def distance_table(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Return sinusoids (2 ``length`` - 1, D) float32 of the distances ``length`` - 1 down to -(``length`` - 1).

    Row r is the distance query - key = ``length`` - 1 - r. Sines are in the even columns, cosines in the odd ones, with
    frequencies 10 000 ** (-2i / D).
    """
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-math.log(10_000.0) / dim))
    distances = torch.arange(length - 1, -length, -1, dtype=torch.float32, device=device)
    angles = distances.unsqueeze(1) * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def by_key(scores: Tensor, keys: int) -> Tensor:
    """Return scores (…, Q, ``keys``) of each key from scores (…, Q, ``keys`` + Q - 1) of each distance, without a copy.

    Column c of the input is the distance (Q - 1) - c from the last query's first key, so that query q finds key k in
    column Q - 1 - q + k: reading the rows as one line, each next row begins one column earlier.
    """
    queries = scores.shape[-2]
    if queries == 1:
        return scores
    line = scores.flatten(-2)[..., queries - 1 : -1]
    return line.view(*scores.shape[:-1], keys + queries - 2)[..., :keys]


class RelativeSelfAttention(nn.Module):
    """Self-attention whose scores are (q + u)·k + (q + v)·r, r the projected sinusoid of the distance.

    Scores of distance are formed for :data:`QUERY_BLOCK` queries at a time, over the distances these queries meet: half
    the products of all T queries with all 2T - 1 distances, and memory that grows with T instead of T².
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(num_heads, dim // num_heads))

    def forward(self, x: Tensor, table: Tensor, padding: Tensor | None) -> Tensor:
        """Return (N, T, D).

        Args:
            x: (N, T, D).
            table: :func:`distance_table` of T, in the type of ``x``.
            padding: (N, T), true where there is no frame, or ``None``.
        """
        length = x.shape[1]
        query, key, value = (self._heads(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        # (H, K, 2T - 1): products with it need no copy for each row of the batch.
        distances = self.linear_pos(table).view(len(table), self.num_heads, -1).permute(1, 2, 0)
        by_content = query + self.pos_bias_u.unsqueeze(1)
        by_distance = (query + self.pos_bias_v.unsqueeze(1)) * query.shape[-1] ** -0.5
        hidden = None if padding is None else padding[:, None, None, :]
        mixed = []
        for start in range(0, length, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, length)
            met = distances[..., length - stop : 2 * length - 1 - start]
            scores = by_key(by_distance[:, :, start:stop] @ met, length)
            scores = scores.contiguous() if hidden is None else scores.masked_fill(hidden, float("-inf"))
            mixed.append(F.scaled_dot_product_attention(by_content[:, :, start:stop], key, value, attn_mask=scores))
        return cast(Tensor, self.linear_out(torch.cat(mixed, dim=2).transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, H, T, K)."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(dim, inner_dim)
        self.output_dense = nn.Linear(inner_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D)."""
        return cast(Tensor, self.output_dense(F.silu(self.intermediate_dense(x))))


class ChannelNorm(nn.Module):
    """BatchNorm with statistics that are given and stay: a factor and a shift of each channel."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D); factor and shift are computed in float32."""
        factor = self.weight.float() * (self.running_var.float() + self.eps).rsqrt()
        shift = self.bias.float() - self.running_mean.float() * factor
        return torch.addcmul(shift.to(x.dtype), x, factor.to(x.dtype))


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise convolution and gate, depthwise convolution, BatchNorm, SiLU, pointwise convolution."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(dim)
        # Convolutions over one frame are kept in the shape of convolutions, as they are published.
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=False)
        self.batch_norm = ChannelNorm(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Return (N, T, D); frames of ``padding`` (N, T) are zeros for their neighbours, as beyond the ends."""
        x = self.layer_norm(x)
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        x = F.glu(F.linear(x, self.pointwise_conv1.weight.squeeze(-1)), dim=-1)
        x = self.depthwise_conv(x.transpose(1, 2)).transpose(1, 2)
        return F.linear(F.silu(self.batch_norm(x)), self.pointwise_conv2.weight.squeeze(-1))


class ConformerBlock(nn.Module):
    """Half a feed-forward network, self-attention, convolution, half a feed-forward network, LayerNorm."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(dim)
        self.ffn1 = FeedForward(dim, ffn_dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = RelativeSelfAttention(dim, num_heads)
        self.conv_module = ConvolutionModule(dim, kernel_size)
        self.ffn2_layer_norm = nn.LayerNorm(dim)
        self.ffn2 = FeedForward(dim, ffn_dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, table: Tensor, padding: Tensor | None) -> Tensor:
        """Return (N, T, D); arguments as :meth:`RelativeSelfAttention.forward`."""
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), table, padding)
        x = x + self.conv_module(x, padding)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return cast(Tensor, self.final_layer_norm(x))


class Conformer(nn.Module):
    """Blocks of one width and a last LayerNorm."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, ffn_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConformerBlock(dim, num_heads, ffn_dim, kernel_size) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return (N, T, D); what stands at frames of ``padding`` (N, T) means nothing and reaches no other frame."""
        table = distance_table(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, table, padding)
        return cast(Tensor, self.layer_norm(x))


__all__ = ["QUERY_BLOCK", "Conformer", "ConformerBlock", "RelativeSelfAttention", "by_key", "distance_table"]

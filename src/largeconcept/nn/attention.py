"""Attention in three forms: causal over the past, from denoised rows to a context, and over one position only.

Shape letters: B batch, S concepts, T rows, L keys, D width, H heads, K head dimension. Projections of queries, keys
and values always have a bias; that of the output has one if asked for. Xavier initialisation, with gain 2 ** -0.5
for the inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear
from largeconcept.nn.rope import apply_rope

Rope = tuple[Tensor, Tensor]
INPUT_GAIN = 2**-0.5


def init_projection(linear: nn.Linear, parts: int = 1, gain: float = INPUT_GAIN) -> None:
    """Xavier-initialise ``parts`` projections stacked in one linear, each as if it stood alone; zero the bias."""
    for piece in linear.weight.chunk(parts):
        nn.init.xavier_uniform_(piece, gain)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class SelfAttention(nn.Module):
    """Causal multi-head attention, scale 1/sqrt(K); queries, keys and values come from one product.

    Args:
        dim: D.
        num_heads: H.
        output_bias: whether the output projection has a bias.
        dropout: on attention weights.
        head_dim: K; D/H unless told.
    """

    def __init__(
        self, dim: int, num_heads: int, *, output_bias: bool = True, dropout: float = 0.0, head_dim: int | None = None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        inner = dim if head_dim is None else num_heads * head_dim
        self.qkv_proj = Linear(dim, 3 * inner)
        self.output_proj = Linear(inner, dim, bias=output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init_projection(self.qkv_proj, parts=3)
        init_projection(self.output_proj, gain=1.0)

    def forward(self, x: Tensor, rope: Rope | None = None, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """Map (B, S, D) to (B, S, D), each position looking at itself and to its left.

        ``rope`` holds cosines and sines (S, 1, K/2). With a ``cache`` the keys and values are also written to its
        front.
        """
        q, k, v = self.heads(x, rope)
        if cache is not None:
            cache.fill(layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        out: Tensor = self.output_proj(y.transpose(1, 2).flatten(2))
        return out

    def step(self, x: Tensor, cache: KVCache, layer: int, rope: Rope | None = None) -> Tensor:
        """Map (B, 1, D), the newest concept of each row, to (B, 1, D) after appending it to ``cache``.

        ``rope`` holds cosines and sines (B, 1, 1, K/2): each row is at its own position.
        """
        q, k, v = self.heads(x, rope)
        cache.append(layer, k.squeeze(2), v.squeeze(2))
        keys, values = cache.view(layer)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=cache.mask)
        out: Tensor = self.output_proj(y.transpose(1, 2).flatten(2))
        return out

    def branch(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rope: Rope | None = None) -> Tensor:
        """Map (B, T, D), several entries after those of ``keys`` and ``values`` (B, H, L, K), to (B, T, D).

        ``mask`` is (B, 1, T, L + T) boolean, ``True`` is visible; nothing is kept.
        """
        q, k, v = self.heads(x, rope)
        y = F.scaled_dot_product_attention(q, torch.cat((keys, k), 2), torch.cat((values, v), 2), attn_mask=mask)
        out: Tensor = self.output_proj(y.transpose(1, 2).flatten(2))
        return out

    def heads(self, x: Tensor, rope: Rope | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, S, K)."""
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        if rope is not None:
            q, k = apply_rope(q, *rope), apply_rope(k, *rope)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class CrossAttention(nn.Module):
    """Attention from T rows to a context; keys and values are projected apart, so that they can be kept."""

    def __init__(self, dim: int, num_heads: int, *, output_bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = Linear(dim, dim)
        self.kv_proj = Linear(dim, 2 * dim)
        self.output_proj = Linear(dim, dim, bias=output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init_projection(self.q_proj)
        init_projection(self.kv_proj, parts=2)
        init_projection(self.output_proj, gain=1.0)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project a context (B, S, D) to keys and values (B, H, S, K)."""
        k, v = self.kv_proj(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return k.transpose(1, 2), v.transpose(1, 2)

    def zero_key_value(self) -> tuple[Tensor, Tensor]:
        """Return key and value (H, 1, K) of the zero vector: the biases alone, no product needed."""
        k, v = self.kv_proj.bias.view(2, self.num_heads, 1, -1).unbind(0)
        return k, v

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
        """Attend from (B, T, D) and return (B, T, D) *before* the output projection.

        Args:
            x: rows.
            keys: (B, H, L, K).
            values: (B, H, L, K).
            mask: boolean, ``True`` is visible, broadcastable to (B, H, T, L); ``None`` when all keys are visible.
            is_causal: row i sees keys 0..i; instead of a mask.
        """
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, dropout_p=p, is_causal=is_causal)
        return y.transpose(1, 2).flatten(2)


class PositionwiseAttention(nn.Module):
    """Self-attention that sees its own position only: ``W_o (W_v x + b_v) + b_o``, without queries and keys.

    Note: the softmax over one key is 1, so the reference implementation's query and key weights never matter; they are
    left out (2 (D² + D) parameters a layer).
    """

    def __init__(self, dim: int, *, output_bias: bool = True) -> None:
        super().__init__()
        self.v_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim, bias=output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init_projection(self.v_proj)
        init_projection(self.output_proj, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        out: Tensor = self.output_proj(self.v_proj(x))
        return out

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the two linears as one: weight (D, D) and bias (D,)."""
        bias = self.output_proj.weight @ self.v_proj.bias
        return self.output_proj.weight @ self.v_proj.weight, (
            bias if self.output_proj.bias is None else bias + self.output_proj.bias
        )

"""SONAR's networks without gradients on a CPU: the same numbers up to rounding, in a third of the time and less.

* Sentences go through the encoder one behind the other, without padding: products take the rows of all tokens, and
  attention takes sentences of equal length together.
* Products are oneDNN's (:mod:`largeconcept.nn.products`), in pieces that stay in the cache, the ReLU inside of them.
* The decoder's weights are kept rearranged for products with few rows, with queries, keys and values in one; that
  takes the memory of its layers once more.
* A step's attention reads the filled part of the cache only, in bfloat16 as a product of matrices.

Shape letters: N sentences, T tokens, D width, R rows (tokens of all sentences, or rows of the decoder), H heads, K head
dim, S steps of the cache, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from largeconcept.nn.products import PackedProduct, is_quick, product

if TYPE_CHECKING:
    from largeconcept.codec.sonar.network import (
        DecoderCache,
        DecoderLayer,
        EncoderLayer,
        SonarDecoder,
        SonarEncoder,
    )

CACHED_ROWS = 1024
"""Tokens whose inner states of a feed-forward network (8192 channels) stay in a processor's cache."""
PACK_TABLE_ROWS = 32
"""Up to so many sentences the output matrix is rearranged too: it takes half a second and 0.5 to 1 GB."""


# ---------------------------------------------------------------------- encoder


def encode_rows(encoder: SonarEncoder, tokens_NT: Tensor, lengths_N: Tensor | None, positions_TD: Tensor) -> Tensor:
    """Return what :meth:`SonarEncoder.forward` returns, (N, C) float32, for weights that :func:`is_quick` takes.

    Args:
        positions_TD: float32 sinusoids of the first T tokens.
    """
    sentences, longest = tokens_NT.shape
    if lengths_N is None:
        lengths_N = torch.full((sentences,), longest, device=tokens_NT.device)
    lengths_N, order = lengths_N.sort()
    tokens_NT = tokens_NT[order]
    real = torch.arange(longest) < lengths_N[:, None]
    table = encoder.embed_tokens
    x_RD: Tensor = table(tokens_NT[real]) * math.sqrt(table.embedding_dim)
    x_RD = (x_RD.float() + positions_TD.expand(sentences, -1, -1)[real]).to(x_RD.dtype)
    sizes, counts = torch.unique_consecutive(lengths_N, return_counts=True)
    groups = list(zip(sizes.tolist(), counts.tolist(), strict=True))
    for layer in encoder.layers:
        _encoder_layer(layer, x_RD, groups)  # type: ignore[arg-type]
    norm = encoder.layer_norm
    means = []
    for x_GTD in _split(x_RD, groups):
        states = F.layer_norm(x_GTD.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
        means.append(states.sum(dim=1) / (states.shape[1] + 1e-7))
    out = x_RD.new_empty(sentences, x_RD.shape[1], dtype=torch.float32)
    out.index_copy_(0, order, torch.cat(means))
    return out


def _split(x_RD: Tensor, groups: list[tuple[int, int]]) -> list[Tensor]:
    """Views of the rows of sentences of one length each, (sentences, T, D)."""
    parts = torch.split(x_RD, [size * count for size, count in groups])
    return [part.view(count, size, -1) for part, (size, count) in zip(parts, groups, strict=True)]


def _encoder_layer(layer: EncoderLayer, x_RD: Tensor, groups: list[tuple[int, int]]) -> None:
    """Add both branches of a layer to the rows."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(x_RD)
    q, k, v = (
        _split(product(normed, one.weight, one.bias), groups)
        for one in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    attended_RD = normed  # its room is free again
    for one, *heads in zip(_split(attended_RD, groups), q, k, v, strict=True):
        query, key, value = (part.view(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in heads)
        one.copy_(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
    x_RD += product(attended_RD, attention.out_proj.weight, attention.out_proj.bias)
    for part in torch.split(x_RD, CACHED_ROWS):
        hidden = product(layer.final_layer_norm(part), layer.fc1.weight, layer.fc1.bias, "relu")
        part += product(hidden, layer.fc2.weight, layer.fc2.bias)


# ---------------------------------------------------------------------- decoder


class PackedDecoder:
    """A decoder's layers with rearranged weights; the decoder must not change while this is used.

    Args:
        decoder: weights that :func:`is_quick` takes.
        key: of :func:`weights_key`.
    """

    def __init__(self, decoder: SonarDecoder, key: tuple[tuple[int, int], ...]) -> None:
        self.key = key
        self._layers = [_PackedLayer(block) for block in decoder.blocks]
        self._norm = decoder.layer_norm
        self._table = decoder.embed_tokens.weight
        self._packed_table: PackedProduct | None = None

    def expect(self, rows: int) -> None:
        """Rearrange the output matrix if there are few rows."""
        if rows <= PACK_TABLE_ROWS and self._packed_table is None:
            self._packed_table = PackedProduct(self._table)

    def step(self, x_RD: Tensor, cache: DecoderCache) -> Tensor:
        """Read one more token of each row, given embedded, which is changed; return the (R, D) normed states."""
        for i, layer in enumerate(self._layers):
            layer.step(x_RD, cache.constants[i], cache.keys[i], cache.values[i], cache.position)
        out: Tensor = self._norm(x_RD)
        return out

    def scores(self, hidden_RD: Tensor) -> Tensor:
        """Return (R, V) scores in the weights' type."""
        table = self._packed_table
        return product(hidden_RD, self._table) if table is None else table(hidden_RD)


class _PackedLayer:
    def __init__(self, block: DecoderLayer) -> None:
        attention = block.self_attn
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._num_heads = attention.num_heads
        self._qkv = PackedProduct(torch.cat([one.weight for one in three]), torch.cat([one.bias for one in three]))
        self._out = PackedProduct(attention.out_proj.weight, attention.out_proj.bias)
        self._fc1 = PackedProduct(block.fc1.weight, block.fc1.bias)
        self._fc2 = PackedProduct(block.fc2.weight, block.fc2.bias)
        self._norm, self._final_norm = block.self_attn_layer_norm, block.final_layer_norm

    def step(self, x_RD: Tensor, constant_RD: Tensor, keys: Tensor, values: Tensor, position: int) -> None:
        """Add the layer's three branches to one new token of each row."""
        q, k, v = self._qkv(self._norm(x_RD)).view(len(x_RD), 3, self._num_heads, -1).unbind(1)
        keys[:, :, position] = k
        values[:, :, position] = v
        attended = attend_last(q, keys[:, :, : position + 1], values[:, :, : position + 1])
        x_RD += self._out(attended)
        x_RD += constant_RD
        x_RD += self._fc2(self._fc1(self._final_norm(x_RD), "relu"))


def attend_last(q_RHK: Tensor, keys_RHSK: Tensor, values_RHSK: Tensor) -> Tensor:
    """Attend from one token of each row, (R, H·K)."""
    if q_RHK.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_RHK[:, :, None], keys_RHSK, values_RHSK).flatten(1)
    # torch's attention takes bfloat16 three times as long for a single query.
    keys, values = keys_RHSK.flatten(0, 1), values_RHSK.flatten(0, 1)
    query = q_RHK.reshape(len(keys), -1, 1) * q_RHK.shape[-1] ** -0.5
    weights = torch.bmm(keys, query).softmax(dim=1)
    return torch.bmm(weights.transpose(1, 2), values).view(len(q_RHK), -1)


def weights_key(decoder: SonarDecoder) -> tuple[tuple[int, int], ...] | None:
    """Return a key that changes when a weight does; ``None`` where rearranged weights cannot be used.

    Inference tensors do not say when they change, so they are not rearranged.
    """
    parameters = list(decoder.parameters())
    if not is_quick(decoder.embed_tokens.weight) or any(one.is_inference() for one in parameters):
        return None
    if len({one.dtype for one in parameters}) > 1:
        return None
    return tuple((one.data_ptr(), one._version) for one in parameters)

"""SONAR's text encoder and text decoder.

Shape letters: N sentences, T tokens, R rows of the decoder (sentences, or sentences × beams), D width, C concept dim,
L layers, H heads, K head dim, S steps of the cache, V vocabulary.

Both are pre-norm transformers with ReLU, biases and fixed sinusoidal positions (arXiv 2308.11466, section 3; sizes and
layout from github.com/facebookresearch/SONAR). A concept is the mean of the encoder's states over all tokens, the
language and ``</s>`` included. The decoder's cross-attention sees one vector, the concept: its softmax is over a single
key and so always 1, and what it adds is ``out_proj(v_proj(concept))``, one constant for each layer. Queries, keys and
the norm before them cannot influence the result and are not in the module.

Parameters have the names of Hugging Face's M2M100 classes without prefix; rows of the tables are in the order of
fairseq2 (``<pad> <unk> <s> </s>``, then the pieces). Weights may be float32, bfloat16 or float16: positions are added,
the last norm of the encoder and its mean are taken, and scores are returned, in float32.

Without gradients on a CPU the encoder and the decoder's steps take the ways of :mod:`largeconcept.codec.sonar.quick`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from largeconcept.codec.sonar.config import SonarDecoderConfig, SonarEncoderConfig
from largeconcept.codec.sonar.quick import PackedDecoder, encode_rows, weights_key
from largeconcept.errors import DataError
from largeconcept.nn.positions import sine_positions
from largeconcept.nn.products import is_quick

FIRST_POSITION = 2
"""Position of the first token: fairseq counts from the id of its padding, 1, plus one."""


class _Positions:
    """Sinusoids of a range of steps in float32, made once for each device.

    Not a buffer of the module, because ``module.to(dtype)`` would round it (2e-3 in bfloat16).
    """

    def __init__(self, max_tokens: int, width: int) -> None:
        self._max_tokens, self._width = max_tokens, width
        self._table: Tensor | None = None

    def __call__(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Return (stop - start, D) float32."""
        if stop > self._max_tokens:
            raise DataError(
                "more tokens than the network has positions",
                where="sonar",
                got=stop,
                expected=f"at most {self._max_tokens}, the language and </s> included",
                hint="cut the text into sentences",
            )
        if self._table is None or self._table.device != device:
            with torch.inference_mode(False), torch.no_grad():
                positions = torch.arange(FIRST_POSITION, FIRST_POSITION + self._max_tokens, device=device)
                self._table = sine_positions(positions, self._width)
        return self._table[start:stop]


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (N, T, D) → three of (N, H, T, K)."""
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q, k, v

    def forward(self, x_NTD: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend within each sentence; ``mask`` (N, 1, 1, T) is true where there is a token."""
        q, k, v = self.heads(x_NTD)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out

    def step(self, x_RD: Tensor, keys_RHSK: Tensor, values_RHSK: Tensor, position: int) -> Tensor:
        """Attend from one new token to itself and all before it; its key and value are written at ``position``."""
        q, k, v = self.heads(x_RD[:, None])
        keys_RHSK[:, :, position : position + 1] = k
        values_RHSK[:, :, position : position + 1] = v
        seen = slice(0, position + 1)
        attended = F.scaled_dot_product_attention(q, keys_RHSK[:, :, seen], values_RHSK[:, :, seen])
        out: Tensor = self.out_proj(attended.flatten(1))
        return out


class ConceptAttention(nn.Module):
    """Attention to a single vector: two linear maps, whatever the query."""

    def __init__(self, width: int, concept_dim: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(concept_dim, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, concepts_NC: Tensor) -> Tensor:
        """Return what attention adds at every position, (N, D)."""
        out: Tensor = self.out_proj(self.v_proj(concepts_NC))
        return out


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each after a norm and around a residual."""

    def __init__(self, width: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second residual branch, added to ``x``."""
        hidden = self.fc1(self.final_layer_norm(x))
        out: Tensor = x + self.fc2(F.relu_(hidden))
        return out

    def forward(self, x_NTD: Tensor, mask: Tensor | None) -> Tensor:
        """Full pass over padded sentences."""
        x_NTD = x_NTD + self.self_attn(self.self_attn_layer_norm(x_NTD), mask)
        return self.feed_forward(x_NTD)


class DecoderLayer(EncoderLayer):
    """As :class:`EncoderLayer`, causal, with the concept's constant between the two branches."""

    def __init__(self, width: int, num_heads: int, ffn_dim: int, concept_dim: int) -> None:
        super().__init__(width, num_heads, ffn_dim)
        self.encoder_attn = ConceptAttention(width, concept_dim)

    def forward(self, x_NTD: Tensor, constant_ND: Tensor | None = None) -> Tensor:
        """Full pass; position t sees positions up to t, so padding on the right changes nothing before it."""
        x_NTD = x_NTD + self.self_attn(self.self_attn_layer_norm(x_NTD), causal=True)
        if constant_ND is not None:
            x_NTD = x_NTD + constant_ND[:, None]
        return self.feed_forward(x_NTD)

    def step(self, x_RD: Tensor, constant_RD: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
        """One new token of each row."""
        x_RD = x_RD + self.self_attn.step(self.self_attn_layer_norm(x_RD), keys, values, position)
        return self.feed_forward(x_RD + constant_RD)


class SonarEncoder(nn.Module):
    """Sentences to concepts (arXiv 2308.11466, section 3.1)."""

    def __init__(self, config: SonarEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.num_heads, config.ffn_dim) for _ in range(config.num_layers)
        )
        self.layer_norm = nn.LayerNorm(config.width)
        self._positions = _Positions(config.max_tokens, config.width)

    def states(self, tokens_NT: Tensor, lengths_N: Tensor | None) -> Tensor:
        """Return the (N, T, D) float32 states of all tokens; arguments as of :meth:`forward`."""
        hidden = _embed(self.embed_tokens, tokens_NT, self._positions(0, tokens_NT.shape[1], tokens_NT.device))
        mask = None if lengths_N is None else _real(tokens_NT, lengths_N)[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        norm = self.layer_norm
        return F.layer_norm(hidden.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)

    def forward(self, tokens_NT: Tensor, lengths_N: Tensor | None) -> Tensor:
        """Encode sentences ``[language] pieces </s>``.

        Args:
            tokens_NT: int64 ids, padded on the right with 0.
            lengths_N: number of tokens of each; ``None`` says that there is no padding, which saves the mask.

        Returns:
            (N, C) float32, the mean of the states: their sum / (count + 1e-7), as the original divides.

        Raises:
            DataError: T is more than ``config.max_tokens``.
        """
        if is_quick(self.embed_tokens.weight) and len(tokens_NT):
            positions = self._positions(0, tokens_NT.shape[1], tokens_NT.device)
            return encode_rows(self, tokens_NT, lengths_N, positions)
        states = self.states(tokens_NT, lengths_N)
        if lengths_N is None:
            return states.sum(dim=1) / (tokens_NT.shape[1] + 1e-7)
        real = _real(tokens_NT, lengths_N)[..., None]
        return states.masked_fill(~real, 0.0).sum(dim=1) / (lengths_N[:, None].float() + 1e-7)


class DecoderCache:
    """What the decoder remembers of the rows being written: keys and values of each layer, and the constants.

    Attributes:
        keys, values: for each layer (R, H, S, K), of which the first ``position`` steps are filled.
        constants: (L, R, D).
        position: number of tokens read so far.
        packed: rearranged weights to step with, if there are.
    """

    packed: PackedDecoder | None = None

    def __init__(self, constants_LRD: Tensor, num_heads: int, max_steps: int) -> None:
        layers, rows, width = constants_LRD.shape
        shape = (rows, num_heads, max_steps, width // num_heads)
        self.constants = constants_LRD
        self.keys = [constants_LRD.new_empty(shape) for _ in range(layers)]
        self.values = [constants_LRD.new_empty(shape) for _ in range(layers)]
        self.position = 0

    @property
    def max_steps(self) -> int:
        """S, the number of tokens there is room for."""
        return self.keys[0].shape[2]

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows: the new row i is the old row ``rows[i]``."""
        rows = rows.to(self.constants.device)
        count = len(rows)
        used = slice(0, self.position)
        self.constants = self.constants.index_select(1, rows)
        if count <= len(self.keys[0]) and rows.device.type == "cpu":
            moved = (rows != torch.arange(count)).nonzero().squeeze(1)  # most rows stay where they are
            for caches in (self.keys, self.values):
                for i, cache in enumerate(caches):
                    caches[i] = cache[:count]
                    if len(moved):
                        filled = cache[:, :, used].index_select(0, rows[moved])
                        caches[i][:, :, used].index_copy_(0, moved, filled)
            return
        for caches in (self.keys, self.values):
            for i, cache in enumerate(caches):
                filled = cache[:, :, used].index_select(0, rows)
                if count <= len(cache):
                    cache = cache[:count]  # the room of rows that left stays allocated
                else:
                    cache = cache.new_empty((count, *cache.shape[1:]))
                cache[:, :, used] = filled
                caches[i] = cache


class SonarDecoder(nn.Module):
    """Concepts to sentences: ``</s> language`` is the prompt, ``</s>`` ends the text (arXiv 2308.11466, section 3.2).

    The table of token embeddings is the output matrix too.

    Attributes:
        pack: on a CPU keep the layers' weights in a second, quicker order too, from the first text on. It takes the
            memory of the layers once more (1 GB in bfloat16).
    """

    def __init__(self, config: SonarDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(
            DecoderLayer(config.width, config.num_heads, config.ffn_dim, config.concept_dim)
            for _ in range(config.num_layers)
        )
        self.layer_norm = nn.LayerNorm(config.width)
        self.pack = True
        self._positions = _Positions(config.max_tokens, config.width)
        self._packed: PackedDecoder | None = None
        self._layer_step: Callable[..., Tensor] = DecoderLayer.step

    def compile_step(self) -> None:
        """Compile the layers' steps with ``torch.compile``, once for all of them, instead of rearranging weights.

        For accelerators: on a CPU rearranged weights are quicker (docs/sonar.md).
        """
        self.pack = False
        self._layer_step = torch.compile(DecoderLayer.step, dynamic=True)

    @property
    def blocks(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return cast("list[DecoderLayer]", list(self.layers))

    def constants(self, concepts_NC: Tensor) -> Tensor:
        """Return what each layer adds for each concept, (L, N, D) in the weights' type; differentiable."""
        concepts_NC = concepts_NC.to(self.embed_tokens.weight.dtype)
        return torch.stack([block.encoder_attn(concepts_NC) for block in self.blocks])

    def forward(self, concepts_NC: Tensor, tokens_NT: Tensor) -> Tensor:
        """Read whole sentences at once (teacher forcing).

        Args:
            concepts_NC: any float type; gradients flow to them.
            tokens_NT: int64 ids ``</s> language pieces…``; anything may stand after a sentence's last token.

        Returns:
            (N, T, D) states in the weights' type: state t predicts token t + 1, see :meth:`logits`.

        Raises:
            DataError: T is more than ``config.max_tokens``.
        """
        constants = self.constants(concepts_NC)
        hidden = _embed(self.embed_tokens, tokens_NT, self._positions(0, tokens_NT.shape[1], tokens_NT.device))
        for block, constant in zip(self.blocks, constants, strict=True):
            hidden = block(hidden, constant)
        out: Tensor = self.layer_norm(hidden)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 scores (…, V) of the next token."""
        return F.linear(hidden, self.embed_tokens.weight).float()

    def scores(self, hidden_RD: Tensor, cache: DecoderCache) -> Tensor:
        """Return the scores (R, V) of the next token in the weights' type, for states that :meth:`step` returned."""
        if cache.packed is not None:
            return cache.packed.scores(hidden_RD)
        return F.linear(hidden_RD, self.embed_tokens.weight)

    def start(self, concepts_NC: Tensor, max_steps: int) -> DecoderCache:
        """Return an empty cache with room for ``max_steps`` tokens of each row, the prompt included.

        Raises:
            DataError: ``max_steps`` is more than ``config.max_tokens``.
        """
        self._positions(0, max_steps, self.embed_tokens.weight.device)
        cache = DecoderCache(self.constants(concepts_NC), self.config.num_heads, max_steps)
        cache.packed = self._packed_for(len(concepts_NC))
        return cache

    def _packed_for(self, rows: int) -> PackedDecoder | None:
        """The weights as they are now, rearranged, or ``None`` where that does not apply."""
        key = weights_key(self) if self.pack else None
        if key is None:
            self._packed = None
        elif self._packed is None or self._packed.key != key:
            self._packed = None  # before the new one is made: there is never a third copy
            self._packed = PackedDecoder(self, key)
        if self._packed is not None:
            self._packed.expect(rows)
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        """Leave rearranged weights and compiled steps out of copies."""
        return {**self.__dict__, "_packed": None, "_layer_step": DecoderLayer.step}

    def step(self, tokens_R: Tensor, cache: DecoderCache) -> Tensor:
        """Read one more token of each row and return the (R, D) states that predict the next one.

        Raises:
            DataError: the cache is full.
        """
        position = cache.position
        if position >= cache.max_steps:
            raise DataError("the decoder's cache is full", where="sonar", expected=f"at most {cache.max_steps} tokens")
        hidden = _embed(self.embed_tokens, tokens_R, self._positions(position, position + 1, tokens_R.device))
        out: Tensor
        if cache.packed is not None:
            out = cache.packed.step(hidden, cache)
            cache.position += 1
            return out
        for i, block in enumerate(self.blocks):
            hidden = self._layer_step(block, hidden, cache.constants[i], cache.keys[i], cache.values[i], position)
        cache.position += 1
        out = self.layer_norm(hidden)
        return out


def _embed(table: nn.Embedding, tokens: Tensor, positions: Tensor) -> Tensor:
    """Embeddings × √D plus positions; the sum is taken in float32 and rounded once to the weights' type."""
    embedded: Tensor = table(tokens) * math.sqrt(table.embedding_dim)
    return (embedded.float() + positions).to(embedded.dtype)


def _real(tokens_NT: Tensor, lengths_N: Tensor) -> Tensor:
    """(N, T) bool, true where there is a token."""
    return torch.arange(tokens_NT.shape[1], device=tokens_NT.device) < lengths_N[:, None]

"""The network of the trainable concept space: sentence encoder, bottleneck, sentence decoder.

Shape letters: N sentences, T tokens, M memory tokens, P pooling heads, D width, H heads, K head dim, C concept dim,
F form channels (the last ones of a concept), V vocabulary.

The encoder is a small bidirectional transformer. Its tokens are pooled by P learned attention heads, joined and
projected to one vector of variance one per channel, so a concept lives on a sphere and noise has a fixed meaning.
Nothing tells the encoder which language it reads. The decoder is a causal transformer whose self-attention also sees M
memory tokens projected from the concept; its first input is an embedding of the target language, which is not a piece
of the vocabulary, so no typed text can ever become a control token.

With ``form_dim`` a concept has two parts, each on its own sphere: the *meaning*, pooled as above, in the first C - F
channels, and the *form*, the sentence's tokens bound to their places (:mod:`largeconcept.codec.binding`), in the last
F. The form gives a sentence back word for word, after minutes of training; a decoder that learns to do without it, when
it is faded out, says the meaning in its own words, in any of its languages.

Blocks are written for processors, where sentences are short and attention is many tiny products: one fused q/k/v
product, parameter-free RMS norms, squared ReLU, no biases, and memory that enters the keys and values only.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from largeconcept.codec.binding import FormReader, PositionBinding
from largeconcept.config import Config
from largeconcept.errors import ConfigError

PAD, BOS, EOS, UNK = 0, 1, 2, 3


class AutoencoderConfig(Config):
    """Shape of an autoencoder codec.

    Attributes:
        dim: C, channels of a concept.
        form_dim: F, how many of them hold the form; 0: none. If not 0, at least ``width``.
        form_reach: R, first places of the form among which the decoder finds what followed the token just written; 0:
            none. Needs a form. (What the form says about the place that is written reaches the decoder in any case.)
        teacher_dim: channels of a teacher's vectors that the meaning learns to predict in training; 0: no teacher.
        width: D. ``num_heads`` must divide it.
        vocab_size: V, pieces of the SentencePiece model.
        languages: FLORES-200 codes the decoder can write, in the order of their embeddings.
        encoder_layers: 0 makes a decoder alone, for concepts that another encoder makes.
        pooling_heads: P, attention heads that gather the tokens into the concept.
        memory_tokens: M, vectors projected from the concept that the decoder attends to.
        max_tokens: longest sentence in tokens; longer ones are cut by the codec, with a warning.
        bottleneck: ``unit_variance`` puts concepts on the sphere of radius √C; ``kl`` samples from a learned diagonal
            Gaussian with a clipped divergence (CALM, arXiv 2510.27688, section 3.1).
    """

    type: Literal["autoencoder"] = "autoencoder"
    dim: int = Field(384, ge=2)
    form_dim: int = Field(0, ge=0)
    form_reach: int = Field(0, ge=0)
    teacher_dim: int = Field(0, ge=0)
    width: int = Field(256, ge=8)
    num_heads: int = Field(4, ge=1)
    encoder_layers: int = Field(3, ge=0)
    decoder_layers: int = Field(3, ge=1)
    ffn_multiple: int = Field(4, ge=1)
    vocab_size: int = Field(10240, ge=260)
    languages: tuple[str, ...] = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn")
    pooling_heads: int = Field(8, ge=1)
    memory_tokens: int = Field(8, ge=1)
    max_tokens: int = Field(128, ge=4)
    bottleneck: Literal["unit_variance", "kl"] = "unit_variance"

    @model_validator(mode="after")
    def _check(self) -> AutoencoderConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.form_dim and not self.width <= self.form_dim < self.dim:
            raise ValueError(f"form_dim {self.form_dim} is not between width {self.width} and dim {self.dim}")
        if self.form_reach and (not self.form_dim or self.form_reach > self.max_tokens):
            raise ValueError(f"form_reach {self.form_reach} needs a form and is at most max_tokens {self.max_tokens}")
        if (self.form_dim or self.teacher_dim) and (self.bottleneck == "kl" or not self.encoder_layers):
            raise ValueError("form_dim and teacher_dim need an encoder and the unit_variance bottleneck")
        if not self.languages or len(set(self.languages)) != len(self.languages):
            raise ValueError("languages must be a non-empty list without repetition")
        return self

    @property
    def meaning_dim(self) -> int:
        """Channels that are not form."""
        return self.dim - self.form_dim


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to variance one, without a learned weight."""
    return F.rms_norm(x, (x.shape[-1],))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Plain softmax attention over (N, H, T, K); ``mask`` is added to the scores.

    Written out rather than through the fused kernel: sentences are a few dozen tokens long, where two batched products
    and one softmax are faster on processors (``benchmarks/codec_training.py``).
    """
    scores = torch.matmul(q * (1.0 / math.sqrt(q.shape[-1])), k.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype), v)


class Block(nn.Module):
    """Pre-norm transformer layer: fused-projection attention (optionally with memory) and a squared-ReLU MLP."""

    def __init__(self, width: int, num_heads: int, ffn_multiple: int, depth: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, ffn_multiple * width, bias=False)
        self.down = nn.Linear(ffn_multiple * width, width, bias=False)
        std = width**-0.5
        nn.init.normal_(self.qkv.weight, std=std)
        nn.init.normal_(self.up.weight, std=std)
        # Small outputs keep the residual stream near the embeddings at the start of training.
        nn.init.normal_(self.out.weight, std=std / math.sqrt(2 * depth))
        nn.init.normal_(self.down.weight, std=(ffn_multiple * width) ** -0.5 / math.sqrt(2 * depth))

    def heads(self, x: Tensor) -> Tensor:
        """(N, T, D) → (N, H, T, K)."""
        return x.view(*x.shape[:-1], self.num_heads, -1).transpose(1, 2)

    def memory_kv(self, memory_NMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory tokens, with the layer's own projections (no queries)."""
        width = memory_NMD.shape[-1]
        k, v = F.linear(memory_NMD, self.qkv.weight[width:]).chunk(2, dim=-1)
        return self.heads(k), self.heads(v)

    def forward(self, x_NTD: Tensor, mask: Tensor | None, memory: Tensor | None = None) -> Tensor:
        """Full-sequence pass; ``mask`` is additive over (…, T, M + T) or (…, T, T)."""
        q, k, v = (self.heads(part) for part in self.qkv(rms_norm(x_NTD)).chunk(3, dim=-1))
        if memory is not None:
            memory_k, memory_v = self.memory_kv(memory)
            k, v = torch.cat([memory_k, k], dim=2), torch.cat([memory_v, v], dim=2)
        x_NTD = x_NTD + self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return x_NTD + self.mlp(x_NTD)

    def step(self, x_ND: Tensor, k_cache: Tensor, v_cache: Tensor, position: int) -> Tensor:
        """One decoding step: writes this token's key and value at ``position`` and attends to all up to it.

        ``k_cache`` and ``v_cache`` are (N, H, M + T, K), the memory in front.
        """
        q, k, v = self.qkv(rms_norm(x_ND)).view(len(x_ND), 3, self.num_heads, -1).unbind(1)
        k_cache[:, :, position] = k
        v_cache[:, :, position] = v
        keys, values = k_cache[:, :, : position + 1], v_cache[:, :, : position + 1]
        x_ND = x_ND + self.out(attend(q[:, :, None], keys, values, None).squeeze(2).flatten(1))
        return x_ND + self.mlp(x_ND)

    def mlp(self, x: Tensor) -> Tensor:
        """The block's second branch: squared ReLU."""
        out: Tensor = self.down(F.relu(self.up(rms_norm(x))).square())
        return out


class AutoencoderNetwork(nn.Module):
    """Encoder and decoder around a concept; all three uses of the token embedding share one table.

    ``forward`` is not used: training calls :meth:`encode` and :meth:`decode_hidden`, see ``objectives/codec.py``.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        depth = config.encoder_layers + config.decoder_layers
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        if config.encoder_layers:
            self.encoder_positions = nn.Parameter(torch.empty(config.max_tokens, width))
        self.decoder_positions = nn.Parameter(torch.empty(config.max_tokens + 1, width))
        self.language = nn.Embedding(len(config.languages), width)
        self.encoder = nn.ModuleList(
            Block(width, config.num_heads, config.ffn_multiple, depth) for _ in range(config.encoder_layers)
        )
        if config.encoder_layers:
            self.pool_query = nn.Linear(width, config.pooling_heads, bias=False)
            outputs = config.meaning_dim * (2 if config.bottleneck == "kl" else 1)
            self.to_concept = nn.Linear(config.pooling_heads * width, outputs, bias=False)
        self.to_memory = nn.Linear(config.meaning_dim, config.memory_tokens * width, bias=False)
        self.to_bias = nn.Linear(config.meaning_dim, width, bias=False)
        places = config.max_tokens + 1
        self.binding = PositionBinding(width, config.dim, config.form_dim, places) if config.form_dim else None
        self.reader: FormReader | None = None
        self.set_form_reach(config.form_reach)
        self.to_teacher: nn.Linear | None = None
        self.set_teacher(config.teacher_dim)
        self.decoder = nn.ModuleList(
            Block(width, config.num_heads, config.ffn_multiple, depth) for _ in range(config.decoder_layers)
        )
        nn.init.normal_(self.embedding.weight, std=0.06)
        if config.encoder_layers:
            nn.init.normal_(self.encoder_positions, std=0.3)
        nn.init.normal_(self.decoder_positions, std=0.3)
        nn.init.normal_(self.language.weight, std=1.0)
        if config.encoder_layers:
            nn.init.normal_(self.pool_query.weight, std=width**-0.5)

    def set_teacher(self, dim: int) -> None:
        """Take away the map to a teacher's vectors, and make a new one to ``dim`` channels if that is not 0."""
        self.config = self.config.model_copy(update={"teacher_dim": dim})
        self.to_teacher = nn.Linear(self.config.meaning_dim, dim) if dim else None

    def set_form_reach(self, places: int) -> None:
        """Take away what finds words in the form, and make it anew, for so many places, if that is not 0."""
        self.config = AutoencoderConfig.from_dict({**self.config.to_dict(), "form_reach": places})
        self.reader = FormReader(self.binding, places) if places and self.binding is not None else None

    # ---------------------------------------------------------------- encoder

    def encode(self, tokens_NT: Tensor, lengths_N: Tensor) -> Tensor:
        """Encode right-padded token ids.

        Returns:
            (N, C) float32 concepts; for the ``kl`` bottleneck (N, 2C): means and log-variances.
        """
        steps = tokens_NT.shape[1]
        if not self.config.encoder_layers:
            raise ConfigError("a decoder alone: its concepts come from another encoder", where="encode")
        if steps > self.config.max_tokens:
            raise ConfigError("too many tokens", where="encode", got=steps, expected=f"≤ {self.config.max_tokens}")
        padding = torch.arange(steps, device=tokens_NT.device) >= lengths_N[:, None]
        words = rms_norm(self.embedding(tokens_NT))
        hidden = words + self.encoder_positions[:steps]
        mask = torch.zeros(padding.shape, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(padding, -1e4)[:, None, None, :]
        for layer in self.encoder:
            hidden = layer(hidden, mask)
        hidden = rms_norm(hidden)
        weights_NTP = self.pool_query(hidden).float().masked_fill(padding[..., None], -1e4).softmax(dim=1)
        pooled_NPD = torch.matmul(weights_NTP.transpose(1, 2).to(hidden.dtype), hidden)
        out = self.to_concept(pooled_NPD.flatten(1)).float()
        if self.config.bottleneck == "kl":
            return cast("Tensor", out)
        if self.binding is None:
            return rms_norm(out)
        # The words themselves beside their states in context: what is copied need not pass through the layers.
        return torch.cat([rms_norm(out), rms_norm(self.binding(hidden + words, padding))], dim=-1)

    # ---------------------------------------------------------------- decoder

    @property
    def decoder_blocks(self) -> list[Block]:
        """The decoder's layers, typed."""
        return cast("list[Block]", list(self.decoder))

    def memory(self, concepts_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Project meanings to (N, M, D) memory tokens and to an (N, D) offset added to every decoder input."""
        meaning = concepts_NC[:, : self.config.meaning_dim]
        memory = rms_norm(self.to_memory(meaning).view(-1, self.config.memory_tokens, self.config.width))
        return memory, self.to_bias(meaning)

    def decode_hidden(self, concepts_NC: Tensor, inputs_NT: Tensor, lang_N: Tensor) -> Tensor:
        """Teacher-forced decoder states.

        Args:
            concepts_NC: (N, C).
            inputs_NT: (N, T) target tokens without the end mark; the language embedding goes in front of them.
            lang_N: (N,) indices into ``config.languages``.

        Returns:
            (N, T + 1, D): state t predicts target token t (the last one the end mark).
        """
        memory, bias = self.memory(concepts_NC)
        first = self.language(lang_N)[:, None]
        hidden = torch.cat([first, self.embedding(inputs_NT)], dim=1)
        steps = hidden.shape[1]
        inputs = rms_norm(hidden)
        hidden = inputs + self.decoder_positions[:steps] + bias[:, None]
        if self.binding is not None:
            hidden = hidden + self.binding.hints(concepts_NC, inputs)
        mask, taken = self._causal_mask(steps, hidden), self._taken_out(concepts_NC)
        for index, layer in enumerate(self.decoder):
            hidden = layer(hidden, mask, memory)
            if index == 0 and self.reader is not None:
                hidden = hidden + self.reader(inputs, hidden, *taken)
        return rms_norm(hidden)

    def _taken_out(self, concepts_NC: Tensor) -> tuple[Tensor, ...]:
        if self.reader is None or self.binding is None:
            return ()
        return self.reader.take_out(concepts_NC[:, self.config.meaning_dim :], self.binding)

    def _causal_mask(self, steps: int, like: Tensor) -> Tensor:
        memory = self.config.memory_tokens
        rows = torch.arange(steps, device=like.device)[:, None]
        columns = torch.arange(memory + steps, device=like.device)[None] - memory
        return torch.zeros(steps, memory + steps, dtype=like.dtype, device=like.device).masked_fill(
            columns > rows, -1e4
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of decoder states, float32."""
        return F.linear(hidden, self.embedding.weight).float()

    def start(
        self, concepts_NC: Tensor, max_steps: int
    ) -> tuple[list[Tensor], list[Tensor], Tensor, tuple[Tensor, ...]]:
        """Allocate the decoder's caches, memory in front: keys and values of each layer.

        Returns:
            keys, values, and (N, D + C + F) what :meth:`step` adds to every input: the offset; and with a form the
            concept and what has been written, bound. Last what was taken out of the form, if the decoder reads there.
        """
        memory, guide = self.memory(concepts_NC)
        if self.binding is not None:
            written = concepts_NC.new_zeros(len(concepts_NC), self.config.form_dim)
            guide = torch.cat([guide, concepts_NC, written], dim=-1)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for layer in self.decoder_blocks:
            k, v = layer.memory_kv(memory)
            room = (k.shape[0], k.shape[1], k.shape[2] + max_steps, k.shape[3])
            for cache, part in ((keys, k), (values, v)):
                full = torch.zeros(room, dtype=part.dtype, device=part.device)
                full[:, :, : part.shape[2]] = part
                cache.append(full)
        return keys, values, guide, self._taken_out(concepts_NC)

    def step(
        self,
        embedded_ND: Tensor,
        guide: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        t: int,
        taken: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Decoder state for input ``t`` (0 is the language), updating the caches and the guide in place."""
        width, dim = self.config.width, self.config.dim
        inputs = rms_norm(embedded_ND)
        hidden = inputs + self.decoder_positions[t] + guide[:, :width]
        if self.binding is not None:
            concepts, written = guide[:, width : width + dim], guide[:, width + dim :]
            hidden = hidden + self.binding.hint(concepts, written, inputs, t)
        position = self.config.memory_tokens + t
        for index, (layer, k, v) in enumerate(zip(self.decoder_blocks, keys, values, strict=True)):
            hidden = layer.step(hidden, k, v, position)
            if index == 0 and self.reader is not None:
                hidden = hidden + self.reader(inputs[:, None], hidden[:, None], *taken).squeeze(1)
        return rms_norm(hidden)


class WritingState:
    """The decoder in the middle of some sentences, for the searches of :mod:`largeconcept.codec.decoding`.

    Args:
        network: the codec's network.
        concepts_NC: (N, C).
        lang_N: (N,) indices into ``config.languages``.
        max_length: most tokens of a sentence.
    """

    end = EOS

    def __init__(self, network: AutoencoderNetwork, concepts_NC: Tensor, lang_N: Tensor, max_length: int) -> None:
        self._network = network
        self._keys, self._values, self._guide, self._taken = network.start(concepts_NC, max_length + 1)
        self._input = network.language(lang_N)
        self._t = 0

    def scores(self) -> Tensor:
        """(R, V) scores of the next token; control tokens other than the end mark cannot be written."""
        hidden = self._network.step(self._input, self._guide, self._keys, self._values, self._t, self._taken)
        self._t += 1
        scores = self._network.logits(hidden)
        scores[:, [PAD, BOS, UNK]] = -torch.inf
        if self._t == 1:
            scores[:, EOS] = -torch.inf  # a concept stands for at least one token
        return scores

    def feed(self, tokens: Tensor) -> None:
        """Set the (R,) tokens written last."""
        self._input = self._network.embedding(tokens)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows; the token fed before is forgotten."""
        used = self._network.config.memory_tokens + self._t
        for caches in (self._keys, self._values):
            for i, cache in enumerate(caches):
                filled = cache[:, :, :used].index_select(0, rows)
                # Rows that left keep their room; only for more rows than ever is there a new cache.
                room = cache[: len(rows)] if len(rows) <= len(cache) else cache.new_empty(len(rows), *cache.shape[1:])
                room[:, :, :used] = filled
                caches[i] = room
        self._guide = self._guide.index_select(0, rows)
        self._taken = tuple(part.index_select(0, rows) for part in self._taken)

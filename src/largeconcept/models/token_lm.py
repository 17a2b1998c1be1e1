"""The baseline beside all concept models: a decoder-only language model over the codec's own tokens.

The usual recipe (Llama, arXiv:2302.13971, §2.2): token embeddings, layers of causal attention with rotary positions and
a gated MLP, each behind an RMSNorm, and a softmax over the vocabulary, whose table may be that of the inputs.

A document is written as

    D  y_11 … y_1T  E  y_21 … y_2T  E  …  D

with an end mark E after each sentence (the codec's own) and a document mark D (id 1) in front of it and at its end, so
that text is one stream of tokens whose sentences are known.

This is no concept model: it reads tokens, has no concept dimension and generates by
:mod:`largeconcept.generate.token_lm`.

Shape letters: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import DataError
from largeconcept.models.checks import as_lengths
from largeconcept.nn.decoder import CausalStack, StackConfig
from largeconcept.nn.kv_cache import KVCache, StateCache
from largeconcept.nn.linear import few_rows_linear

PAD, DOCUMENT, END, UNKNOWN = 0, 1, 2, 3
"""Ids of the codec's tokenizers: padding, start (here the mark of a document), end of a sentence, unknown."""
POSITION_STD = 0.02


class TokenLMConfig(StackConfig):
    """Configuration of a token language model.

    Attributes:
        vocab_size: V, of the codec's tokenizer.
        num_layers: number of layers.
        tie_embeddings: score tokens with the table of input embeddings instead of one of their own.
    """

    type: Literal["token_lm"] = "token_lm"
    vocab_size: int = Field(default=10240, ge=5)
    num_layers: int = Field(default=12, ge=1)
    model_dim: int = Field(default=512, ge=1)
    num_heads: int = Field(default=8, ge=1)
    tie_embeddings: bool = True


def document_tokens(sentences: Sequence[Sequence[int]], *, ended: bool = False) -> list[int]:
    """Return the tokens of a document: the document mark, each sentence with its end mark, and a document mark at the
    end if the document ends there."""
    tokens = [DOCUMENT]
    for sentence in sentences:
        tokens += [*sentence, END]
    return [*tokens, DOCUMENT] if ended else tokens


class TokenLM(nn.Module):
    """Decoder-only token language model.

    Args:
        config: sizes and style.
    """

    config_class: ClassVar[type[Config]] = TokenLMConfig

    def __init__(self, config: TokenLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.model_dim)
        self.decoder = CausalStack(config, config.num_layers, POSITION_STD)
        self.output = None if config.tie_embeddings else nn.Embedding(config.vocab_size, config.model_dim)
        for table in (self.embedding, self.output):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    @property
    def output_table(self) -> Tensor:
        """(V, D) table that scores the tokens."""
        return self.embedding.weight if self.output is None else self.output.weight

    @property
    def num_body_parameters(self) -> int:
        """Parameters without the tables of tokens."""
        tables = (self.embedding.weight, self.output_table)
        return sum(p.numel() for p in self.parameters() if all(p is not table for table in tables))

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Read tokens; :meth:`logits` scores what comes next.

        Args:
            tokens: (B, T) int64, padded on the right with any id.
            lengths: (B,); taken so that all models are called alike. Attention looks to the left only.

        Returns:
            (B, T, D) states; that at position i predicts token i + 1.

        Raises:
            DataError: a wrong shape or type.
        """
        self._check(tokens)
        states: Tensor = self.decoder(self.embedding(tokens))
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary: (…, D) to (…, V) float32."""
        return few_rows_linear(states, self.output_table, None).float()

    def prefill(
        self, tokens: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> StateCache:
        """Read right-padded texts (B, T), each to its own length of at least 1, with room for ``capacity`` tokens.

        Raises:
            DataError: a wrong shape or type, or an empty text.
        """
        cache, states = self.read(tokens, lengths, capacity)
        last = torch.tensor(cache.lengths, device=tokens.device) - 1
        return StateCache(cache, states[torch.arange(len(tokens), device=tokens.device), last])

    def read(
        self, tokens: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> tuple[KVCache, Tensor]:
        """Read texts as :meth:`prefill` does; return the cache and all states (B, T, D)."""
        self._check(tokens)
        sizes = as_lengths(lengths, tokens.shape[0], tokens.shape[1])
        if 0 in sizes:
            raise DataError("an empty text", where=f"text {sizes.index(0)}", expected="at least the document mark")
        cache = self.decoder.new_cache(tokens.shape[0], max(capacity or 0, tokens.shape[1]))
        return cache, self.decoder.prefill(self.embedding(tokens), sizes, cache)

    def beginnings(self, cache: KVCache, states: Tensor, rows: Sequence[int], lengths: Sequence[int]) -> StateCache:
        """Return a cache of the first ``lengths[i]`` tokens of row ``rows[i]`` of what :meth:`read` returned.

        So a text that was read once can be continued from many of its places at once.
        """
        index = torch.tensor(list(rows), device=states.device)
        longest = max(lengths)
        part = self.decoder.new_cache(len(rows), longest)
        for layer in range(len(self.decoder.layers)):
            keys, values = cache.view(layer)
            part.fill(layer, keys[index, :, :longest], values[index, :, :longest])
        part.set_lengths(lengths)
        return StateCache(part, states[index, torch.tensor(list(lengths), device=states.device) - 1])

    def after(self, cache: KVCache, rows: Sequence[int], lengths: Sequence[int], tokens: Tensor) -> Tensor:
        """Read tokens (R, T), padded on the right, after the first ``lengths[i]`` of row ``rows[i]`` of what was read.

        Args:
            cache: what :meth:`read` returned; it stays as it is.
            rows: R numbers of its rows.
            lengths: R numbers of tokens.
            tokens: what follows them.

        Returns:
            (R, T, D) states.
        """
        self._check(tokens)
        return self.decoder.branch(self.embedding(tokens), cache, rows, lengths)

    def extend(self, cache: StateCache, tokens: Tensor) -> None:
        """Read one more token of each row, (B,); ``cache.state`` then predicts the one after it."""
        cache.state = self.decoder.step(self.embedding(tokens), cache.context)

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.shape[1] == 0:
            got = f"{tuple(tokens.shape)} of {tokens.dtype}"
            raise DataError("wrong shape or type", where="tokens", expected="(B, T) integers, T ≥ 1", got=got)

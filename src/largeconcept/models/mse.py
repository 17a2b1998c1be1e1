"""Base-LCM: a causal transformer that regresses the next concept (arXiv:2412.08821, §2.3.1 and figure 4).

The network computes, for normalised concepts ``x`` of a document,

    h = Linear(x) (+ positions);  h = Layer_N(… Layer_1(h));  x̂_{i+1} = Linear(norm(h))_i

and is trained with the squared error between ``x̂_{i+1}`` and ``x_{i+1}``, summed over channels. There is no
begin-of-text vector, so the first concept is never predicted, and no end-of-text output: the end is the concept of a
fixed sentence.

Note: normalisation is not part of the network; the objective and the generator own it.

Shape letters: B batch, S concepts, C concept dimension, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.errors import DataError
from largeconcept.models.checks import as_lengths, check_concepts
from largeconcept.nn.copying import CopyAttention
from largeconcept.nn.decoder import TOY_STYLE, CausalDecoder, TransformerConfig
from largeconcept.nn.kv_cache import StateCache
from largeconcept.nn.linear import Linear

POSITION_STD = 0.006


class MSEConfig(TransformerConfig):
    """Configuration of a Base-LCM; the defaults are the paper's 1.6B model.

    Attributes:
        num_layers: number of layers.
        copy_heads: heads of :class:`~largeconcept.nn.copying.CopyAttention`, by which concepts that were read go into
            the prediction as they are; 0, the paper's, for none.
    """

    type: Literal["mse"] = "mse"
    num_layers: int = Field(default=32, ge=1)
    copy_heads: int = Field(default=0, ge=0)

    @classmethod
    def toy(cls, **settings: Any) -> MSEConfig:
        """Return the reference's small style (LayerNorm, ReLU, learned positions), changed by ``settings``."""
        sizes = {"model_dim": 1024, "num_heads": 8, "num_layers": 2, "max_positions": 2048}
        return cls.from_dict({**TOY_STYLE, **sizes, **settings})


class MSEConceptModel(nn.Module):
    """Base-LCM.

    Args:
        config: sizes and style.
    """

    config_class: ClassVar[type[Config]] = MSEConfig

    def __init__(self, config: MSEConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = CausalDecoder(config, config.num_layers, POSITION_STD)
        self.output_proj = Linear(config.model_dim, config.concept_dim)
        sizes = (config.concept_dim, config.model_dim, config.copy_heads)
        self.copying = CopyAttention(*sizes) if config.copy_heads else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predict the next concept at every position.

        Args:
            x: (B, S, C) normalised concepts, padded on the right with anything finite.
            lengths: (B,); taken so that all families are called alike. Attention looks to the left only, so padding
                never reaches a real position and no mask is needed.

        Returns:
            (B, S, C) float32; position i predicts concept i + 1.

        Raises:
            DataError: a wrong shape or type, or a document longer than the learned positions.
        """
        check_concepts(x, self.config.concept_dim, "x")
        hidden = self.decoder(x)
        out: Tensor = self.output_proj(hidden).float()
        return out if self.copying is None else out + self.copying(hidden, x)

    def prefill(
        self, x: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> StateCache:
        """Read right-padded prompts (B, S, C), each to its own length of at least 1, with room for ``capacity``
        concepts.

        Raises:
            DataError: a wrong shape, or an empty prompt: this family cannot predict a first concept.
        """
        check_concepts(x, self.config.concept_dim, "prompt")
        sizes = as_lengths(lengths, x.shape[0], x.shape[1])
        if 0 in sizes:
            raise DataError(
                "an empty prompt",
                where=f"prompt {sizes.index(0)}",
                expected="at least one concept",
                hint=f"a model of type {self.config.type} continues a text; it cannot begin one",
            )
        context = self.decoder.new_cache(x.shape[0], max(capacity or 0, x.shape[1]))
        hidden = self.decoder.prefill(x, sizes, context)
        rows, ends = torch.arange(x.shape[0], device=x.device), torch.tensor(sizes, device=x.device) - 1
        last = hidden[rows, ends]
        state = self.output_proj(last).float()
        if self.copying is None:
            return StateCache(context, state)
        copied = self.copying.new_cache(x.shape[0], context.capacity)
        return StateCache(context, state + self.copying.prefill(hidden, last, x, sizes, copied), copied)

    def extend(self, cache: StateCache, x: Tensor) -> None:
        """Read one more concept of each row, (B, C) normalised; ``cache.state`` then predicts the one after it."""
        hidden = self.decoder.step(x, cache.context)
        cache.state = self.output_proj(hidden).float()
        if self.copying is not None:
            assert cache.copied is not None
            cache.state = cache.state + self.copying.step(hidden, x, cache.copied)

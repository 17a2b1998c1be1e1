"""The causal stack that the models share, and the settings of its style.

Two styles are in use. ``recipe`` is that of the published 1.6B and 7B models: RMSNorm, SwiGLU, rotary positions, a
bias on the attention output. ``toy`` is that of the reference implementation's small ones: LayerNorm, ReLU, learned
positions, no output bias. Both normalise before each branch. Shape letters: B batch, S concepts, C concept
dimension, D width, K head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.nn.attention import Rope, SelfAttention
from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear
from largeconcept.nn.mlp import Mlp, MlpStyle
from largeconcept.nn.norms import Norm, NormStyle
from largeconcept.nn.positions import LearnedPositions, PositionStyle, sine_positions
from largeconcept.nn.rope import rope_table

TOY_STYLE: dict[str, Any] = {
    "norm": "layer",
    "mlp": "relu",
    "positions": "learned",
    "attention_output_bias": False,
    "final_dropout": 0.1,
}


class StackConfig(Config):
    """Sizes and style of a transformer; the defaults are the ``recipe`` style.

    Attributes:
        model_dim: D.
        num_heads: attention heads; must divide ``model_dim``.
        ffn_dim: inner width of the MLP before the gated MLP's two-thirds rule; ``None`` for 4 ``model_dim``.
        norm: ``rms`` or ``layer`` (or LayerNorm without bias, without both).
        mlp: ``swiglu`` or ``relu``.
        positions: ``rope``, ``learned``, ``sine`` or ``none``; a two-tower's denoiser never has positions.
        rope_theta: base of the rotary angles.
        max_positions: size of the learned table; no limit in the other styles.
        attention_output_bias: whether the attention output has a bias.
        dropout: on the output of every branch.
        final_dropout: after the final norm.
        attention_dropout: on attention weights.
    """

    model_dim: int = Field(default=2048, ge=1)
    num_heads: int = Field(default=16, ge=1)
    ffn_dim: int | None = Field(default=None, ge=1)
    norm: NormStyle = "rms"
    mlp: MlpStyle = "swiglu"
    positions: PositionStyle = "rope"
    rope_theta: float = Field(default=10_000.0, gt=0)
    max_positions: int = Field(default=4096, ge=1)
    attention_output_bias: bool = True
    dropout: float = Field(default=0.1, ge=0, lt=1)
    final_dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        derived = self.head_dim == self.model_dim // self.num_heads  # a family may set the head dimension apart
        if derived and self.model_dim % self.num_heads:
            raise ValueError(f"model_dim {self.model_dim} is not a multiple of num_heads {self.num_heads}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head dimension, got {self.head_dim}")
        if self.positions == "sine" and self.model_dim % 2:
            raise ValueError(f"sine positions need an even model_dim, got {self.model_dim}")
        return self

    @property
    def head_dim(self) -> int:
        """K, channels of a head."""
        return self.model_dim // self.num_heads

    @property
    def inner_dim(self) -> int:
        """``ffn_dim`` with its default filled in."""
        return 4 * self.model_dim if self.ffn_dim is None else self.ffn_dim


class TransformerConfig(StackConfig):
    """Sizes and style of a transformer over concepts.

    Attributes:
        concept_dim: C, channels of a concept.
    """

    concept_dim: int = Field(default=1024, ge=1)


class DecoderLayer(nn.Module):
    """``x += attention(norm(x))``, then ``x += mlp(norm(x))``."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.model_dim, config.norm)
        self.attention = SelfAttention(
            config.model_dim,
            config.num_heads,
            output_bias=config.attention_output_bias,
            dropout=config.attention_dropout,
            head_dim=config.head_dim,
        )
        self.mlp_norm = Norm(config.model_dim, config.norm)
        self.mlp = Mlp(config.model_dim, config.inner_dim, config.mlp)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rope: Rope | None, cache: KVCache | None = None, index: int = 0) -> Tensor:
        """Map (B, S, D) to (B, S, D); see :meth:`SelfAttention.forward`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rope, cache, index))
        out: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return out

    def step(self, x: Tensor, rope: Rope | None, cache: KVCache, index: int) -> Tensor:
        """Map the newest concept of each row, (B, 1, D), to (B, 1, D); see :meth:`SelfAttention.step`."""
        x = x + self.attention.step(self.attention_norm(x), cache, index, rope)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out

    def branch(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rope: Rope | None) -> Tensor:
        """Map (B, T, D) to (B, T, D) without dropout; see :meth:`SelfAttention.branch`."""
        x = x + self.attention.branch(self.attention_norm(x), keys, values, mask, rope)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class CausalStack(nn.Module):
    """Vectors of width D in, hidden states out: positions, ``num_layers`` layers, a final norm.

    Args:
        config: sizes and style.
        num_layers: number of layers.
        position_std: standard deviation of the learned positions at the start (0.006 for the Base-LCM, 1 for the
            two-tower's contextualizer, as in the reference implementation).
    """

    def __init__(self, config: StackConfig, num_layers: int, position_std: float) -> None:
        super().__init__()
        self._build(config, num_layers, position_std)

    def _build(self, config: StackConfig, num_layers: int, position_std: float) -> None:
        self.config = config
        self.positions = (
            LearnedPositions(config.max_positions, config.model_dim, position_std)
            if config.positions == "learned"
            else None
        )
        layers = nn.ModuleList(DecoderLayer(config) for _ in range(num_layers))
        self.layers = cast("Sequence[DecoderLayer]", layers)
        self.norm = Norm(config.model_dim, config.norm)
        self.final_dropout = nn.Dropout(config.final_dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Map (B, S, ·) to (B, S, D) in the type of the weights; position i sees inputs 0..i.

        With right padding the outputs at real positions do not depend on what the padding holds, as long as it is
        finite. A ``cache`` is filled with keys and values of all S positions; its caller then sets the real lengths.
        """
        positions = torch.arange(x.shape[1], device=x.device)
        h, rope = self._embed(x, positions, last=x.shape[1] - 1)
        for index, layer in enumerate(self.layers):
            h = layer(h, rope, cache, index)
        out: Tensor = self.final_dropout(self.norm(h))
        return out

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for ``batch`` rows of up to ``capacity`` inputs."""
        config = self.config
        return KVCache(len(self.layers), batch, config.num_heads, config.head_dim, capacity, self._like)

    def prefill(self, x: Tensor, lengths: Sequence[int], cache: KVCache) -> Tensor:
        """Read right-padded prompts (B, S, ·) into ``cache``; return (B, S, D)."""
        hidden = self(x, cache)
        cache.set_lengths(lengths)
        out: Tensor = hidden
        return out

    def step(self, x: Tensor, cache: KVCache) -> Tensor:
        """Read one more input of each row, (B, ·), at the row's own position; return its hidden state (B, D)."""
        places, last = cache.lengths, cache.size
        equal = min(places) == last
        positions = torch.tensor(places[:1] if equal else places, device=x.device).view(-1, 1)
        cache.begin()
        h, rope = self._embed(x.unsqueeze(1), positions, last)
        for index, layer in enumerate(self.layers):
            h = layer.step(h, rope, cache, index)
        out: Tensor = self.norm(h).squeeze(1)
        return out

    def branch(self, x: Tensor, cache: KVCache, rows: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Go on in several ways from what was read once; the cache stays as it is.

        Args:
            x: (R, T, ·), padded on the right.
            cache: of B rows.
            rows: R numbers of rows of the cache.
            lengths: how many of that row's entries each of the R sees before its own.

        Returns:
            (R, T, D) hidden states, without dropout.
        """
        longest, size = max(lengths), x.shape[1]
        before = torch.tensor(list(lengths), device=x.device).unsqueeze(1)
        positions, last = before + torch.arange(size, device=x.device), longest + size - 1
        if self.positions is not None:  # of padding there may be more than there are positions
            last = min(last, self.positions.weight.shape[0] - 1)
            positions = positions.clamp(max=last)
        seen = (torch.arange(longest, device=x.device) < before)[:, None, None].expand(-1, -1, size, -1)
        own = torch.ones(size, size, dtype=torch.bool, device=x.device).tril().expand(len(seen), 1, -1, -1)
        mask, index = torch.cat((seen, own), dim=-1), torch.tensor(list(rows), device=x.device)
        h, rope = self._embed(x, positions, last)
        for layer, block in enumerate(self.layers):
            keys, values = cache.view(layer)
            h = block.branch(h, keys[index, :, :longest], values[index, :, :longest], mask, rope)
        out: Tensor = self.norm(h)
        return out

    def _embed(self, x: Tensor, positions: Tensor, last: int) -> tuple[Tensor, Rope | None]:
        """Return the input (B, S, D) and the rotary table; ``positions`` is (S,), or (B or 1, 1 or S)."""
        config = self.config
        h = self._input(x)
        if self.positions is not None:
            h = h + self.positions(positions, last)
        elif config.positions == "sine":
            h = (h.float() + sine_positions(positions, config.model_dim)).to(h.dtype)
        if config.positions != "rope":
            return h, None
        cosines, sines = rope_table(positions, config.head_dim, config.rope_theta)
        return h, (cosines.unsqueeze(-2), sines.unsqueeze(-2))

    def _input(self, x: Tensor) -> Tensor:
        return x.to(self._like.dtype)

    @property
    def _like(self) -> Tensor:
        """A weight whose type and device are those of the stack."""
        return self.layers[0].attention.output_proj.weight


class CausalDecoder(CausalStack):
    """Concepts in, hidden states out: a linear from C to D in front of a :class:`CausalStack`.

    Args:
        config: sizes and style.
        num_layers: number of layers.
        position_std: see :class:`CausalStack`.
    """

    def __init__(self, config: TransformerConfig, num_layers: int, position_std: float) -> None:
        nn.Module.__init__(self)
        self.input_proj = Linear(config.concept_dim, config.model_dim)  # the first of the weights
        self._build(config, num_layers, position_std)

    def _input(self, x: Tensor) -> Tensor:
        h: Tensor = self.input_proj(x.to(self.input_proj.weight.dtype))
        return h

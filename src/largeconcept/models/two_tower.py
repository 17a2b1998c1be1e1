"""Two-tower diffusion LCM (arXiv:2412.08821, §2.3.3 and figure 5): a contextualizer that reads, a denoiser that writes.

The contextualizer is a causal transformer over clean normalised concepts, ``c = norm(Layer_N(… Linear(x)))``. The
denoiser turns a noisy concept ``x_t`` at timestep t into a prediction of the clean one (or of its noise, see
``prediction_type``) with layers

    h += gate · f(norm(h) · (1 + scale) + shift)        f: self-attention, cross-attention, MLP

where shift, scale and gate come from t (adaptive layer norm, zero at the start: :mod:`largeconcept.nn.adaln`).
Self-attention sees its own position only. Cross-attention sees a zero vector in front of the context, then the
context: in training row i sees the zero vector and c_0 … c_{i-1}, so all concepts of a document are denoised in
parallel; a row without context, for classifier-free guidance, sees the zero vector alone, whose value is a constant.

Generation never computes anything twice: the context's keys and values are projected once per concept and layer
(:class:`TwoTowerCache`), and what depends on the timestep alone is computed once per schedule (:class:`DenoisingPlan`).

Shape letters: B batch, S concepts, T noisy rows, C concept dimension, D width, H heads, K head dimension, L keys, N
steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.diffusion.parameterization import PredictionType
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.models.checks import as_lengths, check_concepts, check_denoising
from largeconcept.nn.adaln import NUM_CHUNKS, Modulator, modulate
from largeconcept.nn.attention import CrossAttention, PositionwiseAttention
from largeconcept.nn.decoder import TOY_STYLE, CausalDecoder, TransformerConfig
from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear, PackedLinear
from largeconcept.nn.masks import shifted_causal_mask
from largeconcept.nn.mlp import Mlp
from largeconcept.nn.norms import ModulatedNorm, Norm
from largeconcept.nn.timestep import TimestepEmbedding

POSITION_STD = 1.0


class TowersConfig(TransformerConfig):
    """Sizes and style of a contextualizer and a denoiser; the defaults are the paper's 1.6B model.

    Attributes:
        num_context_layers: layers of the contextualizer.
        num_denoiser_layers: layers of the denoiser.
    """

    num_context_layers: int = Field(default=5, ge=1)
    num_denoiser_layers: int = Field(default=13, ge=1)


class TwoTowerConfig(TowersConfig):
    """Configuration of a two-tower diffusion model; the defaults are the paper's 1.6B model.

    Attributes:
        prediction_type: what the denoiser's output means: ``x_0``, ``eps`` or ``v``.
        noise_schedule: the schedule of training; generation uses it too.
    """

    type: Literal["two_tower"] = "two_tower"
    prediction_type: PredictionType = "x_0"
    noise_schedule: NoiseScheduleConfig = NoiseScheduleConfig()

    @classmethod
    def toy(cls, **settings: Any) -> TwoTowerConfig:
        """Return the reference's small style (LayerNorm, ReLU, learned positions), changed by ``settings``."""
        sizes = {
            "model_dim": 1024,
            "num_heads": 8,
            "num_context_layers": 2,
            "num_denoiser_layers": 2,
            "max_positions": 2048,
            "noise_schedule": {"num_timesteps": 1000},
        }
        return cls.from_dict({**TOY_STYLE, **sizes, **settings})


@dataclass(frozen=True, slots=True)
class CrossContext:
    """What the denoiser looks at.

    Attributes:
        keys_values: keys and values (B, H, L, K) of each layer; entry 0 is the zero vector's.
        mask: boolean, broadcastable to (B, H, T, L), ``True`` is visible; ``None`` when all is visible or
            ``is_causal``.
        is_causal: row i sees entries 0..i.
    """

    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None
    is_causal: bool = False


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What one denoiser layer needs at N fixed timesteps.

    Attributes:
        norms: for each step, three: the norms with their modulation folded in.
        gates: for each step, three (D,).
        unconditional: for each step, (D,): what cross-attention adds when only the zero vector is seen, gate included.
        attention: the self-attention, as one linear or as two.
        query, output, inner, down: the linears of cross-attention and MLP as they are now.
    """

    norms: list[tuple[ModulatedNorm, ...]]
    gates: list[tuple[Tensor, ...]]
    unconditional: tuple[Tensor, ...]
    attention: tuple[PackedLinear, ...]
    query: PackedLinear
    output: PackedLinear
    inner: PackedLinear
    down: PackedLinear


@dataclass(frozen=True, slots=True)
class DenoisingPlan:
    """All that depends on the timesteps alone, computed once per schedule; it goes stale when the weights change."""

    timesteps: Sequence[float]
    layers: list[LayerPlan]


class DenoiserLayer(nn.Module):
    """Self-attention over one position, cross-attention, MLP, each with a modulated norm and a gate."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim, bias = config.model_dim, config.attention_output_bias
        self.attention_norm = Norm(dim, config.norm)
        self.attention = PositionwiseAttention(dim, output_bias=bias)
        self.cross_attention_norm = Norm(dim, config.norm)
        self.cross_attention = CrossAttention(dim, config.num_heads, output_bias=bias, dropout=config.attention_dropout)
        self.mlp_norm = Norm(dim, config.norm)
        self.mlp = Mlp(dim, config.inner_dim, config.mlp)
        self.modulator = Modulator(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        timesteps: Tensor | None,
        context: Tensor,
        mask: Tensor | None = None,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D) in training.

        Args:
            x: hidden states of the noisy rows.
            time: timestep embeddings, (B, T, D) for each row, or (N, D) for each timestep when ``timesteps`` is given.
            timesteps: (B, T) which of the N embeddings each row has: the modulator then runs N times, and rows gather.
            context: (B, L, D), the zero vector first.
            mask: boolean (B, 1, T, L), ``True`` is visible; without one row i sees vectors 0..i.
            unconditional: (B, T) boolean, rows that see the zero vector alone.
        """
        modulation = self.modulator(time)
        if timesteps is not None:
            modulation = F.embedding(timesteps, modulation)
        shift, scale, gate, cross_shift, cross_scale, cross_gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(
            NUM_CHUNKS, dim=-1
        )
        x = x + gate * self.dropout(self.attention(modulate(self.attention_norm(x), shift, scale)))
        keys, values = self.cross_attention.keys_values(context)
        y = modulate(self.cross_attention_norm(x), cross_shift, cross_scale)
        y = self.cross_attention(y, keys, values, mask, is_causal=mask is None)
        if unconditional is not None:
            # A softmax over the zero vector alone is 1, so the result is that vector's value, whatever the query.
            constant = values[:, :, :1].transpose(1, 2).flatten(2)
            y = torch.where(unconditional.unsqueeze(-1), constant, y)
        x = x + cross_gate * self.dropout(self.cross_attention.output_proj(y))
        out: Tensor = x + mlp_gate * self.dropout(self.mlp(modulate(self.mlp_norm(x), mlp_shift, mlp_scale)))
        return out

    def plan(self, timestep_embedding: Tensor, fold: bool) -> LayerPlan:
        """Compute what the layer needs at the timesteps with embeddings (N, D)."""
        table = self.modulator(timestep_embedding).unflatten(-1, (3, 3, -1))
        shift, scale, gate = table.unbind(2)
        blocks = (self.attention_norm, self.cross_attention_norm, self.mlp_norm)
        folded = [
            ModulatedNorm.table(norm.style, *norm.modulated(scale[:, i], shift[:, i])) for i, norm in enumerate(blocks)
        ]
        _, value = self.cross_attention.zero_key_value()
        unconditional = gate[:, 1] * self.cross_attention.output_proj(value.flatten())
        return LayerPlan(
            norms=list(zip(*folded, strict=True)),
            gates=[g.unbind(0) for g in gate],
            unconditional=unconditional.unbind(0),
            attention=(
                (PackedLinear(*self.attention.folded()),)
                if fold
                else (self.attention.v_proj.packed(), self.attention.output_proj.packed())
            ),
            query=self.cross_attention.q_proj.packed(),
            output=self.cross_attention.output_proj.packed(),
            inner=self.mlp.inner_proj.packed(),
            down=self.mlp.output_proj.packed(),
        )

    def step(
        self, x: Tensor, plan: LayerPlan, n: int, keys_values: tuple[Tensor, Tensor], context: CrossContext, rows: int
    ) -> Tensor:
        """Map (R, D) to (R, D) at step ``n`` of the plan; the first ``rows`` (B T) see the context, the others none.

        Called for every layer, step and concept, on few rows: what counts here is the number of operations.
        """
        keys, values = keys_values
        batch, heads = keys.shape[0], keys.shape[1]
        gates, (first, second, third) = plan.gates[n], plan.norms[n]
        y = first(x)
        for linear in plan.attention:
            y = linear(y)
        x = torch.addcmul(x, gates[0], y)
        guided = x.shape[0] != rows
        seeing = x[:rows] if guided else x
        q = plan.query(second(seeing)).view(batch, -1, heads, keys.shape[-1]).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=context.mask, is_causal=context.is_causal)
        seeing = torch.addcmul(seeing, gates[1], plan.output(y.transpose(1, 2).reshape(seeing.shape)))
        x = torch.cat((seeing, x[rows:] + plan.unconditional[n])) if guided else seeing
        y = plan.inner(third(x))
        if self.mlp.gated:
            gate, inner = y.chunk(2, dim=-1)
            y = F.silu(gate) * inner
        else:
            y = F.relu(y)
        return torch.addcmul(x, gates[2], plan.down(y))


class DenoiserTower(nn.Module):
    """What denoisers are made of, and the context as they see it.

    Args:
        config: sizes and style; positions are not used.
    """

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.embed_time = TimestepEmbedding(config.model_dim)
        self.input_proj = Linear(config.concept_dim, config.model_dim)
        layers = nn.ModuleList(DenoiserLayer(config) for _ in range(config.num_denoiser_layers))
        self.layers = cast("Sequence[DenoiserLayer]", layers)
        self.norm = Norm(config.model_dim, config.norm)
        self.final_dropout = nn.Dropout(config.final_dropout)
        self.output_proj = Linear(config.model_dim, config.concept_dim)

    def project_context(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Put the zero vector in front of (B, S, D) and return keys and values (B, H, S+1, K) of each layer."""
        padded = F.pad(context, (0, 0, 1, 0))
        return [layer.cross_attention.keys_values(padded) for layer in self.layers]

    def _run(
        self, x: Tensor, plan: DenoisingPlan, n: int, context: CrossContext, like: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the layers at the plan's n-th time over embedded rows (B T, D), or (2 B T, D) to guide.

        Returns:
            (B, T, C) float32 as ``like``, one with the context and, to guide, one without it.
        """
        rows = like.shape[0] * like.shape[1]
        for index, layer in enumerate(self.layers):
            x = layer.step(x, plan.layers[index], n, context.keys_values[index], context, rows)
        out: Tensor = self.output_proj(self.norm(x)).float()
        if x.shape[0] == rows:
            return out.view(like.shape)
        with_context, without = out.chunk(2)
        return with_context.view(like.shape), without.view(like.shape)


class Denoiser(DenoiserTower):
    """Noisy concepts at integer timesteps and a context in, predictions out.

    Args:
        config: sizes and style, and the noise schedule.
    """

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config)
        self.config = config

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, T, C) float32 from noisy concepts (B, T, C) at timesteps (B, T) and a context (B, S, D).

        ``mask`` and ``unconditional`` as in :meth:`DenoiserLayer.forward`, with L = S + 1.
        """
        x = self.input_proj(noisy.to(self.input_proj.weight.dtype))
        padded = F.pad(context, (0, 0, 1, 0))
        total = self.config.noise_schedule.num_timesteps
        # With more rows than timesteps, modulators run once per timestep and rows gather: a third less work.
        gather = timesteps if timesteps.numel() > total else None
        time = self.embed_time(timesteps if gather is None else torch.arange(total, device=timesteps.device))
        for layer in self.layers:
            x = layer(x, time, gather, padded, mask, unconditional)
        out: Tensor = self.output_proj(self.final_dropout(self.norm(x)))
        return out.float()

    def plan(self, timesteps: Sequence[int], *, fold: bool = False) -> DenoisingPlan:
        """Compute what generation needs at these timesteps.

        Args:
            timesteps: N timesteps, in the order in which :meth:`step` will name them.
            fold: merge each self-attention's two linears into one: D³ work once, D² less for every vector and step.
        """
        device = self.input_proj.weight.device
        embedded = self.embed_time(torch.tensor(list(timesteps), device=device))
        return DenoisingPlan(list(timesteps), [layer.plan(embedded, fold) for layer in self.layers])

    def step(
        self, plan: DenoisingPlan, n: int, noisy: Tensor, context: CrossContext, *, guided: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Denoise (B, T, C) at the plan's n-th timestep, the same for all rows; no dropout, whatever the mode.

        Returns:
            (B, T, C) float32 with the context; with ``guided`` also the one without it.
        """
        x = self.input_proj(noisy.to(self.input_proj.weight.dtype)).flatten(0, 1)
        return self._run(torch.cat((x, x)) if guided else x, plan, n, context, noisy)


class TwoTowerCache:
    """What a two-tower model remembers of B documents, each with its own length.

    Attributes:
        context: the contextualizer's keys and values of the concepts read.
        cross: the denoiser's keys and values of their contexts; entry 0 is the zero vector's.
    """

    def __init__(self, context: KVCache, cross: KVCache) -> None:
        self.context = context
        self.cross = cross

    @property
    def lengths(self) -> list[int]:
        """Number of concepts read, of each row."""
        return self.context.lengths

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        self.context.select(rows)
        self.cross.select(rows)

    def join(self, other: TwoTowerCache) -> None:
        """Take the rows of another cache after one's own."""
        self.context.join(other.context)
        self.cross.join(other.cross)

    def cross_context(self) -> CrossContext:
        """Return what the next concept's denoising looks at: everything read."""
        views = [self.cross.view(layer) for layer in range(len(self.cross.keys))]
        return CrossContext(views, self.cross.mask)


class TwoTowers(nn.Module):
    """A contextualizer and a denoiser of any kind: reading, and what was read as the denoiser sees it.

    Args:
        config: sizes and style.
    """

    denoiser: DenoiserTower

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.config = config
        self.contextualizer = CausalDecoder(config, config.num_context_layers, POSITION_STD)

    def contextualize(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map clean normalised concepts (B, S, C) to (B, S, D); position i sees concepts 0..i.

        ``lengths`` is taken so that all families are called alike: padding on the right never reaches a real position.
        """
        check_concepts(x, self.config.concept_dim, "x")
        out: Tensor = self.contextualizer(x)
        return out

    def training_context(
        self, x: Tensor, rows: int, source_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, L, D) of ``rows`` noisy rows of documents (B, S, C), and its mask.

        Row i sees concepts 0..i-1, or, with ``source_lengths`` (B,), concepts 0..source+i-1. Without a mask, row i sees
        the zero vector and the first i vectors of the context.
        """
        if source_lengths is None:
            return self._context_of_all_but_last(x), None
        return self.contextualizer(x), shifted_causal_mask(rows, x.shape[1] + 1, source_lengths)

    def teacher_forced_context(self, x: Tensor) -> CrossContext:
        """Return the context in which row i of (B, S, C) sees concepts 0..i-1, projected once for all steps."""
        check_concepts(x, self.config.concept_dim, "x")
        return CrossContext(self.denoiser.project_context(self._context_of_all_but_last(x)), is_causal=True)

    def prefill(
        self, x: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> TwoTowerCache:
        """Read right-padded prompts (B, S, C), each to its own length (0 is allowed), with room for ``capacity``
        concepts.

        Raises:
            DataError: a wrong shape, or lengths that do not fit it.
        """
        check_concepts(x, self.config.concept_dim, "prompt", allow_empty=True)
        batch, size = x.shape[:2]
        sizes, room = as_lengths(lengths, batch, size), max(capacity or 0, size)
        cache = TwoTowerCache(self.contextualizer.new_cache(batch, room), self._new_cross_cache(batch, room + 1))
        if size:
            context = self.contextualizer.prefill(x, sizes, cache.context)
        else:
            context = self.contextualizer.input_proj.weight.new_zeros(batch, 0, self.config.model_dim)
        for index, (keys, values) in enumerate(self.denoiser.project_context(context)):
            cache.cross.fill(index, keys, values)
        cache.cross.set_lengths([n + 1 for n in sizes])
        return cache

    def extend(self, cache: TwoTowerCache, x: Tensor) -> None:
        """Read one more concept of each row, (B, C) normalised."""
        context = self.contextualizer.step(x, cache.context).unsqueeze(1)
        cache.cross.begin()
        for index, layer in enumerate(self.denoiser.layers):
            keys, values = layer.cross_attention.keys_values(context)
            cache.cross.append(index, keys.squeeze(2), values.squeeze(2))

    def _context_of_all_but_last(self, x: Tensor) -> Tensor:
        """Return (B, S-1, D): the last concept is nobody's context when every row is predicted from those before it."""
        size = x.shape[1] - 1
        # A single concept is still read, so that every parameter gets a gradient (zero) in every batch, as DDP expects.
        out: Tensor = self.contextualizer(x[:, : max(size, 1)])[:, :size]
        return out

    def _new_cross_cache(self, batch: int, capacity: int) -> KVCache:
        config = self.config
        like = self.denoiser.input_proj.weight
        return KVCache(config.num_denoiser_layers, batch, config.num_heads, config.head_dim, capacity, like)


class TwoTowerConceptModel(TwoTowers):
    """Contextualizer and denoiser.

    Args:
        config: sizes, style, noise schedule and prediction type.
    """

    config_class: ClassVar[type[Config]] = TwoTowerConfig
    config: TwoTowerConfig
    denoiser: Denoiser

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(config)

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the configuration, built when first used."""
        with torch.device("cpu"):
            return NoiseSchedule(self.config.noise_schedule)

    def forward(
        self,
        x: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
        lengths: Tensor | None = None,
        source_lengths: Tensor | None = None,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Denoise all concepts of each document in parallel, each given the clean ones before it.

        Args:
            x: (B, S, C) clean normalised concepts, padded on the right with anything finite.
            noisy: (B, T, C) noisy concepts; T = S, or with ``source_lengths`` the targets alone, aligned to the left.
            timesteps: (B, T) integers, one for each noisy concept.
            lengths: (B,); taken so that all families are called alike.
            source_lengths: (B,) number of leading concepts that are context only; noisy row j is then concept source
                + j.
            unconditional: (B, T) boolean, rows that see no context at all (classifier-free guidance training).

        Returns:
            (B, T, C) float32, of the kind that ``prediction_type`` says. Values at padding are finite but mean nothing.

        Raises:
            DataError: shapes or types do not fit together, or a document longer than the learned positions.
        """
        check_denoising(self.config.concept_dim, x, noisy, timesteps, source_lengths, unconditional)
        context, mask = self.training_context(x, noisy.shape[1], source_lengths)
        out: Tensor = self.denoiser(noisy, timesteps, context, mask, unconditional)
        return out

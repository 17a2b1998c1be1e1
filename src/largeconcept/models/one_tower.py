"""One-tower diffusion LCM (arXiv:2412.08821, §2.3.2 and figures 5 and 6): one transformer that reads and denoises.

In the paper a document becomes one sequence that holds each concept twice, clean and noisy, under a mask:

    clean concept i   sees clean concepts 0..i
    noisy concept i   sees clean concepts 0..i-1 and itself

The input of either is the concept concatenated with the embedding of its timestep, through one linear, plus the
learned position i, which both copies share:

    h = W [x ; e(t)] + b + p_i = (W_x x + b) + W_t e(t) + p_i

A clean concept has timestep -1, the state before timestep 0: no noise at all. A noisy row trained without context,
for classifier-free guidance, sees itself alone.

Since no clean concept sees a noisy one, the sequence is never built: the clean stream runs by itself and leaves its
keys and values (:meth:`OneTowerConceptModel.read`), and the noisy rows, through the same weights, look at them
(:meth:`OneTowerConceptModel.denoise`). That is the same function at half the attention, and in generation a concept
read once is never read again.

Note: the paper gives layers, width, heads and the inner width of the MLP, but neither norm nor activation; they are
those of its other models. The gated MLP has two thirds of the inner width, hence the parameters of a plain one.

Shape letters: B batch, S concepts, T noisy rows, C concept dimension, D width, H heads, K head dimension, L keys, N
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from largeconcept.config import Config
from largeconcept.diffusion.parameterization import PredictionType
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.models.checks import as_lengths, check_concepts, check_denoising
from largeconcept.nn.attention import Rope
from largeconcept.nn.decoder import CausalDecoder, DecoderLayer, TransformerConfig
from largeconcept.nn.kv_cache import KVCache
from largeconcept.nn.linear import Linear
from largeconcept.nn.masks import shifted_causal_mask
from largeconcept.nn.positions import PositionStyle
from largeconcept.nn.timestep import TimestepEmbedding

POSITION_STD = 0.006
CLEAN = -1  # the timestep of a clean concept


class OneTowerConfig(TransformerConfig):
    """Configuration of a one-tower model; the defaults are the paper's 1.6B model.

    Attributes:
        num_layers: number of layers.
        prediction_type: what the output means: ``x_0``, ``eps`` or ``v``.
        noise_schedule: the schedule of training; generation uses it too.
    """

    type: Literal["one_tower"] = "one_tower"
    num_layers: int = Field(default=32, ge=1)
    num_heads: int = Field(default=32, ge=1)
    positions: PositionStyle = "learned"
    prediction_type: PredictionType = "x_0"
    noise_schedule: NoiseScheduleConfig = NoiseScheduleConfig()


@dataclass(frozen=True, slots=True)
class CleanContext:
    """The clean concepts as noisy rows see them.

    Attributes:
        keys_values: keys and values (B, H, L, K) of each layer.
        mask: boolean, broadcastable to (B, 1, T, L), ``True`` is visible; ``None`` when all is visible.
        positions: of the noisy rows: (T,), or (B or 1, T).
        last: the largest of ``positions``, known on the host.
    """

    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor | None
    positions: Tensor
    last: int


class OneTowerStack(CausalDecoder):
    """The causal stack of the clean stream, whose input also holds the timestep.

    Args:
        config: sizes and style.
        num_layers: number of layers.
        time_embedding: makes, for a width D, the module that maps integer timesteps (…,) to (…, D).
        clean: the timestep of a clean concept.
    """

    def __init__(
        self, config: TransformerConfig, num_layers: int, time_embedding: Callable[[int], nn.Module], clean: int
    ) -> None:
        super().__init__(config, num_layers, POSITION_STD)
        self.clean = clean
        self.embed_time = time_embedding(config.model_dim)
        # W_t of the linear that takes concept and timestep together; `input_proj` is its W_x and bias.
        self.time_proj = Linear(config.model_dim, config.model_dim, bias=False)

    def time(self, timesteps: Tensor) -> Tensor:
        """Map timesteps (…,) to what they add to the input, (…, D)."""
        out: Tensor = self.time_proj(self.embed_time(timesteps))
        return out

    def embed_noisy(self, noisy: Tensor, time: Tensor, positions: Tensor, last: int) -> tuple[Tensor, Rope | None]:
        """Return the input (B, T, D) of noisy concepts, and the rotary table of their positions."""
        h, rope = super()._embed(noisy, positions, last)
        return h + time, rope

    def _embed(self, x: Tensor, positions: Tensor, last: int) -> tuple[Tensor, Rope | None]:
        clean = torch.full((1,), self.clean, device=x.device)
        return self.embed_noisy(x, self.time(clean), positions, last)


class OneTowerCache:
    """What a one-tower model remembers of B documents.

    Attributes:
        context: keys and values of the clean concepts read.
    """

    def __init__(self, context: KVCache) -> None:
        self.context = context

    @property
    def lengths(self) -> list[int]:
        """Number of concepts read, of each row."""
        return self.context.lengths

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        self.context.select(rows)

    def join(self, other: OneTowerCache) -> None:
        """Put the rows of another cache behind one's own."""
        self.context.join(other.context)

    def clean_context(self) -> CleanContext:
        """Return what the next concept's denoising looks at: everything read."""
        views = [self.context.view(layer) for layer in range(len(self.context.keys))]
        positions = torch.tensor(self.lengths, device=views[0][0].device).unsqueeze(1)
        return CleanContext(views, self.context.mask, positions, self.context.size)


class OneTower(nn.Module):
    """One transformer for clean and noisy concepts, whatever the noise and whatever it says about them.

    Args:
        config: sizes and style.
        decoder: the transformer.
        num_outputs: numbers that it gives for each noisy concept.
    """

    writes_at_positions: ClassVar[bool] = True  # noisy concepts have positions too

    def __init__(self, config: TransformerConfig, decoder: OneTowerStack, num_outputs: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.output_proj = Linear(config.model_dim, num_outputs)
        self._dim = config.concept_dim
        self._attention_dropout = config.attention_dropout

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
            unconditional: (B, T) boolean, rows that see themselves alone (classifier-free guidance training).

        Returns:
            The outputs, (B, T, C) float32 for a diffusion model. Values at padding are finite but mean nothing.

        Raises:
            DataError: shapes or types do not fit together, or a document longer than the learned positions.
        """
        check_denoising(self._dim, x, noisy, timesteps, source_lengths, unconditional)
        size, rows = x.shape[1], noisy.shape[1]
        if source_lengths is None:
            context = self.teacher_forced_context(x)
            mask, positions = context.mask, context.positions
            keys_values = context.keys_values
        else:
            keys_values = self.read(x)
            # The mask of a two-tower without the column of its zero vector.
            mask = shifted_causal_mask(rows, size + 1, source_lengths)[..., 1:]
            positions = source_lengths.unsqueeze(1) + torch.arange(rows, device=x.device)
            positions = positions.clamp(max=size - 1)  # rows of padding
        if unconditional is not None:
            assert mask is not None
            mask = mask & ~unconditional[:, None, :, None]
        out = self.denoise(noisy, self.decoder.time(timesteps), CleanContext(keys_values, mask, positions, size - 1))
        assert isinstance(out, Tensor)
        return out

    def read(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Run the clean stream over (B, S, C); return keys and values (B, H, S, K) of each layer.

        Position i sees concepts 0..i. The last layer's own output is nobody's input and is left out.
        """
        if not x.shape[1]:
            config = self.decoder.config
            empty = self.output_proj.weight.new_zeros(x.shape[0], config.num_heads, 0, config.head_dim)
            return [(empty, empty)] * len(self.decoder.layers)
        h, rope = self.decoder._embed(x, torch.arange(x.shape[1], device=x.device), x.shape[1] - 1)
        p = self._attention_dropout if self.training else 0.0
        found: list[tuple[Tensor, Tensor]] = []
        for layer in self.decoder.layers:
            q, k, v = layer.attention.heads(layer.attention_norm(h), rope)
            found.append((k, v))
            if len(found) < len(self.decoder.layers):
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
                h = _finish_layer(layer, h, y)
        return found

    def denoise(
        self, noisy: Tensor, time: Tensor, context: CleanContext, *, guided: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Denoise (B, T, C).

        Args:
            noisy: noisy concepts.
            time: what their timesteps add to the input: :meth:`OneTowerStack.time`, broadcastable to (B, T, D).
            context: what they look at.
            guided: also denoise them without context.

        Returns:
            The outputs, float32, with the context; with ``guided`` also those without it.
        """
        h, rope = self.decoder.embed_noisy(noisy, time, context.positions, context.last)
        batch = h.shape[0]
        if guided:
            h = torch.cat((h, h))
            if rope is not None and rope[0].ndim == 4 and rope[0].shape[0] > 1:
                rope = torch.cat((rope[0], rope[0])), torch.cat((rope[1], rope[1]))
        p = self._attention_dropout if self.training else 0.0
        for layer, (keys, values) in zip(self.decoder.layers, context.keys_values, strict=True):
            q, k, v = layer.attention.heads(layer.attention_norm(h), rope)
            y = _attend(q[:batch], k[:batch], v[:batch], keys, values, context.mask, p)
            if guided:  # a softmax over oneself alone is 1
                y = torch.cat((y, v[batch:]))
            h = _finish_layer(layer, h, y)
        out: Tensor = self.output_proj(self.decoder.final_dropout(self.decoder.norm(h))).float()
        if not guided:
            return out
        with_context, without = out.chunk(2)
        return with_context, without

    def plan(self, timesteps: Sequence[int]) -> Tensor:
        """Return (N, D), what :meth:`denoise` needs of N timesteps; it goes stale when the weights change."""
        return self.decoder.time(torch.tensor(list(timesteps), device=self.output_proj.weight.device))

    def teacher_forced_context(self, x: Tensor) -> CleanContext:
        """Return the context in which row i of (B, S, C) sees concepts 0..i-1, read once for all steps."""
        check_concepts(x, self._dim, "x")
        size = x.shape[1]
        mask = shifted_causal_mask(size, size, device=x.device)[..., 1:]
        return CleanContext(self.read(x[:, :-1]), mask, torch.arange(size, device=x.device), size - 1)

    def prefill(
        self, x: Tensor, lengths: Tensor | Sequence[int] | None = None, capacity: int | None = None
    ) -> OneTowerCache:
        """Read right-padded prompts (B, S, C), each to its own length (0 is allowed), with room for ``capacity``
        concepts.

        Raises:
            DataError: a wrong shape, or lengths that do not fit it.
        """
        check_concepts(x, self._dim, "prompt", allow_empty=True)
        sizes = as_lengths(lengths, x.shape[0], x.shape[1])
        cache = self.decoder.new_cache(x.shape[0], max(capacity or 0, x.shape[1]))
        for index, (keys, values) in enumerate(self.read(x)):
            cache.fill(index, keys, values)
        cache.set_lengths(sizes)
        return OneTowerCache(cache)

    def extend(self, cache: OneTowerCache, x: Tensor) -> None:
        """Read one more concept of each row, (B, C) normalised."""
        self.decoder.step(x, cache.context)


class OneTowerConceptModel(OneTower):
    """The diffusion model.

    Args:
        config: sizes, style, noise schedule and prediction type.
    """

    config_class: ClassVar[type[Config]] = OneTowerConfig

    def __init__(self, config: OneTowerConfig) -> None:
        decoder = OneTowerStack(config, config.num_layers, TimestepEmbedding, CLEAN)
        super().__init__(config, decoder, config.concept_dim)
        self.config = config

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the configuration, built when first used."""
        with torch.device("cpu"):
            return NoiseSchedule(self.config.noise_schedule)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Attend from T rows, each to its own key and value (B, H, T, K) and to those of a context (B, H, L, K).

    Every row has another key of its own, so the sequence of L + T keys under a mask would be mostly hidden; here the
    scores are (T, L + 1). They are float32 under a softmax, as in torch's own attention.
    """
    q = q * q.shape[-1] ** -0.5
    own, scores = (q * k).sum(dim=-1, keepdim=True), q @ keys.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.cat((own, scores), dim=-1).float().softmax(dim=-1).to(q.dtype)
    weights = F.dropout(weights, dropout, training=dropout > 0.0)
    return weights[..., :1] * v + weights[..., 1:] @ values


def _finish_layer(layer: DecoderLayer, h: Tensor, attended: Tensor) -> Tensor:
    """Return (B, T, D): ``h`` after the attention's output (B, H, T, K) and the MLP were added."""
    h = h + layer.dropout(layer.attention.output_proj(attended.transpose(1, 2).flatten(2)))
    out: Tensor = h + layer.dropout(layer.mlp(layer.mlp_norm(h)))
    return out

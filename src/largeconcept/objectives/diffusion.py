"""Two-tower diffusion LCM (arXiv:2412.08821, section 2.3.3, equation 9): denoise all concepts of a document at once.

Each concept has its own timestep; the denoiser sees the clean concepts before it. Some rows see none: classifier-free
guidance needs a model without context too.

Shape letters: B batch, S concepts, T noisy concepts (S, or the longest target of supervised data), C concept dimension,
N timesteps of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.diffusion.parameterization import PredictionType, add_noise, target, to_x_0
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.diffusion.weighting import WeightingConfig, fragility_weights, loss_weights, normalize_expected
from largeconcept.errors import ConfigError
from largeconcept.objectives.base import (
    config_of,
    masked_sum,
    noised_targets,
    normalized,
    num_noisy,
    squared_error,
    target_weights,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from largeconcept.codec.fragility import FragilityScorer
    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss


class TimestepConfig(Config):
    """How timesteps are drawn in training.

    Attributes:
        type: ``uniform``, or ``beta``: weights ``u^(a-1) (1-u)^(b-1)`` at ``u = (t + 1) / N``.
        a, b: shape of ``beta``. With b < 1 the last timestep, whose weight would be infinite, gets that of
            ``u = 1 - 1/(2N)``.
    """

    type: Literal["uniform", "beta"] = "uniform"
    a: float = Field(default=0.8, gt=0)
    b: float = Field(default=1.0, gt=0)


class DiffusionConfig(Config):
    """Settings of the diffusion objective; schedule and prediction type are the model's.

    Attributes:
        conditioning_dropout: share of noisy concepts that see no context.
        dropout_mode: ``rows`` decides for each concept by itself; ``meta`` takes exactly ``floor((T - 1) · share)`` of
            the padded positions but never the first one, the same ones for the whole unsupervised batch, as the
            reference.
        weighting: loss weight of each timestep, or of each concept by its fragility.
        timesteps: distribution of the timesteps.
        rmse: take the root of each concept's squared error.
        timestep_buckets: number of ranges of timesteps whose error is a metric of its own; 0 turns that off.

    Note: ``dropout_mode="meta"`` and ``weighting.normalize="batch"`` tie the loss of a concept to its batch.
    """

    type: Literal["diffusion"] = "diffusion"
    conditioning_dropout: float = Field(default=0.15, ge=0, le=1)
    dropout_mode: Literal["rows", "meta"] = "rows"
    weighting: WeightingConfig = WeightingConfig()
    timesteps: TimestepConfig = TimestepConfig()
    rmse: bool = False
    timestep_buckets: int = Field(default=4, ge=0, le=100)


class DiffusionObjective:
    """Squared distance of the denoiser's output from its target, in normalised space, summed over channels.

    All concepts count, the first one included; in supervised batches the target concepts. Noise, timesteps and dropped
    context follow from (seed, step, sample id, position) alone.

    Metrics: ``mse`` without weights; ``l2``, the Euclidean distance of the implied clean concept in the codec's space
    (not for models that predict noise, where the last timesteps would drown it); ``mse_t25-49`` and so on for ranges of
    timesteps.

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: DiffusionConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer
        self._schedules: dict[NoiseScheduleConfig, NoiseSchedule] = {}
        self._tables: dict[Any, Tensor] = {}
        self._scorer: FragilityScorer | None = None

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Draw timesteps, noise and dropped rows, and return the loss of a batch.

        Raises:
            ConfigError: the model is not a diffusion model, or predicts noise under a zero terminal signal.
        """
        size = num_noisy(batch)
        schedule = self._schedule(model)
        timesteps = self.draw_timesteps(rng, batch.sample_ids, size, schedule.num_timesteps)
        eps = rng.normal("noise", batch.sample_ids, (size, batch.concepts.shape[-1]))
        return self.loss(model, batch, timesteps, eps, self.draw_dropped(rng, batch, size))

    def loss(
        self, model: nn.Module, batch: ConceptBatch, timesteps: Tensor, eps: Tensor, dropped: Tensor | None = None
    ) -> Loss:
        """Return the loss for given (B, T) timesteps, (B, T, C) noise and (B, T) rows without context."""
        from largeconcept.types import Loss

        schedule, kind = self._schedule(model), self._prediction_type(model)
        x = normalized(self.normalizer, batch.concepts)
        x_0, mask = noised_targets(x, batch, timesteps.shape[1])
        alpha, sigma = schedule.alpha_sigma(timesteps)
        x_t = add_noise(x_0, eps, alpha, sigma)
        prediction = model(x, x_t, timesteps, batch.lengths, batch.source_lengths, dropped).float()
        wanted = target(x_0, eps, alpha, sigma, kind)
        error = squared_error(prediction, wanted, self.config.rmse)
        count = mask.sum().float()
        weights = self._weights(schedule, kind, timesteps, x_0, mask, count)
        weighted = error * weights * target_weights(batch, mask.shape[1])

        plain = squared_error(prediction.detach(), wanted)
        metrics = {"mse": (masked_sum(plain, mask), count)}
        if kind != "eps":
            found = self.normalizer.denormalize(to_x_0(prediction.detach(), x_t, alpha, sigma, kind))
            l2 = (found - self.normalizer.denormalize(x_0)).norm(dim=-1)
            metrics["l2"] = (masked_sum(l2, mask), count)
        metrics.update(self._buckets(plain, timesteps, mask, schedule.num_timesteps))
        return Loss(masked_sum(weighted, mask), count, metrics)

    def draw_timesteps(self, rng: StepRandom, sample_ids: Tensor, size: int, num_timesteps: int) -> Tensor:
        """Return (B, T) int64 timesteps, drawn for each concept by itself."""
        import torch

        if self.config.timesteps.type == "uniform":
            return rng.integers("timesteps", sample_ids, (size,), num_timesteps)
        cumulative = self._table(
            ("cumulative", num_timesteps), sample_ids.device, lambda: self.probabilities(num_timesteps).cumsum(0)
        )
        drawn = torch.searchsorted(cumulative, rng.uniform("timesteps", sample_ids, (size,)), right=True)
        return drawn.clamp(max=num_timesteps - 1)

    def probabilities(self, num_timesteps: int) -> Tensor:
        """Return (N,) float64, how often each timestep is drawn."""
        import torch

        u = (torch.arange(num_timesteps, dtype=torch.float64) + 1.0) / num_timesteps
        if self.config.timesteps.type == "uniform":
            weights = torch.ones_like(u)
        else:
            a, b = self.config.timesteps.a, self.config.timesteps.b
            rest = (1.0 - u).clamp(min=0.5 / num_timesteps if b < 1.0 else 0.0)
            weights = u ** (a - 1.0) * rest ** (b - 1.0)
        return weights / weights.sum()

    def draw_dropped(self, rng: StepRandom, batch: ConceptBatch, size: int) -> Tensor | None:
        """Return (B, T) bool, true where a concept sees no context; ``None`` without conditioning dropout."""
        import torch

        share, ids = self.config.conditioning_dropout, batch.sample_ids
        if share == 0.0:
            return None
        if self.config.dropout_mode == "rows":
            return rng.uniform("conditioning", ids, (size,)) < share
        number = int((size - 1) * share)
        keys = ids if batch.source_lengths is not None else torch.zeros_like(ids[:1])
        rows = rng.permutation("conditioning", keys, size - 1)[:, :number] + 1
        dropped = torch.zeros(len(keys), size, dtype=torch.bool, device=ids.device).scatter_(1, rows, True)
        return dropped.expand(len(ids), size)

    def _weights(
        self, schedule: NoiseSchedule, kind: PredictionType, timesteps: Tensor, x_0: Tensor, mask: Tensor, count: Tensor
    ) -> Tensor | float:
        config = self.config.weighting
        if config.type == "none":
            return 1.0
        if config.type == "fragility":
            weights = self._fragility_weights(x_0)
            return weights * (count / masked_sum(weights, mask)) if config.normalize == "batch" else weights

        def build() -> Tensor:
            weights = loss_weights(schedule.snr, config, kind)
            if config.normalize == "batch":
                return weights
            return normalize_expected(weights, self.probabilities(schedule.num_timesteps))

        weights = self._table((schedule.config, kind), timesteps.device, build)[timesteps]
        return weights * (count / masked_sum(weights, mask)) if config.normalize == "batch" else weights

    def _fragility_weights(self, x_0: Tensor) -> Tensor:
        """Return (B, T) weights of (B, T, C) normalised targets, divided by their mean where that is a constant."""
        import torch

        config = self.config.weighting
        if self._scorer is None:
            from largeconcept.codec.fragility import FragilityScorer

            assert config.fragility_scorer is not None
            self._scorer = FragilityScorer.from_pretrained(config.fragility_scorer)
        scorer = self._scorer.to(x_0.device)
        mean = 1.0 if config.normalize == "batch" else scorer.mean_weight(config.fragility_a, config.fragility_b)
        with torch.no_grad():
            return fragility_weights(scorer(self.normalizer.denormalize(x_0)), config) / mean

    def _buckets(
        self, error: Tensor, timesteps: Tensor, mask: Tensor, num_timesteps: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        number = min(self.config.timestep_buckets, num_timesteps)
        if not number:
            return {}
        bucket = (timesteps * number // num_timesteps).flatten()
        zeros = error.new_zeros(number)
        sums = zeros.index_add(0, bucket, error.masked_fill(~mask, 0.0).flatten())
        counts = zeros.index_add(0, bucket, mask.flatten().float())
        # Bucket k holds the timesteps t with t * number // N = k.
        edges = [-(-k * num_timesteps // number) for k in range(number + 1)]
        return {f"mse_t{edges[k]}-{edges[k + 1] - 1}": (sums[k], counts[k]) for k in range(number)}

    def _schedule(self, model: nn.Module) -> NoiseSchedule:
        config: NoiseScheduleConfig = config_of(model, "noise_schedule", "prediction_type").noise_schedule
        if config not in self._schedules:
            if self._prediction_type(model) == "eps" and config.zero_terminal_snr:
                raise ConfigError(
                    "a model that predicts noise cannot sample from a zero terminal signal",
                    where="prediction_type",
                    hint="set noise_schedule.zero_terminal_snr=false, or predict x_0 or v",
                )
            self._schedules[config] = NoiseSchedule(config)
        return self._schedules[config]

    def _prediction_type(self, model: nn.Module) -> PredictionType:
        kind: PredictionType = config_of(model, "noise_schedule", "prediction_type").prediction_type
        return kind

    def _table(self, key: Any, device: torch.device, build: Any) -> Tensor:
        """Return a float32 table on ``device``, built on the CPU once."""
        import torch

        if (key, device) not in self._tables:
            self._tables[key, device] = build().to(torch.float32).to(device)
        return self._tables[key, device]

"""Rectified flow with prediction of the data: the squared error of the velocity (:mod:`largeconcept.diffusion.flow`).

Each concept has its own time t between noise (0) and data (1); the denoiser sees the clean concepts before it. Half of
the concepts are predicted twice, the second time seeing the first prediction (self-conditioning, arXiv:2208.04202);
some see no context, for classifier-free guidance.

Shape letters: B batch, S concepts, T noisy concepts (S, or the longest target of supervised data), C concept dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.diffusion.flow import interpolate, velocity_weight
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
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss


class FlowTimeConfig(Config):
    """How times are drawn in training.

    Attributes:
        type: ``logit_normal``: the log-odds of t are normal (Esser et al., arXiv:2403.03206, §3.1); or ``uniform``.
        location: mean of the log-odds: 0 is half noise, half data; the lower, the more noise. The more channels carry
            the same information, the lower it should be.
        scale: standard deviation of the log-odds.
    """

    type: Literal["logit_normal", "uniform"] = "logit_normal"
    location: float = 0.0
    scale: float = Field(default=1.0, gt=0)


class FlowObjectiveConfig(Config):
    """Settings of the flow objective.

    Attributes:
        conditioning_dropout: share of noisy concepts that see no context.
        self_conditioning: share of noisy concepts that see a first prediction of themselves.
        times: distribution of the times.
        weighting: ``velocity``: the error of the velocity, that of the data over ``(1 - t)²``; ``data``: that of the
            data.
        min_noise: least ``1 - t`` in that weight.
    """

    type: Literal["flow"] = "flow"
    conditioning_dropout: float = Field(default=0.15, ge=0, le=1)
    self_conditioning: float = Field(default=0.5, ge=0, le=1)
    times: FlowTimeConfig = FlowTimeConfig()
    weighting: Literal["velocity", "data"] = "velocity"
    min_noise: float = Field(default=0.05, gt=0, le=1)


class FlowObjective:
    """Squared error of the predicted velocity, in normalised space, summed over channels.

    All concepts count, the first one included; in supervised batches the target concepts. Noise, times and what is
    dropped follow from (seed, step, sample id, position) alone.

    Metrics: ``mse``, the squared error of the predicted concept, and ``l2``, its Euclidean distance in the codec's
    space.

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: FlowObjectiveConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Draw times, noise and what is dropped, and return the loss of a batch.

        Raises:
            ConfigError: the model is not a flow model.
        """
        config_of(model, "self_conditioning")
        size, ids = num_noisy(batch), batch.sample_ids
        times = self.draw_times(rng, ids, size)
        eps = rng.normal("noise", ids, (size, batch.concepts.shape[-1]))
        dropped = rng.uniform("conditioning", ids, (size,)) < self.config.conditioning_dropout
        again = None
        if self.config.self_conditioning:
            again = rng.uniform("self_conditioning", ids, (size,)) < self.config.self_conditioning
        return self.loss(model, batch, times, eps, dropped, again)

    def loss(
        self,
        model: nn.Module,
        batch: ConceptBatch,
        times: Tensor,
        eps: Tensor,
        dropped: Tensor | None = None,
        self_conditioned: Tensor | None = None,
    ) -> Loss:
        """Return the loss for given (B, T) times, (B, T, C) noise, and (B, T) rows without context or seen twice."""
        from largeconcept.types import Loss

        x = normalized(self.normalizer, batch.concepts)
        clean, mask = noised_targets(x, batch, times.shape[1])
        noisy = interpolate(clean, eps, times.unsqueeze(-1))
        prediction = model(
            x, noisy, times, batch.lengths, batch.source_lengths, dropped, self_conditioned=self_conditioned
        ).float()
        error, count = squared_error(prediction, clean), mask.sum().float()
        weighted = error * target_weights(batch, mask.shape[1])
        if self.config.weighting == "velocity":
            weighted = weighted * velocity_weight(times, self.config.min_noise)
        found = self.normalizer.denormalize(prediction.detach())
        l2 = (found - self.normalizer.denormalize(clean)).norm(dim=-1)
        metrics = {"mse": (masked_sum(error.detach(), mask), count), "l2": (masked_sum(l2, mask), count)}
        return Loss(masked_sum(weighted, mask), count, metrics)

    def draw_times(self, rng: StepRandom, sample_ids: Tensor, size: int) -> Tensor:
        """Return (B, T) float32 times, drawn for each concept by itself."""
        config = self.config.times
        if config.type == "uniform":
            return rng.uniform("times", sample_ids, (size,))
        return (config.location + config.scale * rng.normal("times", sample_ids, (size, 1)).squeeze(-1)).sigmoid()

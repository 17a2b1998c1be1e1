"""Generation with a flow model: Euler or Heun from noise to data (:mod:`largeconcept.diffusion.flow`).

Shape letters: B batch, S concepts, C concept dimension, T rows denoised together.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from largeconcept.diffusion.flow import flow_sample, flow_times
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, noise_block
from largeconcept.models.flow import FlowConceptModel
from largeconcept.models.two_tower import CrossContext, TwoTowerCache


class FlowPredictor:
    """Follows the flow from scaled noise with guidance, along a plan made once.

    Args:
        model: the model.
        options: ``num_inference_steps``, ``flow_solver``, guidance and ``initial_noise_scale`` count.
        noise: where noise comes from.
        concepts: how many concepts may be denoised in all; decides whether folding weights is worth its price.
    """

    def __init__(self, model: FlowConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.options = options
        self.noise = noise
        self.times = flow_times(options.num_inference_steps)
        self.guided = options.guidance_scale != 1.0
        # Folding costs D³ a layer once and saves D² for each vector and step.
        fold = concepts * len(self.times) * (1 + self.guided) > model.config.model_dim
        self.plan = model.denoiser.plan(self.times[:-1], fold=fold)

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> TwoTowerCache:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, TwoTowerCache)
        noise = self.noise("initial", rows, list(cache.lengths)).unsqueeze(1)
        return self._sample(cache.cross_context(), noise).squeeze(1)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, TwoTowerCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> CrossContext:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.teacher_forced_context(x)

    def teacher_forced(self, x: Tensor, context: CrossContext | None = None) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`: all positions are denoised together."""
        return self._sample(self.read_all(x) if context is None else context, noise_block(self.noise, "initial", x))

    def _sample(self, context: CrossContext, noise: Tensor) -> Tensor:
        """Map (B, T, C) standard normal numbers to concepts."""

        def denoise(
            x_t: Tensor, n: int, time: float, previous: Tensor | tuple[Tensor, Tensor] | None
        ) -> Tensor | tuple[Tensor, Tensor]:
            return self.model.denoiser.step(self.plan, n, x_t, context, previous, guided=self.guided)

        return flow_sample(
            denoise,
            noise * self.options.initial_noise_scale,
            self.times,
            solver=self.options.flow_solver,
            guidance_scale=self.options.guidance_scale,
            guidance_rescale=self.options.guidance_rescale,
        )

"""Generation with a one-tower diffusion LCM (arXiv:2412.08821, §2.3.2, §2.3.4): a sampler over the rows to come.

What was read stays as keys and values; a denoising step runs the transformer over the noisy rows alone.

Shape letters: B batch, S concepts, C concept dimension, T rows denoised together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from largeconcept.diffusion.sampling import sampler_plan
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, noise_block, sample_concepts
from largeconcept.models.one_tower import CleanContext, OneTowerCache, OneTowerConceptModel


class OneTowerPredictor:
    """Denoises from scaled noise with guidance.

    Args:
        model: the model.
        options: sampler settings.
        noise: where noise comes from.
        concepts: how many concepts may be denoised in all; of no use here.
    """

    def __init__(self, model: OneTowerConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.options = options
        self.noise = noise
        self.steps = sampler_plan(model.schedule, options)
        self.times = model.plan([step.timestep for step in self.steps])

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> OneTowerCache:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, OneTowerCache)
        positions = list(cache.lengths)
        return self._sample(
            cache.clean_context(), lambda stream: self.noise(stream, rows, positions).unsqueeze(1)
        ).squeeze(1)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, OneTowerCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> CleanContext:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.teacher_forced_context(x)

    def teacher_forced(self, x: Tensor, context: CleanContext | None = None) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`: all positions are denoised together."""
        read = self.read_all(x) if context is None else context
        return self._sample(read, lambda stream: noise_block(self.noise, stream, x))

    def _sample(self, context: CleanContext, noise: Callable[[str], Tensor]) -> Tensor:
        """Denoise (B, T, C); ``noise`` gives a stream's numbers in that shape."""

        def denoise(x_t: Tensor, index: int, timestep: int) -> Tensor | tuple[Tensor, Tensor]:
            return self.model.denoise(x_t, self.times[index], context, guided=self.steps[index].guided)

        return sample_concepts(denoise, self.model, self.options, self.steps, noise)

"""How each family of models turns what it has read into the next concept.

Shape letters: B batch, S concepts, C concept dimension, T rows denoised together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from largeconcept.diffusion.random import StepRandom
from largeconcept.diffusion.sampling import SamplerStep, sample, sampler_plan
from largeconcept.errors import ConfigError
from largeconcept.generate.options import GenerationOptions
from largeconcept.models.mse import MSEConceptModel
from largeconcept.models.one_tower import OneTowerConceptModel
from largeconcept.models.two_tower import CrossContext, TwoTowerCache, TwoTowerConceptModel
from largeconcept.nn.kv_cache import StateCache

Noise = Callable[[str, Sequence[int], Sequence[int]], Tensor]
"""``noise(stream, rows, positions) -> (len(rows), C)``: standard normal numbers for the concept at ``positions[i]``
of prompt ``rows[i]``. Streams are ``initial``, ``temperature`` and, for the n-th denoising step with fresh noise,
``variance/n``."""

PREDICTORS: dict[str, str] = {
    "mse": "largeconcept.generate.predictors:MSEPredictor",
    "energy": "largeconcept.generate.energy:EnergyPredictor",
    "flow": "largeconcept.generate.flow:FlowPredictor",
    "one_tower": "largeconcept.generate.one_tower:OneTowerPredictor",
    "two_tower": "largeconcept.generate.predictors:TwoTowerPredictor",
    "planning": "largeconcept.generate.planning:PlanningPredictor",
    "quantized": "largeconcept.generate.quantized:QuantizedPredictor",
    "through_decoder": "largeconcept.generate.predictors:MSEPredictor",
}
"""Type of a model's configuration to the class that generates with it, made with (model, options, noise, number of
concepts to come)."""


class SeededNoise:
    """Noise that depends on the seed, the sample id and the position in the document, and on nothing else.

    Args:
        seed: any integer.
        sample_ids: one for each prompt.
        dim: C.
        device: where the noise is wanted.
    """

    def __init__(self, seed: int, sample_ids: Sequence[int], dim: int, device: torch.device) -> None:
        self.seed = seed
        self.sample_ids = list(sample_ids)
        self.dim = dim
        self.device = device

    def __call__(self, stream: str, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Return (len(rows), C); rows at the same position are drawn together."""
        out = torch.empty(len(rows), self.dim, device=self.device)
        for position in sorted(set(positions)):
            places = [i for i, p in enumerate(positions) if p == position]
            ids = torch.tensor([self.sample_ids[rows[i]] for i in places], device=self.device)
            drawn = StepRandom(self.seed, position).normal(stream, ids, (self.dim,))
            if len(places) == len(rows):
                return drawn
            out[places] = drawn
        return out


class Cache(Protocol):
    """What a model remembers of B documents; each family has its own."""

    @property
    def lengths(self) -> list[int]:
        """Number of concepts read, of each row."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        ...

    def join(self, other: Self) -> None:
        """Take the rows of another cache after one's own."""
        ...


class Predictor(Protocol):
    """What the loop asks of a family."""

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> Cache:
        """Read right-padded normalised prompts (B, S, C), each to its own length."""
        ...

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """Return the next concept of each row, (B, C) normalised; ``rows`` are the prompts they belong to."""
        ...

    def extend(self, cache: Cache, x: Tensor) -> None:
        """Read one more concept of each row, (B, C) normalised."""
        ...

    def read_all(self, x: Tensor) -> Any:
        """Return what predictions for (B, S, C) normalised documents look at; it does not depend on the options."""
        ...

    def teacher_forced(self, x: Tensor, context: Any = None) -> Tensor:
        """Return (B, S, C) normalised: entry i is the prediction of concept i from the given ones before it.

        ``context`` is what ``read_all`` returned for the same documents, for a caller who has it.
        """
        ...


class MSEPredictor:
    """Takes the regression as it is; with a temperature, adds noise."""

    def __init__(self, model: MSEConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.temperature = options.temperature
        self.noise = noise

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> StateCache:
        """See :class:`Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`Predictor`."""
        assert isinstance(cache, StateCache)
        if not self.temperature:
            return cache.state
        return cache.state + self.temperature * self.noise("temperature", rows, cache.lengths)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`Predictor`."""
        assert isinstance(cache, StateCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> Tensor:
        """See :class:`Predictor`."""
        out: Tensor = self.model(x)[:, :-1]
        return out

    def teacher_forced(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See :class:`Predictor`; entry 0 is zeros, since this family cannot begin a text."""
        predicted = self.read_all(x) if context is None else context
        if self.temperature:
            predicted = predicted + self.temperature * noise_block(self.noise, "temperature", x, first=1)
        return torch.cat((torch.zeros_like(x[:, :1], dtype=predicted.dtype), predicted), dim=1)


class TwoTowerPredictor:
    """Denoises from scaled noise with guidance, along a plan made once.

    Args:
        model: the model.
        options: sampler settings.
        noise: where noise comes from.
        concepts: how many concepts may be denoised in all; decides whether folding weights is worth its price.
    """

    def __init__(self, model: TwoTowerConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.options = options
        self.noise = noise
        self.steps = sampler_plan(model.schedule, options)
        halves = 1 if options.guidance_scale == 1.0 else 2
        # Folding costs D³ a layer once and saves D² for each vector and step.
        fold = concepts * len(self.steps) * halves > model.config.model_dim
        self.plan = model.denoiser.plan([step.timestep for step in self.steps], fold=fold)

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> TwoTowerCache:
        """See :class:`Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`Predictor`."""
        assert isinstance(cache, TwoTowerCache)
        positions = list(cache.lengths)
        return self._sample(
            cache.cross_context(), lambda stream: self.noise(stream, rows, positions).unsqueeze(1)
        ).squeeze(1)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`Predictor`."""
        assert isinstance(cache, TwoTowerCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> CrossContext:
        """See :class:`Predictor`."""
        return self.model.teacher_forced_context(x)

    def teacher_forced(self, x: Tensor, context: CrossContext | None = None) -> Tensor:
        """See :class:`Predictor`: all positions are denoised together, under the mask of training."""
        read = self.read_all(x) if context is None else context
        return self._sample(read, lambda stream: noise_block(self.noise, stream, x))

    def _sample(self, context: CrossContext, noise: Callable[[str], Tensor]) -> Tensor:
        """Denoise (B, T, C); ``noise`` gives a stream's numbers in that shape."""

        def denoise(x_t: Tensor, index: int, timestep: int) -> Tensor | tuple[Tensor, Tensor]:
            return self.model.denoiser.step(self.plan, index, x_t, context, guided=self.steps[index].guided)

        return sample_concepts(denoise, self.model, self.options, self.steps, noise)


def sample_concepts(
    denoise: Callable[[Tensor, int, int], Tensor | tuple[Tensor, Tensor]],
    model: TwoTowerConceptModel | OneTowerConceptModel,
    options: GenerationOptions,
    steps: Sequence[SamplerStep],
    noise: Callable[[str], Tensor],
) -> Tensor:
    """Denoise (B, T, C) with a diffusion model along ``steps``; ``noise`` gives a stream's numbers in that shape."""
    return sample(
        denoise,
        model.schedule,
        options,
        noise("initial") * options.initial_noise_scale,
        prediction_type=model.config.prediction_type,
        noise=lambda index: noise(f"variance/{index}"),
        plan=steps,
    )


def noise_block(noise: Noise, stream: str, x: Tensor, first: int = 0) -> Tensor:
    """Return (B, S - first, C) noise for positions ``first``..S-1: the numbers that generation would draw."""
    rows = list(range(x.shape[0]))
    return torch.stack([noise(stream, rows, [p] * len(rows)) for p in range(first, x.shape[1])], dim=1)


def make_predictor(model: nn.Module, options: GenerationOptions, noise: Noise, concepts: int) -> Predictor:
    """Return the predictor of the model's family.

    Raises:
        ConfigError: not a model that generates concepts.
    """
    family = getattr(getattr(model, "config", None), "type", None)
    if family not in PREDICTORS:
        raise ConfigError("this kind of model cannot generate concepts", got=family or type(model).__name__)
    module, _, name = PREDICTORS[family].partition(":")
    made: Any = getattr(import_module(module), name)(model, options, noise, concepts)
    predictor: Predictor = made
    return predictor

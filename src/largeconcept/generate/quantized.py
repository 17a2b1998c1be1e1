"""Generation with a quantised LCM (arXiv:2412.08821, §2.3.4): Q centroids for each concept, one after the other.

What was read stays as keys and values; each of the Q evaluations runs the transformer over the new rows alone.

Shape letters: B batch, S concepts, T rows made together, C concept dimension, Q codebooks, V centroids of a codebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from largeconcept.diffusion.guidance import guide
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, noise_block
from largeconcept.models.one_tower import CleanContext, OneTowerCache
from largeconcept.models.quantized import QuantizedConceptModel


class QuantizedPredictor:
    """Goes from the zero vector through all codebooks, with guidance.

    A discrete model's index is drawn from its logits at ``temperature`` (0 takes the most probable); a continuous
    model's from ``−distance / centroid_temperature`` (0 takes the nearest centroid); both within ``top_k`` and
    ``top_p``. ``guidance_scale`` acts on logits or on the concept found, ``guidance_rescale`` on the latter alone.

    A model that finds concepts (a continuous one, or one with logits from the codebooks) takes ``codebooks_per_step``
    centroids towards the concept found before it looks anew: with all Q of them the result is the sum of centroids near
    the mean of what may follow, not a sample of it.

    Args:
        model: the model.
        options: settings.
        noise: where randomness comes from.
        concepts: how many concepts may be made in all; of no use here.

    Raises:
        DataError: the model has no codebooks yet.
    """

    def __init__(self, model: QuantizedConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        model.quantizer.require_fitted()
        self.model = model
        self.options = options
        self.noise = noise
        self.times = model.plan(range(model.config.num_quantizers))
        self.discrete = model.config.head == "discrete"
        self.temperature = options.temperature if self.discrete else options.centroid_temperature

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> OneTowerCache:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, OneTowerCache)
        positions = list(cache.lengths)
        start = torch.zeros(len(rows), 1, self.model.config.concept_dim, device=self.times.device)
        return self._refine(
            start, cache.clean_context(), lambda stream: self.noise(stream, rows, positions).unsqueeze(1)
        ).squeeze(1)

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, OneTowerCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> CleanContext:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.teacher_forced_context(x)

    def teacher_forced(self, x: Tensor, context: CleanContext | None = None) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`: all positions are made together."""
        read = self.read_all(x) if context is None else context
        start = torch.zeros(x.shape, device=self.times.device)
        return self._refine(start, read, lambda stream: noise_block(self.noise, stream, x))

    def _refine(self, partial: Tensor, context: CleanContext, noise: Callable[[str], Tensor]) -> Tensor:
        """Add one centroid of each codebook to (B, T, C); ``noise`` gives a stream's numbers in that shape."""
        codebooks, scale = self.model.quantizer.codebooks.float(), self.options.guidance_scale
        drawn, dim = partial, partial.shape[-1]
        each = self.options.codebooks_per_step if self.model.finds_concepts else 1
        found = partial
        for level, codebook in enumerate(codebooks):
            if level % each == 0:
                out = self.model.predict(partial, self.times[level], context, guided=scale != 1.0)
                if isinstance(out, tuple):  # logits follow what was found by an affine map: guiding one guides both
                    out = guide(*out, scale, 0.0 if self.discrete else self.options.guidance_rescale)
                found = out
            if self.discrete:
                logits = self.model.logits(found, partial, level)
            else:
                logits = -_distances(found - partial, codebook)
            uniform = None
            if self.temperature:
                if level % dim == 0:  # a stream has C numbers for each concept
                    drawn = noise(f"codebooks/{level // dim}")
                uniform = torch.special.ndtr(drawn[..., level % dim])
            index = choose(logits, self.temperature, self.options.top_k, self.options.top_p, uniform)
            partial = partial + codebook[index]
        return partial


def _distances(x: Tensor, centroids: Tensor) -> Tensor:
    """Return the Euclidean distances (…, V) of (…, C) vectors from (V, C) centroids."""
    squared = x.square().sum(dim=-1, keepdim=True) - 2.0 * (x @ centroids.t()) + centroids.square().sum(dim=-1)
    return squared.clamp(min=0.0).sqrt()


def choose(
    logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, uniform: Tensor | None = None
) -> Tensor:
    """Return indices (…,) for (…, V) logits.

    Args:
        logits: any unnormalised log-probabilities.
        temperature: they are divided by it; 0 takes the largest, the first of equals.
        top_k: draw from the k most probable; 0 from all.
        top_p: draw from the most probable that together have at least this probability, at least from one.
        uniform: (…,) in [0, 1), turned into an index by the inverse of the distribution function; needed with a
            temperature above 0.
    """
    if temperature == 0.0 or uniform is None:
        return logits.argmax(dim=-1)
    ranked, order = torch.sort(logits.double() / temperature, dim=-1, descending=True, stable=True)
    if top_k:
        ranked, order = ranked[..., :top_k], order[..., :top_k]
    probability = ranked.softmax(dim=-1)
    if top_p < 1.0:
        before = probability.cumsum(dim=-1) - probability
        probability = probability.masked_fill(before >= top_p, 0.0)
    running = probability.cumsum(dim=-1)
    threshold = uniform.double().unsqueeze(-1) * running[..., -1:]
    place = torch.searchsorted(running, threshold, right=True)
    last = (probability > 0).sum(dim=-1, keepdim=True) - 1
    return order.gather(-1, torch.minimum(place, last)).squeeze(-1)

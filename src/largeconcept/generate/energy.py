"""Generation with an energy model: one pass of the head for each concept, or several of which the most usual is kept.

Shape letters: B batch, S concepts, T positions, K candidates, C concept dimension, U noise dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import Cache, Noise, noise_block
from largeconcept.models.energy import EnergyConceptModel
from largeconcept.nn.kv_cache import StateCache


class EnergyPredictor:
    """Draws ``num_candidates`` samples and keeps the one nearest to the others.

    Without a density a temperature can only be had from samples. CALM (arXiv:2510.27688, §5) draws a batch and prefers
    what it holds repeatedly. Vectors never repeat exactly, so the candidate with the least mean distance from the
    others, the medoid, takes the place of the most frequent one: the more candidates, the lower the temperature.

    In spaces of many channels all candidates are about equally far from each other, and the medoid is hardly better
    than any. There two other ways help: noise scaled down (``initial_noise_scale`` below 1, the truncation trick of
    arXiv:1809.11096, §3.1), at no price, and the mean of the candidates, which no longer is a sample, but what a model
    that regresses would say.

    Args:
        model: the model.
        options: ``num_candidates``, ``candidate_choice`` and ``initial_noise_scale`` count.
        noise: where noise comes from.
        concepts: how many concepts may be drawn in all; of no use here.
    """

    def __init__(self, model: EnergyConceptModel, options: GenerationOptions, noise: Noise, concepts: int) -> None:
        self.model = model
        self.noise = noise
        self.options = options

    def start(self, x: Tensor, lengths: Sequence[int], capacity: int) -> StateCache:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.prefill(x, lengths, capacity)

    def predict(self, cache: Cache, rows: Sequence[int]) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, StateCache)
        positions = list(cache.lengths)
        return self._draw(cache.state, lambda stream: self.noise(stream, rows, positions))

    def extend(self, cache: Cache, x: Tensor) -> None:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        assert isinstance(cache, StateCache)
        self.model.extend(cache, x)

    def read_all(self, x: Tensor) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        return self.model.states(x)

    def teacher_forced(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See :class:`~largeconcept.generate.predictors.Predictor`."""
        states = self.read_all(x) if context is None else context
        return self._draw(states, lambda stream: noise_block(self.noise, stream, x))

    def _draw(self, state: Tensor, normal: Callable[[str], Tensor]) -> Tensor:
        """Map states (…, D) to concepts (…, C); ``normal`` gives a stream's standard normal numbers (…, C)."""
        noise = torch.stack([self._uniform(k, normal) for k in range(self.options.num_candidates)], dim=-2)
        candidates: Tensor = self.model.head(state, self.options.initial_noise_scale * noise)
        return candidates.mean(dim=-2) if self.options.candidate_choice == "mean" else medoid(candidates)

    def _uniform(self, candidate: int, normal: Callable[[str], Tensor]) -> Tensor:
        """Return (…, U) numbers between -1/2 and 1/2: the distribution function of as many normal ones."""
        wanted, parts = self.model.config.num_noise, [normal(f"candidate/{candidate}")]
        while sum(part.shape[-1] for part in parts) < wanted:
            parts.append(normal(f"candidate/{candidate}/{len(parts)}"))
        uniform: Tensor = torch.special.ndtr(torch.cat(parts, dim=-1)[..., :wanted]) - 0.5
        return uniform


def medoid(candidates: Tensor) -> Tensor:
    """Return of (…, K, C) the one (…, C) with the least sum of distances from the others; the first of equals."""
    if candidates.shape[-2] < 3:  # of two, each is as near to the other
        return candidates[..., 0, :]
    distances = torch.cdist(candidates, candidates, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=-1)
    best = distances.argmin(dim=-1, keepdim=True).unsqueeze(-1)
    return candidates.gather(-2, best.expand(*best.shape[:-1], candidates.shape[-1])).squeeze(-2)

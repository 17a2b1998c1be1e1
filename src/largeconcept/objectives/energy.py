"""The energy score (Székely & Rizzo 2013; Gneiting & Raftery 2007, §4.3), as CALM uses it (arXiv:2510.27688, §3.3).

For a model's samples X and the truth Y of a position, with an exponent alpha between 0 and 2,

    score = 2 E|X - Y|^alpha - E|X - X'|^alpha

is, in expectation over Y, least when X has the distribution of Y, and then only: a strictly proper score that needs no
density. The first term pulls samples to the truth, the second keeps them apart. With N samples and M draws of the
truth the estimate

    2 / (N M) sum_nm |x_n - y_m|^alpha - 1 / (N (N - 1)) sum_(n != k) |x_n - x_k|^alpha

is unbiased. (The energy *distance* of two distributions has E|Y - Y'|^alpha subtracted too, which no model changes.)

Shape letters: B batch, S concepts, T targets (S, or the longest target of supervised data), N samples, M draws of the
truth, C concept dimension, U noise dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.objectives.base import config_of, masked_sum, noised_targets, normalized, num_noisy, target_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss

MIN_DISTANCE = 1e-6


class EnergyObjectiveConfig(Config):
    """Settings of the energy objective.

    Attributes:
        num_samples: N, samples of the model for each target; CALM takes 8.
        target_std: standard deviation, in normalised space, of the Gaussian around each concept from which the truth is
            drawn, as from the posterior of a variational codec; 0 takes the concept itself.
        num_targets: M, draws of the truth; of no use with ``target_std`` 0. CALM takes 100.
        alpha: the exponent.
    """

    type: Literal["energy"] = "energy"
    num_samples: int = Field(default=8, ge=2)
    target_std: float = Field(default=0.0, ge=0)
    num_targets: int = Field(default=1, ge=1)
    alpha: float = Field(default=1.0, gt=0, lt=2)


class EnergyObjective:
    """Energy score of the model's samples of each concept, in normalised space.

    All concepts count, the first one included; in supervised batches the target concepts. Noise and draws of the truth
    follow from (seed, step, sample id, position) alone.

    Metrics: ``distance``, of a sample from the truth, and ``spread``, of two samples from each other (both in
    normalised space to the power ``alpha``; at the optimum ``spread`` is ``distance``); ``l2``, the Euclidean distance
    of one sample from the truth in the codec's space.

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: EnergyObjectiveConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Draw noise and truths, and return the loss of a batch.

        Raises:
            ConfigError: the model is not an energy model.
        """
        config, size, ids = config_of(model, "num_noise"), num_noisy(batch), batch.sample_ids
        noise = rng.uniform("samples", ids, (size, self.config.num_samples, config.num_noise)) - 0.5
        return self.loss(model, batch, noise, self._truth_noise(rng, batch, size))

    def loss(self, model: nn.Module, batch: ConceptBatch, noise: Tensor, truth_noise: Tensor | None = None) -> Loss:
        """Return the loss for given (B, T, N, U) noise, and (B, T, M, C) standard normal numbers for the truth."""
        from largeconcept.types import Loss

        x = normalized(self.normalizer, batch.concepts)
        clean, mask = noised_targets(x, batch, noise.shape[1])
        samples = model(x, noise, batch.lengths, batch.source_lengths)
        truths = clean.unsqueeze(-2)
        if truth_noise is not None:
            truths = truths + self.config.target_std * truth_noise
        distance, spread = energy_terms(samples, truths, self.config.alpha)
        count = mask.sum().float()
        score = (2.0 * distance - spread) * target_weights(batch, mask.shape[1])
        found = self.normalizer.denormalize(samples[..., 0, :].detach())
        l2 = (found - self.normalizer.denormalize(clean)).norm(dim=-1)
        metrics = {"distance": distance.detach(), "spread": spread.detach(), "l2": l2}
        return Loss(
            masked_sum(score, mask), count, {name: (masked_sum(value, mask), count) for name, value in metrics.items()}
        )

    def _truth_noise(self, rng: StepRandom, batch: ConceptBatch, size: int) -> Tensor | None:
        if self.config.target_std == 0.0:
            return None
        return rng.normal("truths", batch.sample_ids, (size, self.config.num_targets, batch.concepts.shape[-1]))


def energy_terms(samples: Tensor, truths: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return two means (…,): distances of samples (…, N, C) from truths (…, M, C), and of samples from each other.

    Distances are Euclidean, to the power ``alpha``. The energy score is twice the first minus the second. A sample's
    distance from itself does not count.
    """
    import torch

    exact = "donot_use_mm_for_euclid_dist"  # the difference of two squares loses small distances
    samples, truths, number = samples.float(), truths.float(), samples.shape[-2]
    distance = torch.cdist(samples, truths, compute_mode=exact).clamp(min=MIN_DISTANCE) ** alpha
    between = torch.cdist(samples, samples, compute_mode=exact)
    # Pairs of a sample with itself are taken out before the power, whose slope at zero may be infinite.
    pairs = torch.triu_indices(number, number, offset=1, device=samples.device)
    spread = between[..., pairs[0], pairs[1]].clamp(min=MIN_DISTANCE) ** alpha
    return distance.mean(dim=(-2, -1)), spread.mean(dim=-1)

"""Base-LCM (arXiv:2412.08821, section 2.3.1 on the MSE model): the next concept by regression.

Shape letters: B batch, S concepts, C concept dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from largeconcept.config import Config
from largeconcept.objectives.base import masked_sum, normalized, squared_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from largeconcept.codec.normalizer import ConceptNormalizer
    from largeconcept.diffusion.random import StepRandom
    from largeconcept.types import ConceptBatch, Loss


class RegressionConfig(Config):
    """Settings of the regression objective.

    Attributes:
        min_context: how many concepts must come before a target; at least 1: the first concept never counts.
        rmse: take the root of each concept's squared error.
        channels: count the error of the first so many channels alone, such as those of the meaning where a codec has
            others for the form, which cannot be predicted; ``None`` for all.
    """

    type: Literal["regression"] = "regression"
    min_context: int = Field(default=1, ge=1)
    rmse: bool = False
    channels: int | None = Field(default=None, ge=1)


class RegressionObjective:
    """Squared distance of the prediction from the next concept, in normalised space, summed over channels.

    Supervised batches count the target concepts only. Metrics: ``mse`` (the squared error of a concept's ``channels``)
    and ``l2`` (its Euclidean distance in the codec's space).

    Args:
        config: settings.
        normalizer: of the model.
    """

    def __init__(self, config: RegressionConfig, normalizer: ConceptNormalizer) -> None:
        self.config = config
        self.normalizer = normalizer

    def __call__(self, model: nn.Module, batch: ConceptBatch, rng: StepRandom) -> Loss:
        """Return the loss of a batch; nothing random is drawn."""
        from largeconcept.types import Loss

        x = normalized(self.normalizer, batch.concepts)
        mask = self.target_mask(batch)[:, 1:]
        prediction = model(x, batch.lengths)[:, :-1]
        found, wanted = (one[..., : self.config.channels] for one in (prediction, x[:, 1:]))
        error = squared_error(found, wanted, self.config.rmse)
        if batch.weights is not None:
            error = error * batch.weights[:, 1:]
        count = mask.sum().float()
        l2 = (self.normalizer.denormalize(prediction.detach()) - batch.concepts[:, 1:].float()).norm(dim=-1)
        metrics = {
            "mse": (masked_sum(squared_error(found.detach(), wanted), mask), count),
            "l2": (masked_sum(l2, mask), count),
        }
        return Loss(masked_sum(error, mask), count, metrics)

    def target_mask(self, batch: ConceptBatch) -> Tensor:
        """Return (B, S) bool: which concepts are targets."""
        import torch

        position = torch.arange(batch.concepts.shape[1], device=batch.concepts.device)
        mask = (position >= self.config.min_context) & (position < batch.lengths[:, None])
        if batch.source_lengths is not None:
            mask = (position >= batch.source_lengths[:, None]) & (position >= 1) & (position < batch.lengths[:, None])
        return mask

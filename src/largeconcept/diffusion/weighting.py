"""How much each timestep, or each concept, counts in the loss.

Shape letters: T timesteps of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field, model_validator

from largeconcept.config import Config
from largeconcept.diffusion.parameterization import PredictionType
from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

WeightingType = Literal["none", "clamp_snr", "min_snr", "fragility"]


class WeightingConfig(Config):
    """Loss weight of a timestep, or of a concept.

    Attributes:
        type: ``none``: one. ``clamp_snr``: the signal-to-noise ratio clamped to ``[min_gamma, max_gamma]``, whatever
            the network predicts (LCM paper, table 6: clamp SNR). ``min_snr``: the weight that makes the loss *of x_0*
            count ``min(SNR, max_gamma)`` for the network's own prediction type (Hang et al., arXiv:2303.09556,
            section 3.4). ``fragility``: ``sigmoid(a F + b)`` for a concept of fragility F, whatever the timestep (LCM
            paper, table 6); F is predicted by a scorer, between 0 (robust) and 1 (fragile).
        min_gamma, max_gamma: bounds of the ratio.
        fragility_scorer: folder of a scorer that ``largeconcept codec fragility`` made; it stays as it is.
        fragility_a, fragility_b: the paper's -4 and 3.5; a negative a makes fragile concepts count less.
        normalize: ``expected`` divides by the mean weight under the distribution of the timesteps (of ``fragility``:
            over the sentences that the scorer was fitted on), a constant;
            ``batch`` makes the weights of each micro-batch sum to its number of targets, as the reference does.

    Note: ``batch`` makes the loss of a concept depend on which others share its micro-batch; it is here for
    comparison.
    """

    type: WeightingType = "none"
    min_gamma: float = Field(default=0.0, ge=0)
    max_gamma: float = Field(default=5.0, gt=0)
    fragility_scorer: str | None = None
    fragility_a: float = -4.0
    fragility_b: float = 3.5
    normalize: Literal["expected", "batch"] = "expected"

    @model_validator(mode="after")
    def _ordered(self) -> WeightingConfig:
        if self.min_gamma >= self.max_gamma:
            raise ValueError("min_gamma must be smaller than max_gamma")
        if (self.type == "fragility") != (self.fragility_scorer is not None):
            raise ValueError("fragility_scorer is needed with type fragility, and only there")
        return self


def loss_weights(snr: Tensor, config: WeightingConfig, prediction_type: PredictionType) -> Tensor:
    """Return (T,) float32 weights, not normalised, for the (T,) signal-to-noise ratios of a schedule.

    Ratios of zero and infinity are allowed; the weights are finite. ``fragility`` weighs concepts, not timesteps: ones.
    """
    import torch

    ratio = snr.double()
    if config.type in ("none", "fragility"):
        weights = torch.ones_like(ratio)
    elif config.type == "clamp_snr":
        weights = ratio.clamp(config.min_gamma, config.max_gamma)
    elif config.type == "min_snr":
        # weight of x_0's loss = clamp(SNR); |eps error|² = SNR |x_0 error|² and |v error|² = (SNR + 1) |x_0 error|².
        clamped = ratio.clamp(config.min_gamma, config.max_gamma)
        if prediction_type == "x_0":
            weights = clamped
        elif prediction_type == "v":
            weights = clamped / (ratio + 1.0)
        else:
            # clamp(SNR) / SNR, written so that SNR = 0 gives its limit 1 (where min_gamma is 0).
            floor = (config.min_gamma / ratio).clamp(max=1e6) if config.min_gamma > 0 else torch.zeros_like(ratio)
            weights = torch.maximum((config.max_gamma / ratio).clamp(max=1.0), floor)
    else:
        raise ConfigError(
            "unknown weighting",
            where="weighting.type",
            got=config.type,
            hint=did_you_mean(config.type, get_args(WeightingType)),
        )
    return weights.to(torch.float32)


def fragility_weights(fragility: Tensor, config: WeightingConfig) -> Tensor:
    """Return ``sigmoid(a F + b)``, float32 of the shape of F, for fragility F between 0 (robust) and 1 (fragile)."""
    import torch

    return torch.sigmoid(config.fragility_a * fragility.float() + config.fragility_b)


def normalize_expected(weights: Tensor, probabilities: Tensor) -> Tensor:
    """Scale (T,) weights so that their mean under the (T,) ``probabilities`` of the timesteps is one.

    Raises:
        ConfigError: every timestep that can be drawn has weight zero.
    """
    import torch

    mean = (weights.double() * probabilities.double()).sum()
    if float(mean) <= 0.0:
        raise ConfigError("the weights of all timesteps are zero", where="weighting", hint="raise min_gamma")
    return (weights.double() / mean).to(torch.float32)

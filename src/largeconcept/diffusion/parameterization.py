"""What a denoiser predicts, and how to turn one kind of prediction into another.

``x_t = alpha_t * x_0 + sigma_t * eps`` with ``alpha_t² + sigma_t² = 1``. A network predicts the clean data ``x_0``,
the noise ``eps``, or the velocity ``v = alpha_t * eps - sigma_t * x_0`` (Salimans & Ho, arXiv:2202.00512, appendix
D). This is the one place where targets and conversions are defined, for training and for sampling alike.

All functions work on tensors of any shape ``(…, C)``; ``alpha_t`` and ``sigma_t`` are floats or broadcast to that
shape. Where ``alpha_t`` is 0 the noise says nothing about the data: ``x_0`` from ``eps`` is then infinite or NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

PredictionType = Literal["x_0", "eps", "v"]


def add_noise(x_0: Tensor, eps: Tensor, alpha_t: Tensor | float, sigma_t: Tensor | float) -> Tensor:
    """Return ``x_t``, the data after noising."""
    return alpha_t * x_0 + sigma_t * eps


def target(
    x_0: Tensor,
    eps: Tensor,
    alpha_t: Tensor | float,
    sigma_t: Tensor | float,
    prediction_type: PredictionType,
) -> Tensor:
    """Return what a network of this prediction type should output."""
    if prediction_type == "x_0":
        return x_0
    if prediction_type == "eps":
        return eps
    if prediction_type == "v":
        return alpha_t * eps - sigma_t * x_0
    raise _unknown(prediction_type)


def to_x_0(
    prediction: Tensor,
    x_t: Tensor,
    alpha_t: Tensor | float,
    sigma_t: Tensor | float,
    prediction_type: PredictionType,
) -> Tensor:
    """Return the clean data that a prediction implies."""
    if prediction_type == "x_0":
        return prediction
    if prediction_type == "eps":
        return (x_t - sigma_t * prediction) / alpha_t
    if prediction_type == "v":
        return alpha_t * x_t - sigma_t * prediction
    raise _unknown(prediction_type)


def to_eps(
    prediction: Tensor,
    x_t: Tensor,
    alpha_t: Tensor | float,
    sigma_t: Tensor | float,
    prediction_type: PredictionType,
) -> Tensor:
    """Return the noise that a prediction implies."""
    if prediction_type == "x_0":
        return (x_t - alpha_t * prediction) / sigma_t
    if prediction_type == "eps":
        return prediction
    if prediction_type == "v":
        return alpha_t * prediction + sigma_t * x_t
    raise _unknown(prediction_type)


def to_v(
    prediction: Tensor,
    x_t: Tensor,
    alpha_t: Tensor | float,
    sigma_t: Tensor | float,
    prediction_type: PredictionType,
) -> Tensor:
    """Return the velocity that a prediction implies."""
    if prediction_type == "x_0":
        return (alpha_t * x_t - prediction) / sigma_t
    if prediction_type == "eps":
        return (prediction - sigma_t * x_t) / alpha_t
    if prediction_type == "v":
        return prediction
    raise _unknown(prediction_type)


def _unknown(prediction_type: str) -> ConfigError:
    return ConfigError(
        "unknown prediction type",
        where="prediction_type",
        got=prediction_type,
        hint=did_you_mean(prediction_type, get_args(PredictionType)),
    )

"""DDIM sampling (Song et al., arXiv:2010.02502) with guidance, as plain functions over a callable denoiser.

All coefficients are Python floats computed before the loop: a sampling loop never waits for the device.

Shape letters: C channels; every tensor is ``(…, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from largeconcept.config import Config
from largeconcept.diffusion.guidance import guide
from largeconcept.diffusion.parameterization import PredictionType, to_eps, to_x_0
from largeconcept.diffusion.schedules import NoiseSchedule, TimestepSpacing
from largeconcept.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    Prediction = Tensor | tuple[Tensor, Tensor]
    Denoiser = Callable[[Tensor, int, int], Prediction]
    Noise = Callable[[int], Tensor] | Sequence[Tensor] | Tensor


class DDIMOptions(Config):
    """Settings of the DDIM sampler.

    Attributes:
        num_inference_steps: number of denoising steps.
        timestep_spacing: see :func:`largeconcept.diffusion.schedules.inference_timesteps`; ``log_snr`` suits
            ``dpm_solver_pp_2m`` from some ten steps on.
        guidance_scale: 1 is unguided; the reference's README uses 3.
        guidance_rescale: share of the guided noise whose standard deviation is restored; the reference's README uses
            0.7.
        eta: 0 is deterministic, 1 has the variance of ancestral sampling; multiplies the standard deviation.
        epsilon_scaling: divides the noise of each step after ``x_0`` was computed (Ning et al., arXiv:2308.15321).
        clip_noise: bound on the absolute value of the noisy vectors, or ``None``; the reference uses 100.
        clip_sample: bound on the absolute value of each predicted ``x_0``, or ``None``.
        threshold_ratio: dynamic thresholding: this quantile of ``|x_0|`` of each vector, between 1 and
            ``threshold_max``, becomes the bound, and the vector is divided by it (Saharia et al., arXiv:2205.11487).
            Off when ``None``. It squeezes vectors into ±1, so it does not suit data of variance one.
        threshold_max: upper limit of that bound.
        rederive_eps: compute the noise of the step again from the clipped ``x_0``.
    """

    num_inference_steps: int = Field(default=40, ge=1)
    timestep_spacing: TimestepSpacing = "requested"
    guidance_scale: float = 1.0
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    eta: float = Field(default=0.0, ge=0)
    epsilon_scaling: float | None = Field(default=None, gt=0)
    clip_noise: float | None = Field(default=100.0, gt=0)
    clip_sample: float | None = Field(default=None, gt=0)
    threshold_ratio: float | None = Field(default=None, gt=0, le=1)
    threshold_max: float = Field(default=1.0, ge=1)
    rederive_eps: bool = False


class Step(Protocol):
    """What every sampler's steps have: the time of the input, its coefficients, and whether guidance applies."""

    @property
    def timestep(self) -> int:
        """Diffusion time of the input."""
        ...

    @property
    def alpha_t(self) -> float:
        """Coefficient of the data in the input."""
        ...

    @property
    def sigma_t(self) -> float:
        """Coefficient of the noise in the input."""
        ...

    @property
    def guided(self) -> bool:
        """Whether guidance applies."""
        ...


@dataclass(frozen=True, slots=True)
class DDIMStep:
    """One step of a sampler, all coefficients as floats.

    Attributes:
        timestep, previous: diffusion time of the input and of the output; -1 is clean data.
        alpha_t, sigma_t: coefficients of the input.
        alpha_previous: coefficient of ``x_0`` in the output.
        direction: coefficient of the predicted noise in the output.
        std: standard deviation of the fresh noise in the output, ``eta`` included.
        guided: whether guidance applies at this step.
    """

    timestep: int
    previous: int
    alpha_t: float
    sigma_t: float
    alpha_previous: float
    direction: float
    std: float
    guided: bool


def ddim_coefficients(
    schedule: NoiseSchedule, timestep: int, previous: int, eta: float = 0.0, guided: bool = False
) -> DDIMStep:
    """Return the coefficients of the step from ``timestep`` to ``previous`` (negative: clean data). Equation 12.

    Note: where ``alphas_cumprod`` is 0 and ``eta`` is 1 the direction's coefficient is the root of a rounded zero; the
    reference may get NaN there, here it is 0.
    """
    now, before = schedule.cumprod_at(timestep), schedule.cumprod_at(previous)
    variance = schedule.variance_at(timestep, previous)
    return DDIMStep(
        timestep=timestep,
        previous=max(previous, -1),
        alpha_t=math.sqrt(now),
        sigma_t=math.sqrt(1.0 - now),
        alpha_previous=math.sqrt(before),
        direction=math.sqrt(max(1.0 - before - eta**2 * variance, 0.0)),
        std=eta * math.sqrt(variance),
        guided=guided,
    )


def ddim_plan(schedule: NoiseSchedule, options: DDIMOptions) -> list[DDIMStep]:
    """Return all steps of a sampler in order.

    The first step is not guided when it starts at the last timestep: the noise carries (almost) no signal there, and
    with a zero terminal signal-to-noise ratio ``x_0`` cannot be recovered from a guided noise at all.

    Note: each step leads to the next timestep of the list; the reference always goes ``T // S`` down, which is the
    same but for ``linspace``.

    Raises:
        ConfigError: the number of steps does not fit the schedule.
    """
    return [
        ddim_coefficients(schedule, t, previous, options.eta, guided)
        for t, previous, guided in visits(schedule, options)
    ]


def visits(schedule: NoiseSchedule, options: DDIMOptions) -> list[tuple[int, int, bool]]:
    """Return (timestep, the one it leads to or -1 for clean data, whether it is guided) for every step of a sampler.

    Raises:
        ConfigError: the number of steps does not fit the schedule.
    """
    last = schedule.num_timesteps - 1
    timesteps = schedule.inference_timesteps(options.num_inference_steps, options.timestep_spacing)
    wants_guidance = options.guidance_scale != 1.0
    return [
        (t, previous, wants_guidance and t != last and schedule.cumprod_at(t) < 1.0)
        for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True)
    ]


def ddim_step(
    prediction: Tensor,
    x_t: Tensor,
    step: DDIMStep,
    prediction_type: PredictionType,
    options: DDIMOptions | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step: (…, C) prediction and noisy vectors to ``(x_previous, x_0)``.

    ``noise`` is needed where ``step.std`` is not 0.

    Raises:
        ConfigError: ``eta`` asks for noise and none was given.
    """
    options = options if options is not None else _DEFAULT
    x_0 = clean(prediction, x_t, step, prediction_type)
    kept = bounded(x_0, options)
    x_previous = step.alpha_previous * kept
    if step.direction > 0.0:
        if options.rederive_eps:
            eps = to_eps(kept, x_t, step.alpha_t, step.sigma_t, "x_0")
        else:
            eps = to_eps(prediction, x_t, step.alpha_t, step.sigma_t, prediction_type)
        scale = 1.0 if options.epsilon_scaling is None else options.epsilon_scaling
        x_previous = x_previous + (step.direction / scale) * eps
    if step.std > 0.0:
        if noise is None:
            raise ConfigError("noise is needed", where=f"eta at timestep {step.timestep}", hint="pass noise, or eta=0")
        x_previous = x_previous + step.std * noise
    return x_previous, kept


def ddim_sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    options: DDIMOptions,
    x_T: Tensor,
    *,
    prediction_type: PredictionType = "x_0",
    noise: Noise | None = None,
    plan: Sequence[DDIMStep] | None = None,
) -> Tensor:
    """Denoise ``x_T`` and return the ``x_0`` of the last step.

    Args:
        denoise: called with ``(x_t, step_index, timestep)``; returns the prediction, or the pair (with context,
            without context) where guidance is on. At steps whose ``guided`` is false the prediction with context is
            enough, and the other half of a pair is not looked at.
        schedule: the schedule that the denoiser was trained with.
        options: see :class:`DDIMOptions`.
        x_T: (…, C) initial noise, already multiplied by an initial noise scale.
        prediction_type: what ``denoise`` returns.
        noise: fresh noise for ``eta`` > 0: a callable of the step index, or one tensor a step.
        plan: ``ddim_plan(schedule, options)``, for callers that keep it.

    Returns:
        (…, C) clean vectors, in the dtype of ``x_T``.

    Raises:
        ConfigError: guidance or ``eta`` asks for something that was not given.
    """
    steps = plan if plan is not None else ddim_plan(schedule, options)
    x_t = clipped(x_T, options.clip_noise)
    x_0 = x_t
    for index, step in enumerate(steps):
        prediction, kind = guided_prediction(denoise(x_t, index, step.timestep), x_t, step, prediction_type, options)
        fresh = None
        if step.std > 0.0 and noise is not None:
            fresh = noise(index) if callable(noise) else noise[index]
        x_t, x_0 = ddim_step(prediction, x_t, step, kind, options, fresh)
        x_t = clipped(x_t, options.clip_noise)
    return x_0


def clean(prediction: Tensor, x_t: Tensor, step: Step, prediction_type: PredictionType) -> Tensor:
    """Return the ``x_0`` that a prediction implies at a step.

    Raises:
        ConfigError: it is noise, where there is no signal.
    """
    if prediction_type == "eps" and step.alpha_t == 0.0:
        raise ConfigError(
            "x_0 cannot be computed from the noise where the signal is zero",
            where=f"timestep {step.timestep}",
            hint="a model that predicts eps needs a schedule with zero_terminal_snr=false",
        )
    return to_x_0(prediction, x_t, step.alpha_t, step.sigma_t, prediction_type)


def guided_prediction(
    output: Prediction, x_t: Tensor, step: Step, prediction_type: PredictionType, options: DDIMOptions
) -> tuple[Tensor, PredictionType]:
    """Return what a denoiser's output means at a step: its prediction, or the guided noise of a pair, and the kind.

    Raises:
        ConfigError: guidance is on, and the output is no pair.
    """
    if not step.guided:
        return output[0] if isinstance(output, tuple) else output, prediction_type
    if not isinstance(output, tuple):
        raise ConfigError(
            "guidance needs two predictions",
            where=f"denoiser at timestep {step.timestep}",
            hint="return (with context, without context), or set guidance_scale to 1",
        )
    cond, uncond = (to_eps(half, x_t, step.alpha_t, step.sigma_t, prediction_type) for half in output)
    return guide(cond, uncond, options.guidance_scale, options.guidance_rescale), "eps"


def bounded(x_0: Tensor, options: DDIMOptions) -> Tensor:
    """Return ``x_0`` (…, C) inside the bounds of ``clip_sample`` or ``threshold_ratio``."""
    import torch

    if options.threshold_ratio is not None:
        bound = torch.quantile(x_0.abs(), options.threshold_ratio, dim=-1, keepdim=True)
        bound = bound.clamp(1.0, options.threshold_max)
        return torch.maximum(torch.minimum(x_0, bound), -bound) / bound
    return clipped(x_0, options.clip_sample)


def clipped(x: Tensor, bound: float | None) -> Tensor:
    """Return ``x`` with absolute values of at most ``bound``, or ``x`` itself without one."""
    return x if bound is None else x.clamp(-bound, bound)


_DEFAULT = DDIMOptions()

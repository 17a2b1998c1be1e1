"""DPM-Solver++(2M) (Lu et al., arXiv:2211.01095, algorithm 2): a second-order multistep solver over data predictions.

With ``λ = log(alpha / sigma)`` as time, the probability-flow equation of the data prediction is solved exactly but for
the integral of ``exp(λ) x_0(λ)``. Holding ``x_0`` constant over a step gives DDIM; a line through this step's and the
last step's prediction gives the second order, at no further evaluation:

    h_i = λ_next - λ_i,  w = h_i / (2 h_{i-1})
    x_next = (sigma_next / sigma_i) x_i + (alpha_next - alpha_i sigma_next / sigma_i) ((1 + w) x_0,i - w x_0,i-1)

The line is left out (w = 0) where there is none to draw: in the first step; in the second one where the first came from
a zero signal, infinitely far away in λ; and into clean data, which is infinitely far as well and is simply ``x_0``.

All coefficients are Python floats computed before the loop. Shape letters: C channels; every tensor is ``(…, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from largeconcept.diffusion.parameterization import PredictionType, to_eps
from largeconcept.diffusion.samplers import DDIMOptions, bounded, clean, clipped, guided_prediction, visits

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.diffusion.samplers import Denoiser
    from largeconcept.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True, slots=True)
class DPMStep:
    """One step, all coefficients as floats.

    Attributes:
        timestep, previous: diffusion time of the input and of the output; -1 is clean data.
        alpha_t, sigma_t: coefficients of the input.
        keep: coefficient of the input in the output, ``sigma_next / sigma_t``.
        gain: coefficient of the extrapolated ``x_0`` in the output.
        line: w, the weight of the last step's ``x_0`` in the extrapolation; 0 in a first-order step.
        guided: whether guidance applies at this step.
    """

    timestep: int
    previous: int
    alpha_t: float
    sigma_t: float
    keep: float
    gain: float
    line: float
    guided: bool


def dpm_steps(cumprods: Sequence[float], timesteps: Sequence[int], guided: Sequence[bool]) -> list[DPMStep]:
    """Return the steps through N + 1 values of ``alphas_cumprod`` at N timesteps and at the end (-1: clean data).

    ``cumprods`` rise; the first may be 0 and the last may be 1.
    """
    alphas, sigmas = [math.sqrt(a) for a in cumprods], [math.sqrt(1.0 - a) for a in cumprods]
    steps: list[DPMStep] = []
    last_h = math.inf
    for n, t in enumerate(timesteps):
        reachable = alphas[n] > 0.0 and sigmas[n] > 0.0 and sigmas[n + 1] > 0.0
        h = math.log(alphas[n + 1] / sigmas[n + 1]) - math.log(alphas[n] / sigmas[n]) if reachable else math.inf
        keep = sigmas[n + 1] / sigmas[n] if sigmas[n] > 0.0 else 0.0
        steps.append(
            DPMStep(
                timestep=t,
                previous=timesteps[n + 1] if n + 1 < len(timesteps) else -1,
                alpha_t=alphas[n],
                sigma_t=sigmas[n],
                keep=keep,
                gain=alphas[n + 1] - alphas[n] * keep,
                line=h / (2.0 * last_h) if math.isfinite(h) and 0.0 < last_h < math.inf else 0.0,
                guided=guided[n],
            )
        )
        last_h = h
    return steps


def dpm_plan(schedule: NoiseSchedule, options: DDIMOptions) -> list[DPMStep]:
    """Return all steps in order; timesteps and guidance as :func:`~largeconcept.diffusion.samplers.ddim_plan`.

    Raises:
        ConfigError: the number of steps does not fit the schedule.
    """
    stops = visits(schedule, options)
    cumprods = [schedule.cumprod_at(t) for t, _, _ in stops] + [schedule.cumprod_at(-1)]
    return dpm_steps(cumprods, [t for t, _, _ in stops], [guided for _, _, guided in stops])


def dpm_sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    options: DDIMOptions,
    x_T: Tensor,
    *,
    prediction_type: PredictionType = "x_0",
    plan: Sequence[DPMStep] | None = None,
) -> Tensor:
    """Denoise ``x_T`` and return the ``x_0`` of the last step.

    Arguments are those of :func:`~largeconcept.diffusion.samplers.ddim_sample`. Guidance acts on the noise, as in DDIM.
    ``epsilon_scaling`` divides the noise in the state that a step starts from.
    ``eta`` is not used: the solver is deterministic.

    Note: with ``clip_sample`` or ``threshold_ratio`` the noise is always that of the bounded ``x_0``, as with
    ``rederive_eps`` in DDIM.

    Raises:
        ConfigError: guidance asks for a pair of predictions and got one.
    """
    x_t = clipped(x_T, options.clip_noise)
    x_0 = last = x_t
    for index, step in enumerate(plan if plan is not None else dpm_plan(schedule, options)):
        prediction, kind = guided_prediction(denoise(x_t, index, step.timestep), x_t, step, prediction_type, options)
        x_0 = bounded(clean(prediction, x_t, step, kind), options)
        if options.epsilon_scaling is not None and step.sigma_t > 0.0:
            eps = to_eps(prediction, x_t, step.alpha_t, step.sigma_t, kind)
            x_t = x_t - step.sigma_t * (1.0 - 1.0 / options.epsilon_scaling) * eps
        ahead = x_0 if step.line == 0.0 else (1.0 + step.line) * x_0 - step.line * last
        x_t = clipped(step.keep * x_t + step.gain * ahead, options.clip_noise)
        last = x_0
    return x_0

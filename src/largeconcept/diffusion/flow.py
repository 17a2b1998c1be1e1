"""Rectified flow (Liu et al., arXiv:2209.03003; Lipman et al., arXiv:2210.02747) with a network that predicts the data.

Convention: time t goes from 0, pure noise, to 1, data, along the straight line

    x_t = (1 - t) eps + t x        v = dx_t / dt = x - eps = (x - x_t) / (1 - t)

so a prediction ``x_hat`` of the data is a prediction of the velocity too, and the squared error of the velocity is that
of the data divided by ``(1 - t)²``. (Many papers count time the other way round.)

Sampling follows ``dx/dt = v(x, t)`` from noise to data; the model is a callable, nothing here knows networks.

Shape letters: C channels; every tensor is ``(…, C)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from largeconcept.diffusion.guidance import guide
from largeconcept.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    Pair = tuple[Tensor, Tensor]
    Denoiser = Callable[[Tensor, int, float, "Tensor | Pair | None"], "Tensor | Pair"]

FlowSolver = Literal["euler", "heun"]


def interpolate(x: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
    """Return ``x_t``; ``t`` is a float or broadcasts to (…, C)."""
    return (1.0 - t) * eps + t * x


def velocity(x_hat: Tensor, x_t: Tensor, t: float) -> Tensor:
    """Return the velocity that a prediction of the data implies; ``t`` must be below 1."""
    return (x_hat - x_t) / (1.0 - t)


def velocity_weight(t: Tensor, min_noise: float) -> Tensor:
    """Return (…,) what turns the squared error of the data into that of the velocity: ``1 / max(1 - t, min_noise)²``.

    The bound keeps the weight finite where there is hardly any noise left.
    """
    return (1.0 - t).clamp(min=min_noise) ** -2


def flow_times(num_inference_steps: int) -> list[float]:
    """Return the N + 1 equally spaced times from 0 to 1 between which a sampler steps.

    Raises:
        ConfigError: fewer than one step.
    """
    if num_inference_steps < 1:
        raise ConfigError("out of range", where="num_inference_steps", got=num_inference_steps, expected="at least 1")
    return [n / num_inference_steps for n in range(num_inference_steps + 1)]


def flow_sample(
    denoise: Denoiser,
    start: Tensor,
    times: Sequence[float],
    *,
    solver: FlowSolver = "euler",
    guidance_scale: float = 1.0,
    guidance_rescale: float = 0.0,
) -> Tensor:
    """Follow the flow from noise to data.

    ``euler`` (order 1, one evaluation a step): ``x + h v(x, t)``. ``heun`` (order 2, two evaluations a step but for
    the last one): ``x + h/2 (v(x, t) + v(x + h v(x, t), t + h))``. The last step of either is Euler's, because the
    velocity of a prediction is undefined at t = 1; one step of order 1 leaves the order of the whole as it is (Karras
    et al., arXiv:2206.00364, algorithm 1). Euler's step to t = 1 ends at the prediction itself.

    Args:
        denoise: called with ``(x_t, n, times[n], previous)``, where ``previous`` is what it returned the time before,
            or ``None``; returns the predicted data, or the pair (with context, without context) for guidance. ``n``
            is the index of the time, never the last one.
        start: (…, C) noise, already multiplied by an initial noise scale.
        times: rising, from 0 (or later) to 1.
        solver: ``euler`` or ``heun``.
        guidance_scale: guides the predicted data, and so the velocity, for both are linear in each other; 1 is
            unguided and looks at the half with context only.
        guidance_rescale: share of the predicted data whose standard deviation is restored.

    Returns:
        (…, C) data.

    Raises:
        ConfigError: an unknown solver, times that do not rise to 1, or guidance without a pair.
    """
    if solver not in get_args(FlowSolver):
        raise ConfigError(
            "unknown solver", where="flow_solver", got=solver, hint=did_you_mean(solver, get_args(FlowSolver))
        )
    if len(times) < 2 or times[-1] != 1.0 or any(b <= a for a, b in pairwise(times)):
        raise ConfigError("times must rise to 1", where="times", got=list(times))
    previous: Tensor | Pair | None = None

    def field(x: Tensor, n: int) -> Tensor:
        nonlocal previous
        previous = output = denoise(x, n, times[n], previous)
        if not isinstance(output, tuple):
            if guidance_scale != 1.0:
                hint = "return (with context, without context), or set guidance_scale to 1"
                raise ConfigError("guidance needs two predictions", where=f"denoiser at time {times[n]}", hint=hint)
            return velocity(output, x, times[n])
        return velocity(guide(*output, guidance_scale, guidance_rescale), x, times[n])

    x, last = start, len(times) - 2
    for n in range(len(times) - 1):
        h = times[n + 1] - times[n]
        v = field(x, n)
        if solver == "heun" and n < last:
            v = 0.5 * (v + field(x + h * v, n + 1))
        x = x + h * v
    return x

"""One door to the samplers of noise-schedule diffusion: a plan made once, then a loop over a callable denoiser.

| ``sampler`` | what | order |
|---|---|---|
| ``ddim`` | arXiv:2010.02502; fresh noise with ``eta`` | 1 |
| ``ddpm`` | ancestral sampling, arXiv:2006.11239, with the posterior's variance: DDIM with ``eta`` 1 | – |
| ``dpm_solver_pp_2m`` | DPM-Solver++(2M), arXiv:2211.01095 | 2 |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from pydantic import model_validator

from largeconcept.diffusion.dpm_solver import DPMStep, dpm_plan, dpm_sample
from largeconcept.diffusion.parameterization import PredictionType
from largeconcept.diffusion.samplers import DDIMOptions, DDIMStep, ddim_plan, ddim_sample

if TYPE_CHECKING:
    from torch import Tensor

    from largeconcept.diffusion.samplers import Denoiser, Noise
    from largeconcept.diffusion.schedules import NoiseSchedule

SamplerType = Literal["ddim", "ddpm", "dpm_solver_pp_2m"]
SamplerStep = DDIMStep | DPMStep


class SamplerOptions(DDIMOptions):
    """Which sampler, and its settings.

    Attributes:
        sampler: ``ddim``, ``ddpm`` (ancestral; it needs fresh noise, and many steps) or ``dpm_solver_pp_2m``
            (deterministic and of second order: fewer steps for the same error). ``eta`` belongs to ``ddim`` alone.
    """

    sampler: SamplerType = "ddim"

    @model_validator(mode="after")
    def _check_eta(self) -> SamplerOptions:
        if self.sampler == "dpm_solver_pp_2m" and self.eta:
            raise ValueError(f"eta {self.eta:g} does not go with sampler dpm_solver_pp_2m, which is deterministic")
        if self.sampler == "ddpm" and self.eta not in (0.0, 1.0):
            raise ValueError(f"eta {self.eta:g} does not go with sampler ddpm, which is ddim with eta 1")
        return self


def sampler_plan(schedule: NoiseSchedule, options: SamplerOptions) -> Sequence[SamplerStep]:
    """Return all steps of the sampler in order; each has ``timestep`` and ``guided``.

    Raises:
        ConfigError: the number of steps does not fit the schedule.
    """
    if options.sampler == "dpm_solver_pp_2m":
        return dpm_plan(schedule, options)
    return ddim_plan(schedule, options.model_copy(update={"eta": 1.0}) if options.sampler == "ddpm" else options)


def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    options: SamplerOptions,
    x_T: Tensor,
    *,
    prediction_type: PredictionType = "x_0",
    noise: Noise | None = None,
    plan: Sequence[SamplerStep] | None = None,
) -> Tensor:
    """Denoise ``x_T`` (…, C) with the sampler of the options and return the ``x_0`` of the last step.

    Args:
        denoise: called with ``(x_t, step_index, timestep)``; see :func:`~largeconcept.diffusion.samplers.ddim_sample`.
        schedule: the schedule that the denoiser was trained with.
        options: sampler and settings.
        x_T: initial noise, already multiplied by an initial noise scale.
        prediction_type: what ``denoise`` returns.
        noise: fresh noise for ``ddpm`` and for ``eta`` > 0: a callable of the step index, or one tensor a step.
        plan: ``sampler_plan(schedule, options)``, for callers that keep it.

    Raises:
        ConfigError: guidance or fresh noise is asked for and was not given.
    """
    steps = plan if plan is not None else sampler_plan(schedule, options)
    if options.sampler == "dpm_solver_pp_2m":
        solver = cast("Sequence[DPMStep]", steps)
        return dpm_sample(denoise, schedule, options, x_T, prediction_type=prediction_type, plan=solver)
    return ddim_sample(
        denoise,
        schedule,
        options,
        x_T,
        prediction_type=prediction_type,
        noise=noise,
        plan=cast("Sequence[DDIMStep]", steps),
    )

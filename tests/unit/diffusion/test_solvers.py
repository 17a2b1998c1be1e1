"""All samplers against theory, on Gaussian data whose ideal denoiser is known in closed form."""

import itertools
import math

import pytest
import torch

from largeconcept.diffusion.dpm_solver import dpm_plan, dpm_sample, dpm_steps
from largeconcept.diffusion.parameterization import to_eps, to_v
from largeconcept.diffusion.samplers import DDIMOptions, ddim_plan, ddim_step
from largeconcept.diffusion.sampling import SamplerOptions, sample, sampler_plan
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.errors import ConfigError

MEAN, STD = 1.7, 0.6
SAMPLERS = ("ddim", "ddpm", "dpm_solver_pp_2m")


def posterior_mean(x_t, cumprod):
    """E[x_0 | x_t] for data N(MEAN, STD²)."""
    alpha = math.sqrt(cumprod)
    return MEAN + alpha * STD**2 / (cumprod * STD**2 + 1 - cumprod) * (x_t - alpha * MEAN)


def ideal(schedule, kind="x_0"):
    def denoise(x_t, index, timestep):
        cumprod = schedule.cumprod_at(timestep)
        alpha, sigma = math.sqrt(cumprod), math.sqrt(1 - cumprod)
        x_0 = posterior_mean(x_t, cumprod)
        if kind == "eps":
            return to_eps(x_0, x_t, alpha, sigma, "x_0")
        return to_v(x_0, x_t, alpha, sigma, "x_0") if kind == "v" else x_0

    return denoise


def exact_flow(x, start, end):
    """The probability flow from one noise level to another: it keeps the number of standard deviations."""
    scale = lambda a: math.sqrt(a * STD**2 + 1 - a)  # noqa: E731
    return math.sqrt(end) * MEAN + scale(end) * (x - math.sqrt(start) * MEAN) / scale(start)


def between(low, high, steps, solver):
    """Go from log-SNR 2 ``low`` to 2 ``high`` in even steps of λ and return the error."""
    cumprods = [1 / (1 + math.exp(-2 * (low + (high - low) * n / steps))) for n in range(steps + 1)]
    plan = dpm_steps(cumprods, list(range(steps, 0, -1)), [False] * steps)
    if solver == "first order":
        plan = [type(step)(**{**{f: getattr(step, f) for f in step.__slots__}, "line": 0.0}) for step in plan]
    states = []

    def denoise(x_t, index, timestep):
        states.append(x_t)
        return posterior_mean(x_t, cumprods[index])

    x = torch.tensor([[0.3]], dtype=torch.float64)
    # one more evaluation, so that the state after the last step is seen too
    cumprods.append(cumprods[-1])
    plan = [*plan, plan[-1]]
    dpm_sample(denoise, NoiseSchedule(), DDIMOptions(), x, plan=plan)
    return abs(float(states[steps] - exact_flow(x, cumprods[0], cumprods[steps])))


@pytest.mark.parametrize(("solver", "order"), [("first order", 1.0), ("second order", 2.0)])
def test_order_in_log_snr(solver, order):
    errors = [between(-3.0, 3.0, steps, solver) for steps in (20, 40, 80, 160)]
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(order - 0.15 < one < order + 0.35 for one in found), (errors, found)


def test_a_step_of_first_order_is_ddim():
    schedule = NoiseSchedule(NoiseScheduleConfig(zero_terminal_snr=False))
    options = DDIMOptions(num_inference_steps=10, epsilon_scaling=1.1)
    generator = torch.Generator().manual_seed(0)
    for first, second in zip(ddim_plan(schedule, options), dpm_plan(schedule, options), strict=True):
        x_t, x_0 = torch.randn(2, 3, 8, dtype=torch.float64, generator=generator)
        assert (first.timestep, first.previous, first.guided) == (second.timestep, second.previous, second.guided)
        expected, _ = ddim_step(x_0, x_t, first, "x_0")
        torch.testing.assert_close(second.keep * x_t + second.gain * x_0, expected, rtol=1e-12, atol=1e-12)
        expected, _ = ddim_step(x_0, x_t, first, "x_0", options)
        one = [type(second)(**{**{f: getattr(second, f) for f in second.__slots__}, "line": 0.0})] * 2
        seen = []
        dpm_sample(lambda x, *_, seen=seen, x_0=x_0: seen.append(x) or x_0, schedule, options, x_t, plan=one)
        torch.testing.assert_close(seen[1], expected, rtol=1e-12, atol=1e-12)


def test_coefficients_at_a_zero_signal_and_into_clean_data_are_finite():
    plan = dpm_plan(NoiseSchedule(), DDIMOptions(num_inference_steps=20))
    assert [step.line > 0 for step in plan] == [False, False] + [True] * 17 + [False]
    first, last = plan[0], plan[-1]
    assert (first.alpha_t, first.sigma_t) == (0.0, 1.0)
    assert first.keep**2 + first.gain**2 == pytest.approx(1.0)  # x_next = sigma x_T + alpha x_0
    assert (last.keep, last.gain, last.previous) == (0.0, 1.0, -1)
    ends_clean = NoiseSchedule(NoiseScheduleConfig(type="sigmoid", sigmoid_gamma=3.5))
    out = dpm_sample(ideal(ends_clean), ends_clean, DDIMOptions(num_inference_steps=100), torch.randn(3, 4))
    assert bool(torch.isfinite(out).all())


def errors_of(sampler, schedule, steps):
    """Errors of mean and standard deviation: a deterministic sampler is affine in x_T for Gaussian data."""
    x_T = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    options = SamplerOptions(sampler=sampler, num_inference_steps=steps, clip_noise=None)
    out = sample(ideal(schedule), schedule, options, x_T)
    return abs(float(out[0]) - MEAN), abs(float(out[1] - out[0]) - STD)


@pytest.mark.parametrize("type_", ["cosine", "sigmoid"])
def test_the_second_order_needs_fewer_steps_on_real_schedules(type_):
    schedule = NoiseSchedule(NoiseScheduleConfig(type=type_, num_timesteps=1000))
    for steps in (10, 20, 40):
        first, second = errors_of("ddim", schedule, steps), errors_of("dpm_solver_pp_2m", schedule, steps)
        assert second[1] < 0.5 * first[1], (steps, first, second)


@pytest.mark.parametrize("type_", ["cosine", "sigmoid"])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1.0), ("dpm_solver_pp_2m", 2.0)])
def test_order_on_real_schedules_with_even_steps_in_log_snr(type_, sampler, order):
    """From pure noise into clean data: the first and the last step, of first order, do not spoil the second."""
    schedule = NoiseSchedule(NoiseScheduleConfig(type=type_, num_timesteps=20_000))
    errors = []
    for steps in (12, 24, 48, 96):
        options = SamplerOptions(
            sampler=sampler, num_inference_steps=steps, timestep_spacing="log_snr", clip_noise=None
        )
        out = sample(ideal(schedule), schedule, options, torch.tensor([[0.0], [1.0]], dtype=torch.float64))
        errors.append(abs(float(out[1] - out[0]) - STD))
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(order - 0.4 < one < order + 0.6 for one in found), (errors, found)


def test_all_samplers_agree_in_the_limit_of_many_steps():
    """Deterministic ones to the same vector, the ancestral one to the same distribution."""
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=1000))
    generator = torch.Generator().manual_seed(1)
    x_T = torch.randn(4000, 1, dtype=torch.float64, generator=generator)
    found = {}
    for sampler in SAMPLERS:
        options = SamplerOptions(sampler=sampler, num_inference_steps=1000)
        noise = lambda index: torch.randn(4000, 1, dtype=torch.float64, generator=generator)  # noqa: E731
        found[sampler] = sample(ideal(schedule), schedule, options, x_T, noise=noise)
    ends_of_flow = MEAN + STD * x_T
    assert float((found["ddim"] - ends_of_flow).abs().max()) < 0.02
    assert float((found["dpm_solver_pp_2m"] - ends_of_flow).abs().max()) < 0.02
    for out in found.values():
        assert float(out.mean()) == pytest.approx(MEAN, abs=5 * STD / math.sqrt(4000))
        assert float(out.std()) == pytest.approx(STD, rel=0.05)
    # the ancestral sampler forgets where it started
    assert abs(float(torch.corrcoef(torch.cat((x_T, found["ddpm"]), 1).T)[0, 1])) < 0.1


def test_ddpm_has_the_posteriors_mean_and_variance():
    """The coefficients against Ho et al. (arXiv:2006.11239), equations 6 and 7, for strides of one."""
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=50, zero_terminal_snr=False))
    plan = sampler_plan(schedule, SamplerOptions(sampler="ddpm", num_inference_steps=50))
    x_0, x_t = torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in plan[:-1]:
        beta = float(schedule.betas[step.timestep])
        now, before = schedule.cumprod_at(step.timestep), schedule.cumprod_at(step.previous)
        mean = math.sqrt(before) * beta / (1 - now) * x_0 + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
        found, _ = ddim_step(x_0, x_t, step, "x_0", noise=torch.zeros_like(x_t))
        torch.testing.assert_close(found, mean, rtol=2e-3, atol=2e-3)
        moved, _ = ddim_step(x_0, x_t, step, "x_0", noise=torch.ones_like(x_t))
        variance = float((moved - found).mean()) ** 2
        assert variance == pytest.approx((1 - before) / (1 - now) * beta, rel=2e-3)


def test_ddpm_keeps_the_marginal_variance_at_every_step():
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=200))
    generator = torch.Generator().manual_seed(0)
    states = {}

    def denoise(x_t, index, timestep):
        states[timestep] = float(x_t.var()), float(x_t.mean())
        return ideal(schedule)(x_t, index, timestep)

    x_T = torch.randn(20_000, 1, dtype=torch.float64, generator=generator)
    noise = lambda index: torch.randn(20_000, 1, dtype=torch.float64, generator=generator)  # noqa: E731
    sample(denoise, schedule, SamplerOptions(sampler="ddpm", num_inference_steps=200), x_T, noise=noise)
    for timestep in (0, 10, 50, 100, 150, 190):
        cumprod = schedule.cumprod_at(timestep)
        variance, mean = states[timestep]
        assert variance == pytest.approx(cumprod * STD**2 + 1 - cumprod, rel=0.05)
        assert mean == pytest.approx(math.sqrt(cumprod) * MEAN, abs=0.05)


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_prediction_types_are_equivalent(sampler, kind):
    schedule = NoiseSchedule(NoiseScheduleConfig(zero_terminal_snr=False))
    generator = torch.Generator().manual_seed(3)
    x_T = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    noise = torch.randn(17, 5, 8, dtype=torch.float64, generator=generator)
    options = SamplerOptions(sampler=sampler, num_inference_steps=17, clip_noise=None)
    base = sample(ideal(schedule), schedule, options, x_T, noise=noise)
    other = sample(ideal(schedule, kind), schedule, options, x_T, prediction_type=kind, noise=noise)
    assert torch.allclose(base, other, atol=1e-7)


@pytest.mark.parametrize("kind", ["x_0", "v"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance(sampler, kind):
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(3)
    x_T = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    noise = torch.randn(40, 5, 8, dtype=torch.float64, generator=generator)
    settings = {"prediction_type": kind, "noise": noise}
    denoise = ideal(schedule, kind)
    plain = sample(denoise, schedule, SamplerOptions(sampler=sampler), x_T, **settings)
    guided = SamplerOptions(sampler=sampler, guidance_scale=3.0, guidance_rescale=0.3)
    twice = sample(lambda *a: (denoise(*a),) * 2, schedule, guided, x_T, **settings)
    assert torch.allclose(plain, twice, atol=1e-9)
    away = sample(lambda *a: (denoise(*a), denoise(*a) - 0.2), schedule, guided, x_T, **settings)
    assert float((away - plain).mean()) > 0.1 if kind == "x_0" else not torch.allclose(away, plain, atol=0.1)
    assert bool(torch.isfinite(away).all())
    with pytest.raises(ConfigError, match="guidance needs two predictions"):
        sample(denoise, schedule, guided, x_T, **settings)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bounds_hold(sampler):
    noise = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    states = []
    options = SamplerOptions(sampler=sampler, num_inference_steps=5, clip_noise=0.5, clip_sample=0.25)
    out = sample(lambda x, i, t: states.append(x) or 100 * x, NoiseSchedule(), options, torch.randn(3, 8), noise=noise)
    assert max(float(x.abs().max()) for x in states) <= 0.5
    assert float(out.abs().max()) == 0.25


def test_what_cannot_be_is_refused():
    schedule, x = NoiseSchedule(), torch.randn(2, 4)
    with pytest.raises(ConfigError, match="deterministic"):
        SamplerOptions(sampler="dpm_solver_pp_2m", eta=0.5)
    with pytest.raises(ConfigError, match="ddim with eta 1"):
        SamplerOptions(sampler="ddpm", eta=0.5)
    with pytest.raises(ConfigError, match="sampler"):
        SamplerOptions(sampler="heun")
    with pytest.raises(ConfigError, match="noise is needed"):
        sample(ideal(schedule), schedule, SamplerOptions(sampler="ddpm"), x)
    with pytest.raises(ConfigError, match="zero_terminal_snr"):
        sample(lambda *a: x, schedule, SamplerOptions(sampler="dpm_solver_pp_2m"), x, prediction_type="eps")


def test_golden_values():
    """Changes of the samplers' numbers are seen."""
    x_T = torch.tensor([[0.5]], dtype=torch.float64)
    found = {
        (sampler, spacing): float(
            sample(
                ideal(NoiseSchedule()),
                NoiseSchedule(),
                SamplerOptions(sampler=sampler, num_inference_steps=9, timestep_spacing=spacing),
                x_T,
                noise=torch.full((9, 1, 1), 0.3, dtype=torch.float64),
            )
        )
        for sampler in SAMPLERS
        for spacing in ("requested", "log_snr")
    }
    assert found == pytest.approx(GOLDEN, abs=1e-6)


GOLDEN = {
    ("ddim", "requested"): 1.9561634,
    ("ddim", "log_snr"): 1.9258641,
    ("ddpm", "requested"): 2.0773770,
    ("ddpm", "log_snr"): 1.9322078,
    ("dpm_solver_pp_2m", "requested"): 1.9865236,
    ("dpm_solver_pp_2m", "log_snr"): 2.0065729,
}

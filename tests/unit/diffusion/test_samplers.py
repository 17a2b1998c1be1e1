"""DDIM against theory: for Gaussian data the ideal denoiser is known, and so is what sampling with it must give."""

import itertools
import math

import pytest
import torch

from largeconcept.diffusion.parameterization import to_eps, to_v
from largeconcept.diffusion.samplers import DDIMOptions, ddim_coefficients, ddim_plan, ddim_sample, ddim_step
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.errors import ConfigError

MEAN, STD = 1.7, 0.6


def ideal(schedule, kind="x_0", mean=MEAN, std=STD):
    """E[x_0 | x_t] for data N(mean, std²), in any prediction type."""

    def denoise(x_t, index, timestep):
        cumprod = schedule.cumprod_at(timestep)
        alpha, sigma = math.sqrt(cumprod), math.sqrt(1 - cumprod)
        x_0 = mean + alpha * std**2 / (cumprod * std**2 + 1 - cumprod) * (x_t - alpha * mean)
        if kind == "eps":
            return to_eps(x_0, x_t, alpha, sigma, "x_0")
        return to_v(x_0, x_t, alpha, sigma, "x_0") if kind == "v" else x_0

    return denoise


def affine(schedule, options, **kwargs):
    """The sampler is affine in x_T for Gaussian data: return its slope (standard deviation) and offset (mean)."""
    x_T = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    out = ddim_sample(ideal(schedule), schedule, options, x_T, **kwargs)
    return float(out[1, 0] - out[0, 0]), float(out[0, 0])


@pytest.mark.parametrize("type_", ["cosine", "sigmoid", "quadratic"])
def test_converges_to_the_gaussian_with_the_order_of_euler(type_):
    schedule = NoiseSchedule(NoiseScheduleConfig(type=type_, num_timesteps=2000, beta_end=0.02))
    errors = []
    for steps in (25, 50, 100, 200):
        std, mean = affine(schedule, DDIMOptions(num_inference_steps=steps))
        assert mean == pytest.approx(MEAN, abs=0.2 * 25 / steps)
        errors.append(abs(std - STD))
    # DDIM is the Euler method in a changed time: twice the steps, half the error.
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 0.01
    assert all(0.8 < order < 1.3 for order in orders), (errors, orders)


def test_every_eta_has_the_same_marginal():
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=400))
    generator = torch.Generator().manual_seed(0)
    for eta in (0.0, 0.5, 1.0):
        options = DDIMOptions(num_inference_steps=400, eta=eta)
        x_T = torch.randn(4000, 1, dtype=torch.float64, generator=generator)
        noise = torch.randn(400, 4000, 1, dtype=torch.float64, generator=generator)
        out = ddim_sample(ideal(schedule), schedule, options, x_T, noise=noise)
        assert float(out.mean()) == pytest.approx(MEAN, abs=5 * STD / math.sqrt(4000))
        assert float(out.std()) == pytest.approx(STD, rel=0.05)


def test_eta_one_is_the_posterior_of_ddpm():
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=50, zero_terminal_snr=False))
    for t in range(1, 50):
        step = ddim_coefficients(schedule, t, t - 1, eta=1.0)
        beta = float(schedule.betas[t])
        now, before = schedule.cumprod_at(t), schedule.cumprod_at(t - 1)
        assert step.std**2 == pytest.approx((1 - before) / (1 - now) * beta, rel=2e-3)
        # the mean: coefficients of x_0 and x_t of DDPM's posterior, with eps written as (x_t - alpha x_0) / sigma
        of_x_t = step.direction / step.sigma_t
        of_x_0 = step.alpha_previous - of_x_t * step.alpha_t
        assert of_x_0 == pytest.approx(math.sqrt(before) * beta / (1 - now), rel=2e-3)
        assert of_x_t == pytest.approx(math.sqrt(1 - beta) * (1 - before) / (1 - now), rel=2e-3)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_prediction_types_are_equivalent(kind):
    schedule = NoiseSchedule(NoiseScheduleConfig(zero_terminal_snr=False))
    x_T = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    options = DDIMOptions(num_inference_steps=17, clip_noise=None)
    base = ddim_sample(ideal(schedule), schedule, options, x_T)
    other = ddim_sample(ideal(schedule, kind), schedule, options, x_T, prediction_type=kind)
    assert torch.allclose(base, other, atol=1e-7)


@pytest.mark.parametrize("kind", ["x_0", "v"])
def test_guidance_of_equal_halves_changes_nothing(kind):
    schedule = NoiseSchedule()
    x_T = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    denoise = ideal(schedule, kind)
    plain = ddim_sample(denoise, schedule, DDIMOptions(), x_T, prediction_type=kind)
    guided = DDIMOptions(guidance_scale=3.0)
    twice = ddim_sample(lambda *a: (denoise(*a),) * 2, schedule, guided, x_T, prediction_type=kind)
    assert torch.allclose(plain, twice, atol=1e-9)
    far = lambda *a: (denoise(*a), denoise(*a) + 1.0)  # noqa: E731
    assert not torch.allclose(plain, ddim_sample(far, schedule, guided, x_T, prediction_type=kind), atol=0.1)


def test_guidance_scale_of_one_is_unguided():
    schedule = NoiseSchedule()
    x_T = torch.randn(2, 4)
    denoise = ideal(schedule)
    plain = ddim_sample(denoise, schedule, DDIMOptions(), x_T)
    pair = ddim_sample(lambda *a: (denoise(*a), torch.full_like(x_T, math.nan)), schedule, DDIMOptions(), x_T)
    assert torch.equal(plain, pair)


def test_the_first_step_is_unguided_and_the_others_are_not():
    plan = ddim_plan(NoiseSchedule(), DDIMOptions(guidance_scale=2.0))
    assert [step.guided for step in plan] == [False] + [True] * 39
    assert not any(step.guided for step in ddim_plan(NoiseSchedule(), DDIMOptions()))
    schedule = NoiseSchedule()

    def denoise(x_t, index, timestep):
        cond = ideal(schedule)(x_t, index, timestep)
        return cond if index == 0 else (cond, cond)

    out = ddim_sample(denoise, schedule, DDIMOptions(guidance_scale=2.0), torch.randn(2, 4))
    assert bool(torch.isfinite(out).all())
    with pytest.raises(ConfigError, match="guidance_scale"):
        ddim_sample(ideal(schedule), schedule, DDIMOptions(guidance_scale=2.0), torch.randn(2, 4))


def test_plan_goes_from_timestep_to_timestep_and_ends_in_clean_data():
    for spacing in ("requested", "trailing", "leading", "linspace"):
        plan = ddim_plan(NoiseSchedule(), DDIMOptions(num_inference_steps=7, timestep_spacing=spacing))
        assert [s.previous for s in plan] == [*(s.timestep for s in plan[1:]), -1]
        assert plan[-1].alpha_previous == 1.0 and plan[-1].direction == 0.0
    assert all(isinstance(value, float | int) for step in plan for value in (step.alpha_t, step.direction, step.std))


def test_a_schedule_whose_first_timestep_is_clean_stays_finite():
    schedule = NoiseSchedule(NoiseScheduleConfig(type="sigmoid", sigmoid_gamma=3.5))
    assert schedule.cumprod_at(0) == 1.0
    denoise = ideal(schedule)
    options = DDIMOptions(num_inference_steps=100, guidance_scale=2.0)
    out = ddim_sample(lambda *a: (denoise(*a), denoise(*a)), schedule, options, torch.randn(3, 4))
    assert bool(torch.isfinite(out).all())


def test_epsilon_scaling_divides_the_noise_and_leaves_x_0():
    schedule = NoiseSchedule()
    step = ddim_coefficients(schedule, 50, 40)
    x_t, prediction = torch.randn(3, 8), torch.randn(3, 8)
    plain, x_0 = ddim_step(prediction, x_t, step, "v")
    scaled, same = ddim_step(prediction, x_t, step, "v", DDIMOptions(epsilon_scaling=1.5))
    assert torch.equal(x_0, same)
    eps = to_eps(prediction, x_t, step.alpha_t, step.sigma_t, "v")
    assert torch.allclose(plain - scaled, step.direction * eps * (1 - 1 / 1.5), atol=1e-5)


def test_bounds():
    step = ddim_coefficients(NoiseSchedule(), 50, 40)
    x_t, big = torch.randn(3, 100), 10 * torch.randn(3, 100)
    _, clipped = ddim_step(big, x_t, step, "x_0", DDIMOptions(clip_sample=2.0))
    assert float(clipped.abs().max()) == 2.0
    _, squeezed = ddim_step(big, x_t, step, "x_0", DDIMOptions(threshold_ratio=0.9, threshold_max=4.0))
    assert torch.allclose(squeezed, big.clamp(-4, 4) / 4)
    states = []
    options = DDIMOptions(num_inference_steps=5, clip_noise=0.5)
    ddim_sample(lambda x, i, t: states.append(x) or 100 * x, NoiseSchedule(), options, torch.randn(3, 8))
    assert max(float(x.abs().max()) for x in states) <= 0.5


def test_what_cannot_be_is_refused():
    schedule = NoiseSchedule()
    x = torch.randn(2, 4)
    with pytest.raises(ConfigError, match="zero_terminal_snr"):
        ddim_sample(lambda *a: x, schedule, DDIMOptions(), x, prediction_type="eps")
    with pytest.raises(ConfigError, match="noise"):
        ddim_sample(lambda *a: x, schedule, DDIMOptions(eta=0.5), x)
    with pytest.raises(ConfigError, match="num_inference_steps"):
        ddim_plan(schedule, DDIMOptions(num_inference_steps=101))

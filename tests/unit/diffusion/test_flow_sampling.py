"""Rectified flow: the order of its solvers on Gaussian data, whose field and flow are known, guidance, complaints."""

import itertools
import math

import pytest
import torch

from largeconcept.diffusion.flow import flow_sample, flow_times, interpolate, velocity, velocity_weight
from largeconcept.errors import ConfigError

MEAN, STD = 1.5, 0.4


def ideal(mean=MEAN, std=STD):
    """E[x | x_t] for data N(mean, std²): x_t is normal with mean t·mean and variance (t std)² + (1 - t)²."""

    def denoise(x_t, n, t, previous):
        return mean + t * std**2 / ((t * std) ** 2 + (1.0 - t) ** 2) * (x_t - t * mean)

    return denoise


def error(steps, solver):
    """Largest distance from the exact end of the flow, which takes eps to mean + std · eps."""
    eps = torch.linspace(-3, 3, 13, dtype=torch.float64).unsqueeze(1)
    got = flow_sample(ideal(), eps, flow_times(steps), solver=solver)
    return float((got - (MEAN + STD * eps)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver, order):
    errors = [error(steps, solver) for steps in (32, 64, 128, 256)]
    assert errors[-1] < 0.02
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.3)


def test_a_point_is_reached_in_any_number_of_steps():
    """Data of one point: the field is straight, so both solvers are exact."""
    eps = torch.randn(5, 3, dtype=torch.float64)
    for solver in ("euler", "heun"):
        for steps in (1, 2, 7):
            got = flow_sample(ideal(2.0, 0.0), eps, flow_times(steps), solver=solver)
            torch.testing.assert_close(got, torch.full_like(eps, 2.0))


def test_velocity_is_the_derivative_of_the_interpolation():
    x, eps, t, h = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64), 0.3, 1e-6
    slope = (interpolate(x, eps, t + h) - interpolate(x, eps, t - h)) / (2 * h)
    torch.testing.assert_close(velocity(x, interpolate(x, eps, t), t), slope)
    torch.testing.assert_close(slope, x - eps)
    assert torch.equal(interpolate(x, eps, 0.0), eps) and torch.equal(interpolate(x, eps, 1.0), x)


def test_the_weight_turns_the_error_of_the_data_into_that_of_the_velocity():
    x, guess, eps = torch.randn(3, 6, 5, dtype=torch.float64)
    for i, t in enumerate([0.0, 0.2, 0.5, 0.8, 0.93, 0.97]):
        x_t = interpolate(x[i], eps[i], t)
        wanted = (velocity(guess[i], x_t, t) - velocity(x[i], x_t, t)).square().sum()
        got = velocity_weight(torch.tensor(t, dtype=x.dtype), 0.05) * (guess[i] - x[i]).square().sum()
        if t < 0.95:
            torch.testing.assert_close(got, wanted, check_dtype=False)
        else:
            assert got < wanted
    assert velocity_weight(torch.tensor(1.0), 0.05) == pytest.approx(400)


@pytest.mark.parametrize(("solver", "calls"), [("euler", [0, 1, 2, 3]), ("heun", [0, 1, 1, 2, 2, 3, 3])])
def test_what_the_denoiser_is_told(solver, calls):
    seen = []

    def denoise(x_t, n, t, previous):
        seen.append((n, t, previous))
        return x_t + len(seen)

    flow_sample(denoise, torch.zeros(2, 3), flow_times(4), solver=solver)
    assert [n for n, _, _ in seen] == calls
    assert [t for _, t, _ in seen] == [n / 4 for n in calls]
    assert seen[0][2] is None and all(previous is not None for _, _, previous in seen[1:])


def test_guidance_acts_on_the_data_and_so_on_the_velocity():
    """The flow to a guided point ends there; rescaling keeps the spread of what was predicted with context."""
    cond, uncond = torch.randn(2, 4, 6)
    eps = torch.randn(4, 6)

    def pair(x_t, n, t, previous):
        return cond, uncond

    torch.testing.assert_close(flow_sample(pair, eps, flow_times(3)), cond)
    got = flow_sample(pair, eps, flow_times(3), guidance_scale=3.0)
    torch.testing.assert_close(got, uncond + 3 * (cond - uncond))
    got = flow_sample(pair, eps, flow_times(3), guidance_scale=3.0, guidance_rescale=1.0)
    torch.testing.assert_close(got.std(dim=-1), cond.std(dim=-1))


def test_complaints():
    eps = torch.zeros(1, 2)
    for call, message in (
        (lambda: flow_times(0), "num_inference_steps: out of range"),
        (lambda: flow_sample(ideal(), eps, [0.0, 0.5]), "rise to 1"),
        (lambda: flow_sample(ideal(), eps, [0.0, 0.5, 0.5, 1.0]), "rise to 1"),
        (lambda: flow_sample(ideal(), eps, [0.0, 1.0], solver="huen"), "did you mean heun"),
        (lambda: flow_sample(ideal(), eps, [0.0, 1.0], guidance_scale=2.0), "two predictions"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()

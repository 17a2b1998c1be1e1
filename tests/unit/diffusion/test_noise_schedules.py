import itertools

import pytest
import torch

from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig, inference_timesteps
from largeconcept.errors import ConfigError

TYPES = ["cosine", "linear", "quadratic", "scaled_linear", "sigmoid"]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("total", [2, 10, 100, 1000])
def test_signal_falls_from_almost_one(type_, zero, total):
    schedule = NoiseSchedule(NoiseScheduleConfig(type=type_, num_timesteps=total, zero_terminal_snr=zero))
    cumprod = schedule.alphas_cumprod
    assert cumprod.dtype == torch.float32 and cumprod.shape == (total,)
    assert bool((cumprod[1:] < cumprod[:-1]).all()) and 0 < cumprod[0] <= 1
    assert (cumprod[-1] == 0) == zero
    alpha, sigma = schedule.alpha_sigma(torch.arange(total))
    assert alpha.shape == (total, 1)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), atol=1e-6)
    assert torch.allclose(alpha.squeeze() ** 2, cumprod, atol=1e-6)


def test_cosine_equals_its_closed_form_without_rescaling():
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=1000, zero_terminal_snr=False))
    f = lambda u: torch.cos((u + 0.008) / 1.008 * torch.pi / 2) ** 2  # noqa: E731
    u = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    expected = f(u) / f(torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(schedule.alphas_cumprod[:900].double(), expected[:900], atol=1e-6)


def test_sigmoid_equals_its_closed_form_without_rescaling():
    schedule = NoiseSchedule(
        NoiseScheduleConfig(type="sigmoid", sigmoid_gamma=1.5, sigmoid_delta=-1, zero_terminal_snr=False)
    )
    u = (torch.arange(100, dtype=torch.float64) + 1) / 100
    expected = torch.sigmoid(-1 - 1.5 * torch.logit(u))
    assert torch.allclose(schedule.alphas_cumprod[:95].double(), expected[:95], atol=1e-6)


def test_rescaling_keeps_the_first_timestep():
    plain = NoiseSchedule(NoiseScheduleConfig(type="linear", zero_terminal_snr=False))
    rescaled = NoiseSchedule(NoiseScheduleConfig(type="linear"))
    assert torch.allclose(plain.alphas_cumprod[0], rescaled.alphas_cumprod[0])
    assert plain.alphas_cumprod[-1] > 0.3 and rescaled.alphas_cumprod[-1] == 0


def test_alpha_sigma_of_any_shape_and_dtype():
    schedule = NoiseSchedule()
    timesteps = torch.randint(0, 100, (3, 5))
    alpha, sigma = schedule.alpha_sigma(timesteps, torch.float64)
    assert alpha.shape == sigma.shape == (3, 5, 1) and alpha.dtype == torch.float64
    assert schedule.cumprod_at(-1) == 1.0 == NoiseSchedule().cumprod_at(-7)
    kept = NoiseSchedule(NoiseScheduleConfig(set_alpha_to_one=False))
    assert kept.cumprod_at(-1) == kept.cumprod_at(0)


def test_requested_spacing_for_every_number_of_steps():
    for total in (2, 7, 100, 1000):
        for steps in range(1, total + 1):
            timesteps = inference_timesteps(total, steps)
            assert len(timesteps) == steps == len(set(timesteps))
            assert timesteps[0] == total - 1 and timesteps[-1] >= 0
            assert timesteps == sorted(timesteps, reverse=True)
            strides = [a - b for a, b in itertools.pairwise(timesteps)]
            assert not strides or max(strides) - min(strides) <= 1
    assert inference_timesteps(100, 10) == list(range(99, 0, -10))


@pytest.mark.parametrize("spacing", ["requested", "trailing", "meta", "leading", "linspace"])
def test_every_spacing_is_a_descending_list_inside_the_schedule(spacing):
    for steps in (1, 2, 3, 13, 40, 99, 100):
        timesteps = inference_timesteps(100, steps, spacing)
        assert timesteps == sorted(set(timesteps), reverse=True)
        assert timesteps[-1] >= 0 and timesteps[0] <= 99 and len(timesteps) >= steps


def test_errors_name_the_setting():
    with pytest.raises(ConfigError, match=r"num_inference_steps.*1 to 100.*101"):
        inference_timesteps(100, 101)
    with pytest.raises(ConfigError, match="num_inference_steps"):
        inference_timesteps(100, 0)
    with pytest.raises(ConfigError, match="trailing"):
        inference_timesteps(100, 10, "trailling")
    with pytest.raises(ConfigError, match="beta_end"):
        NoiseScheduleConfig.from_dict({"beta_start": 0.5, "beta_end": 0.1})
    with pytest.raises(ConfigError, match="scaled_linear"):
        NoiseScheduleConfig.from_dict({"type": "quadratic", "exponent": 3})
    with pytest.raises(ConfigError):
        NoiseScheduleConfig.from_dict({"type": "cosin"})

import itertools

import pytest
import torch

from largeconcept.diffusion.schedules import (
    PAPER_SCHEDULES,
    NoiseSchedule,
    NoiseScheduleConfig,
    inference_timesteps,
    paper_schedule,
)
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


# alphas_cumprod at 0, 1, T/4, T/2, 3T/4, T-2, T-1 of the reference implementation.
GOLDEN = {
    "cosine": (100, True, [0.99936867, 0.99825197, 0.83554322, 0.47805437, 0.13326627, 2.2796521e-4, 0]),
    "cosine, not rescaled": (
        100,
        False,
        [0.99936873, 0.99825251, 0.83562052, 0.47826457, 0.13349481, 2.4285720e-4, 2.4285407e-7],
    ),
    "cosine of 1000": (1000, True, [0.99995875, 0.99991262, 0.84588110, 0.49226481, 0.14315557, 2.2778131e-6, 0]),
    "sigmoid(1.5,0)": (100, True, [0.99898565, 0.99709105, 0.82746959, 0.48457685, 0.15023476, 9.5295173e-4, 0]),
    "sigmoid(1.5,-1)": (100, True, [0.99724817, 0.99213427, 0.63832635, 0.25700280, 0.06105512, 3.5051847e-4, 0]),
    "sigmoid(3.5,0)": (100, True, [1.0, 0.99999881, 0.97493470, 0.46504799, 0.01738662, 9.7134524e-8, 0]),
    "quadratic": (100, True, [0.99990010, 0.99947757, 0.93272108, 0.66670519, 0.23946124, 5.4104568e-4, 0]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    total, zero, expected = GOLDEN[name]
    if name in PAPER_SCHEDULES:
        config = paper_schedule(name, total)
    else:
        kind = name.replace(",", "(").split("(")[0].split(" ")[0]
        config = NoiseScheduleConfig(type=kind, num_timesteps=total, zero_terminal_snr=zero)
    assert config.zero_terminal_snr == zero
    cumprod = NoiseSchedule(config).alphas_cumprod
    places = [0, 1, total // 4, total // 2, 3 * total // 4, total - 2, total - 1]
    assert cumprod[places].tolist() == pytest.approx(expected, rel=2e-5, abs=1e-9)


def test_the_papers_schedules_by_name():
    assert len(PAPER_SCHEDULES) == 7
    for name in PAPER_SCHEDULES:
        config = paper_schedule(name)
        assert config.num_timesteps == 100 and config.zero_terminal_snr
        assert NoiseSchedule(config).alphas_cumprod[-1] == 0
    sharp = paper_schedule("sigmoid(0.8,-1)")
    assert (sharp.sigmoid_gamma, sharp.sigmoid_delta) == (0.8, -1.0)
    # section 2.3.1: beta(t) = (sqrt(b0) + t/T (sqrt(b1) - sqrt(b0)))², before rescaling
    plain = paper_schedule("quadratic-2").override("zero_terminal_snr=false")
    betas = NoiseSchedule(plain).betas
    middle = (0.02**0.5 + 0.5 * (0.022**0.5 - 0.02**0.5)) ** 2
    assert betas[[0, -1]].tolist() == pytest.approx([0.02, 0.022])
    assert float(betas[49:51].mean()) == pytest.approx(middle, rel=1e-4)
    with pytest.raises(ConfigError, match=r"did you mean quadratic-[12]"):
        paper_schedule("quadratic-3")


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


@pytest.mark.parametrize("name", [*PAPER_SCHEDULES, "not rescaled"])
def test_log_snr_spacing(name):
    config = NoiseScheduleConfig(zero_terminal_snr=False) if name == "not rescaled" else paper_schedule(name)
    schedule = NoiseSchedule(config)
    for steps in range(1, 101):
        timesteps = schedule.inference_timesteps(steps, "log_snr")
        assert len(timesteps) == steps and timesteps[0] == 99
        assert timesteps == sorted(set(timesteps), reverse=True)
    assert timesteps == list(range(99, -1, -1))
    assert schedule.inference_timesteps(7, "linspace") == inference_timesteps(100, 7, "linspace")


def test_log_snr_spacing_is_even_where_there_are_timesteps():
    schedule = NoiseSchedule(NoiseScheduleConfig(num_timesteps=10_000))
    timesteps = schedule.inference_timesteps(13, "log_snr")
    half_log_snr = 0.5 * schedule.snr[timesteps[1:]].double().log()
    assert half_log_snr.tolist() == pytest.approx([-4.5 + 9 * n / 11 for n in range(12)], abs=0.02)
    middle = NoiseSchedule(NoiseScheduleConfig(num_timesteps=1000)).inference_timesteps(2, "log_snr")[1]
    assert 300 < middle < 700


def test_errors_name_the_setting():
    with pytest.raises(ConfigError, match=r"num_inference_steps.*1 to 100.*101"):
        NoiseSchedule().inference_timesteps(101, "log_snr")
    with pytest.raises(ConfigError, match=r"depends on the schedule"):
        inference_timesteps(100, 10, "log_snr")
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

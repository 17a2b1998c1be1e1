import itertools

import pytest
import torch

from largeconcept.diffusion.guidance import guide
from largeconcept.diffusion.parameterization import add_noise, target, to_eps, to_v, to_x_0
from largeconcept.diffusion.schedules import NoiseSchedule
from largeconcept.diffusion.weighting import WeightingConfig, loss_weights, normalize_expected
from largeconcept.errors import ConfigError

KINDS = ["x_0", "eps", "v"]
CONVERT = {"x_0": to_x_0, "eps": to_eps, "v": to_v}


@pytest.fixture
def noised():
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(98, 8, dtype=torch.float64, generator=generator)
    eps = torch.randn(98, 8, dtype=torch.float64, generator=generator)
    # timestep 99 has no signal: x_0 cannot be had from eps there
    cumprod = NoiseSchedule().alphas_cumprod.double()[1:99, None]
    alpha, sigma = cumprod.sqrt(), (1 - cumprod).sqrt()
    return x_0, eps, alpha, sigma, add_noise(x_0, eps, alpha, sigma)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_gives_back_data_and_noise(noised, kind):
    x_0, eps, alpha, sigma, x_t = noised
    perfect = target(x_0, eps, alpha, sigma, kind)
    assert torch.allclose(to_x_0(perfect, x_t, alpha, sigma, kind), x_0, atol=1e-9)
    assert torch.allclose(to_eps(perfect, x_t, alpha, sigma, kind), eps, atol=1e-9)
    assert torch.allclose(to_v(perfect, x_t, alpha, sigma, kind), alpha * eps - sigma * x_0, atol=1e-9)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(KINDS, 2)))
def test_any_prediction_survives_a_round_trip(noised, first, second):
    _, _, alpha, sigma, x_t = noised
    prediction = torch.randn(98, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    there = CONVERT[second](prediction, x_t, alpha, sigma, first)
    back = CONVERT[first](there, x_t, alpha, sigma, second)
    assert not torch.allclose(there, prediction)
    assert torch.allclose(back, prediction, atol=1e-8)


def test_an_unknown_kind_is_refused():
    x = torch.zeros(1, 2)
    for call in (target, *CONVERT.values()):
        with pytest.raises(ConfigError, match="prediction_type"):
            call(x, x, 0.5, 0.5, "epsilon")


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_gives_the_same_loss_for_every_prediction_type(noised, kind):
    """Whatever the network predicts, its weighted error is clamp(SNR) times the error of x_0."""
    x_0, eps, alpha, sigma, x_t = noised
    wrong = x_0 + torch.randn(98, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    prediction = CONVERT[kind](wrong, x_t, alpha, sigma, "x_0")
    error = (prediction - target(x_0, eps, alpha, sigma, kind)).square().sum(-1)
    snr = (alpha**2 / sigma**2).squeeze(-1)
    weights = loss_weights(snr, WeightingConfig(type="min_snr", max_gamma=3.0), kind).double()
    assert torch.allclose(weights * error, snr.clamp(max=3.0) * (wrong - x_0).square().sum(-1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("type_", ["none", "clamp_snr", "min_snr"])
@pytest.mark.parametrize("low", [0.0, 0.001])
def test_weights_are_finite_at_the_ends(type_, kind, low):
    snr = torch.tensor([float("inf"), 1e6, 1.0, 1e-6, 0.0])
    weights = loss_weights(snr, WeightingConfig(type=type_, min_gamma=low), kind)
    assert bool(torch.isfinite(weights).all()) and bool((weights >= 0).all())
    if type_ == "clamp_snr":
        assert torch.allclose(weights, torch.tensor([5.0, 5.0, 1.0, max(low, 1e-6), low]))


def test_expected_normalisation():
    probabilities = torch.tensor([0.5, 0.25, 0.25])
    weights = normalize_expected(torch.tensor([1.0, 2.0, 6.0]), probabilities)
    assert torch.allclose((weights * probabilities).sum(), torch.tensor(1.0))
    with pytest.raises(ConfigError, match="zero"):
        normalize_expected(torch.zeros(3), probabilities)
    with pytest.raises(ConfigError, match="min_gamma"):
        WeightingConfig.from_dict({"min_gamma": 5, "max_gamma": 1})


def test_guidance_of_one_is_the_conditional_prediction():
    cond, uncond = torch.randn(4, 16), torch.randn(4, 16)
    assert guide(cond, uncond, 1.0, 0.7) is cond
    assert torch.allclose(guide(cond, uncond, 0.0), uncond)
    assert torch.allclose(guide(cond, uncond, 3.0), 3 * cond - 2 * uncond, atol=1e-5)


def test_full_rescaling_restores_the_standard_deviation():
    cond, uncond = torch.randn(4, 16), torch.randn(4, 16)
    assert torch.allclose(guide(cond, uncond, 5.0, 1.0).std(-1), cond.std(-1), rtol=1e-5)
    assert not torch.allclose(guide(cond, uncond, 5.0, 0.0).std(-1), cond.std(-1), rtol=1e-2)

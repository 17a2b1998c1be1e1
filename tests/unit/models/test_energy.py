"""The energy model, its score against closed forms, what it learns, its candidates, a golden value."""

import math

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.energy import EnergyPredictor, medoid
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import SeededNoise
from largeconcept.models import EnergyConceptModel, EnergyConfig, build_model
from largeconcept.objectives import build_objective
from largeconcept.objectives.energy import EnergyObjectiveConfig, energy_terms
from largeconcept.types import ConceptBatch

SMALL = {"concept_dim": 6, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, "dropout": 0.0}


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = EnergyConfig.from_dict({**SMALL, "num_layers": 2, "num_head_layers": 2, "noise_dim": 5})
    model = EnergyConceptModel(config).eval()
    torch.nn.init.normal_(model.first_state)
    return model


def document(batch=3, size=7, samples=4):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, size, 6, generator=draw)
    return x, torch.rand(batch, size, samples, 5, generator=draw) - 0.5


def objective(dim=6, **settings):
    return build_objective(EnergyObjectiveConfig.from_dict(settings), ConceptNormalizer.identity(dim))


def batch_of(x, lengths=None, sources=None):
    lengths = torch.tensor(lengths or [x.shape[1]] * len(x))
    return ConceptBatch(x, lengths, torch.arange(len(x)), None if sources is None else torch.tensor(sources))


def mean_distance(mean, variance):
    """E|Z| of Z ~ N(mean, variance)."""
    std = math.sqrt(variance)
    return std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * variance)) + mean * math.erf(
        mean / (std * math.sqrt(2))
    )


def expected_score(mean, std, true_mean, true_std):
    """The energy score of N(mean, std²) where N(true_mean, true_std²) is true, in closed form."""
    return 2 * mean_distance(mean - true_mean, std**2 + true_std**2) - mean_distance(0.0, 2 * std**2)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 1.2), (0.5, 0.3), (2.0, 1.2), (-1.0, 2.0)])
@pytest.mark.parametrize(("samples", "truths"), [(2, 1), (5, 3)])
def test_the_estimate_is_that_of_the_closed_form(mean, std, samples, truths):
    """Averaged over many positions, with as few as two samples and one truth: it is unbiased."""
    positions = 60_000
    x = mean + std * normal(positions, samples, 1)
    y = 0.5 + 1.2 * normal(positions, truths, 1, seed=1)
    distance, spread = energy_terms(x, y)
    score = 2 * distance - spread
    error = 4 * float(score.std()) / math.sqrt(positions)
    assert float(score.mean()) == pytest.approx(expected_score(mean, std, 0.5, 1.2), abs=error)
    assert error < 0.06


def test_the_score_in_many_dimensions():
    """Of two isotropic normal vectors: E|Z| = std sqrt(2) Gamma((C + 1) / 2) / Gamma(C / 2)."""
    channels = 24
    mean = math.sqrt(2) * math.exp(math.lgamma((channels + 1) / 2) - math.lgamma(channels / 2))
    distance, spread = energy_terms(normal(20_000, 2, channels), 2 * normal(20_000, 1, channels, seed=1))
    assert float(distance.mean()) == pytest.approx(math.sqrt(5) * mean, rel=2e-3)
    assert float(spread.mean()) == pytest.approx(math.sqrt(2) * mean, rel=2e-3)
    squared, _ = energy_terms(normal(20_000, 2, channels), 2 * normal(20_000, 1, channels, seed=1), alpha=1.999)
    assert float(squared.mean()) == pytest.approx(5 * channels, rel=1e-2)


def test_the_score_is_proper():
    """The least of the closed form, and of its estimate, is at the true mean and standard deviation."""
    grid = [(m, s) for m in (-0.5, 0.0, 0.5, 1.0, 1.5) for s in (0.4, 0.8, 1.2, 1.6, 2.0)]
    exact = {(m, s): expected_score(m, s, 0.5, 1.2) for m, s in grid}
    assert min(exact, key=exact.get) == (0.5, 1.2)
    u, y = normal(40_000, 4, 1), 0.5 + 1.2 * normal(40_000, 1, 1, seed=1)
    for alpha in (0.5, 1.0, 1.5):
        found = {}
        for m, s in grid:
            distance, spread = energy_terms(m + s * u, y, alpha)
            found[m, s] = float((2 * distance - spread).mean())
        assert min(found, key=found.get) == (0.5, 1.2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_equal_samples_have_a_finite_gradient(alpha):
    samples = torch.zeros(2, 3, 4, requires_grad=True)
    distance, spread = energy_terms(samples, torch.zeros(2, 1, 4), alpha)
    (2 * distance - spread).sum().backward()
    assert samples.grad.isfinite().all()


@torch.no_grad()
def test_the_loss_is_the_score_of_the_model_s_samples(model):
    x, noise = document()
    lengths = [7, 4, 7]
    loss = objective().loss(model, batch_of(x, lengths), noise)
    samples, expected = model(x, noise), 0.0
    for b in range(3):
        for i in range(lengths[b]):
            one = samples[b, i]
            to_truth = (one - x[b, i]).norm(dim=-1).mean()
            pairs = [(one[n] - one[k]).norm() for n in range(4) for k in range(4) if n != k]
            expected += 2 * to_truth - sum(pairs) / len(pairs)
    torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-3)
    assert float(loss.count) == 18
    l2 = (samples[..., 0, :] - x).norm(dim=-1) * (torch.arange(7) < torch.tensor(lengths)[:, None])
    torch.testing.assert_close(loss.metrics["l2"][0], l2.sum())


@torch.no_grad()
def test_truths_are_drawn_around_the_concept(model):
    x, noise = document()
    made = objective(target_std=0.3, num_targets=5)
    drawn = made._truth_noise(StepRandom(0), batch_of(x), 7)
    assert drawn.shape == (3, 7, 5, 6)
    got = made.loss(model, batch_of(x), noise, drawn)
    distance, spread = energy_terms(model(x, noise), x.unsqueeze(2) + 0.3 * drawn)
    torch.testing.assert_close(got.sum, (2 * distance - spread).sum())
    assert made(model, batch_of(x), StepRandom(0)).sum != objective()(model, batch_of(x), StepRandom(0)).sum


@torch.no_grad()
def test_what_is_drawn_depends_on_seed_step_and_sample_only(model):
    x, _ = document(batch=2)
    make = objective(target_std=0.1, num_targets=2)
    both = make(model, batch_of(x, [7, 5]), StepRandom(3, 4))
    alone = [
        make(model, ConceptBatch(x[b : b + 1, :n], torch.tensor([n]), torch.tensor([b])), StepRandom(3, 4))
        for b, n in enumerate((7, 5))
    ]
    torch.testing.assert_close(both.sum, alone[0].sum + alone[1].sum, rtol=1e-4, atol=1e-3)
    assert make(model, batch_of(x), StepRandom(3, 5)).sum != make(model, batch_of(x), StepRandom(3, 4)).sum


def test_it_learns_a_distribution_not_a_mean():
    """Documents of one concept at +1 or -1 in each channel together: regression would say 0."""
    torch.manual_seed(0)
    sizes = {"concept_dim": 2, "model_dim": 32, "num_layers": 1, "num_heads": 2, "num_head_layers": 2, "dropout": 0.0}
    model = build_model({"type": "energy", **sizes})
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    signs = (torch.arange(64) % 4 == 0).float() * 2 - 1  # a quarter is +1
    data = batch_of((signs[:, None, None]).expand(-1, 1, 2) + 0.1 * normal(64, 1, 2))
    for step in range(100):
        loss = objective(dim=2)(model, data, StepRandom(0, step))
        optimizer.zero_grad()
        (loss.sum / loss.count).backward()
        optimizer.step()
    with torch.no_grad():
        drawn = model(torch.zeros(1, 1, 2), torch.rand(1, 1, 4000, 2) - 0.5)[0, 0]
    assert drawn.prod(dim=-1).gt(0.3).float().mean() > 0.9  # both channels at one of the two places
    assert (drawn[:, 0] > 0).float().mean() == pytest.approx(0.25, abs=0.07)


@torch.no_grad()
def test_supervised_targets_see_the_source_and_targets_before_them(model):
    x, noise = document(batch=2)
    whole = model(x, noise)
    got = model(x, torch.stack((noise[0, 4:7], noise[1, 2:5])), source_lengths=torch.tensor([4, 2]))
    torch.testing.assert_close(got[0], whole[0, 4:])
    torch.testing.assert_close(got[1], whole[1, 2:5])
    assert torch.equal(model(x, noise, source_lengths=torch.tensor([0, 0])), whole)


@torch.no_grad()
def test_cached_states_equal_those_of_training(model):
    x, _ = document(size=10)
    states, lengths = model.states(x), [6, 0, 3]
    cache = model.prefill(x[:, :6], lengths)
    for i in range(4):
        at = [n + i for n in lengths]
        torch.testing.assert_close(cache.state, states[range(3), at], rtol=1e-4, atol=1e-5)
        model.extend(cache, x[range(3), at])
    empty = model.prefill(x[:, :0])
    torch.testing.assert_close(empty.state, model.first_state.expand(3, -1))


@torch.no_grad()
def test_noise_of_generation_is_that_of_training(model):
    """Uniform on [-1/2, 1/2], whatever the number of channels; other candidates get other noise."""
    rows = list(range(2000))
    noise = SeededNoise(0, rows, 6, torch.device("cpu"))
    for channels in (5, 14):
        config = EnergyConfig.from_dict({**SMALL, "num_layers": 1, "num_head_layers": 1, "noise_dim": channels})
        predictor = EnergyPredictor(EnergyConceptModel(config), GenerationOptions(), noise, 1)
        one, other = (predictor._uniform(k, lambda s: noise(s, rows, [3] * 2000)) for k in (0, 1))
        assert one.shape == (2000, channels)
        assert one.min() > -0.5 and one.max() < 0.5
        assert one.mean() == pytest.approx(0.0, abs=0.01) and one.std() == pytest.approx(12**-0.5, abs=0.01)
        together = torch.corrcoef(torch.cat((one, other), dim=1).T)
        assert (together - torch.eye(2 * channels)).abs().max() < 0.12


def test_medoid():
    x = torch.tensor(
        [[[9.0, 9.0], [0.1, 1.0], [0.0, 0.0], [1.0, 0.0]], [[0.0, 9.0], [5.0, 5.0], [9.0, 0.0], [5.0, 5.0]]]
    )
    assert medoid(x).tolist() == [x[0, 1].tolist(), [5.0, 5.0]]
    assert torch.equal(medoid(x[:, :2]), x[:, 0]) and torch.equal(medoid(x[:, :1]), x[:, 0])


@torch.no_grad()
def test_more_candidates_mean_less_spread(model):
    state = torch.randn(1, 16).expand(400, -1)
    spreads, noise = [], SeededNoise(0, list(range(400)), 6, torch.device("cpu"))
    for number in (1, 4, 32):
        predictor = EnergyPredictor(model, GenerationOptions(num_candidates=number, initial_noise_scale=1.0), noise, 1)
        drawn = predictor._draw(state, lambda s: noise(s, list(range(400)), [2] * 400))
        spreads.append(float(drawn.std(dim=0).norm()))
    assert spreads[0] > 1.2 * spreads[1] > 1.3 * spreads[2]


@torch.no_grad()
def test_smaller_noise_and_the_mean_keep_to_the_middle(model):
    rows = list(range(400))
    state, noise = torch.randn(1, 16).expand(400, -1), SeededNoise(0, rows, 6, torch.device("cpu"))

    def draw(**settings):
        predictor = EnergyPredictor(model, GenerationOptions(**settings), noise, 1)
        return predictor._draw(state, lambda s: noise(s, rows, [2] * 400))

    whole = draw(initial_noise_scale=1.0)
    assert draw(initial_noise_scale=0.3).std(dim=0).norm() < 0.5 * whole.std(dim=0).norm()
    torch.testing.assert_close(draw(initial_noise_scale=0.0), model.head(state, torch.zeros(400, 1, 5))[:, 0])
    averaged = draw(initial_noise_scale=1.0, num_candidates=16, candidate_choice="mean")
    torch.testing.assert_close(averaged.mean(dim=0), whole.mean(dim=0), rtol=0.3, atol=0.2)
    assert averaged.std(dim=0).norm() < 0.4 * whole.std(dim=0).norm()


@torch.no_grad()
def test_golden_value(model):
    for i, parameter in enumerate(model.parameters()):
        parameter.copy_(torch.cos(torch.arange(parameter.numel()) * 0.7 + i).view_as(parameter) * 0.3)
    x = torch.linspace(-1, 1, 24).view(1, 4, 6).sin()
    got = model(x, torch.linspace(-0.5, 0.5, 40).view(1, 4, 2, 5))
    golden = torch.tensor([-0.1370570, -0.1079512, -0.0766049, -0.0586488])
    torch.testing.assert_close(got[0, :, 1, 0], golden, rtol=1e-4, atol=1e-5)


def test_complaints(model):
    x, noise = document()
    for call, message in (
        (lambda: model(x[..., :5], noise), r"x: wrong shape"),
        (lambda: model(x, noise[:, :3]), "noise: wrong shape"),
        (lambda: model(x, noise[..., :4]), "noise: wrong shape"),
        (lambda: model(x, noise[:, :, 0]), "noise: wrong shape"),
        (lambda: model(x, noise, source_lengths=torch.tensor([1])), "source_lengths: wrong shape"),
        (lambda: model.prefill(x, [8, 1, 1]), "lengths do not fit"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(ConfigError, match="the objective does not fit the model"):
        objective()(build_model({**SMALL, "type": "mse", "num_layers": 1}), batch_of(x), StepRandom(0))
    for bad in ({"alpha": 2.0}, {"num_samples": 1}):
        with pytest.raises(ConfigError):
            EnergyObjectiveConfig.from_dict(bad)

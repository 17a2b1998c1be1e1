"""The flow two-tower and its objective: self-conditioning, caches, times, the velocity's error, a golden value."""

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.models import FlowConceptModel, FlowConfig, build_model
from largeconcept.objectives import build_objective
from largeconcept.objectives.flow import FlowObjectiveConfig
from largeconcept.types import ConceptBatch

SMALL = {
    "concept_dim": 6,
    "model_dim": 16,
    "num_heads": 2,
    "ffn_dim": 32,
    "dropout": 0.0,
    "num_context_layers": 2,
    "num_denoiser_layers": 2,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = FlowConceptModel(FlowConfig.from_dict(SMALL)).eval()
    for layer in model.denoiser.layers:  # at its start a denoiser ignores context and time
        torch.nn.init.normal_(layer.modulator.fc.weight, std=0.3)
        torch.nn.init.normal_(layer.modulator.fc.bias, std=0.3)
        torch.nn.init.normal_(layer.cross_attention.kv_proj.bias, std=0.3)
    return model


def document(batch=3, size=7):
    draw = torch.Generator().manual_seed(1)
    x, noisy = torch.randn(2, batch, size, 6, generator=draw)
    return x, noisy, torch.rand(batch, size, generator=draw)


def objective(**settings):
    return build_objective(FlowObjectiveConfig.from_dict(settings), ConceptNormalizer.identity(6))


def batch_of(x, lengths=None, sources=None):
    lengths = torch.tensor(lengths or [x.shape[1]] * len(x))
    return ConceptBatch(x, lengths, torch.arange(len(x)), None if sources is None else torch.tensor(sources))


@torch.no_grad()
def test_a_noisy_concept_sees_clean_ones_before_it_and_itself(model):
    x, noisy, times = document()
    again = torch.ones_like(times, dtype=torch.bool)
    before = model(x, noisy, times, self_conditioned=again)

    def moved(*arguments):
        other = model(*arguments, self_conditioned=again)
        return ((other - before).abs().amax(dim=(0, 2)) > 1e-5).nonzero().flatten().tolist()

    for i in range(7):
        change = torch.zeros_like(x)
        change[:, i] = 1.0
        assert moved(x + change, noisy, times) == list(range(i + 1, 7))
        assert moved(x, noisy + change, times) == [i]
        assert moved(x, noisy, times - 0.3 * change[..., 0]) == [i]


@torch.no_grad()
def test_self_conditioning_shows_the_first_prediction_to_the_chosen_rows(model):
    x, noisy, times = document()
    drop = torch.rand(3, 7) < 0.3
    chosen = torch.rand(3, 7) < 0.5
    first = model(x, noisy, times, unconditional=drop)
    context, mask = model.training_context(x, 7)
    second = model.denoiser(noisy, times, context, mask, drop, first)
    got = model(x, noisy, times, unconditional=drop, self_conditioned=chosen)
    torch.testing.assert_close(got, torch.where(chosen.unsqueeze(-1), second, first))
    assert (second - first).abs().amax(-1).min() > 1e-3


def test_the_first_pass_has_no_gradient(model):
    x, noisy, times = document()
    with torch.no_grad():
        found = model(x, noisy, times)
    model(x, noisy, times, self_conditioned=torch.ones(3, 7)).square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    context, mask = model.training_context(x, 7)
    model.denoiser(noisy, times, context, mask, None, found).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True])
def test_cached_equals_the_training_form(model, guided):
    x, noisy, _ = document(size=10)
    lengths, times = [6, 0, 3], [0.0, 0.25, 0.9]
    plan, cache = model.denoiser.plan(times, fold=guided), model.prefill(x[:, :6], lengths)
    for i in range(3):
        at = [n + i for n in lengths]
        previous = None
        for n, time in enumerate(times):
            rows = noisy[range(3), at].unsqueeze(1)
            got = model.denoiser.step(plan, n, rows, cache.cross_context(), previous, guided=guided)
            halves = got if guided else (got,)
            for half, value in enumerate(halves):
                drop = torch.full((3, 10), half == 1)
                context, mask = model.training_context(x, 10)
                known = torch.zeros_like(noisy)
                if previous is not None:
                    known[range(3), at] = (previous[half] if guided else previous).squeeze(1)
                wanted = model.denoiser(noisy, torch.full((3, 10), time), context, mask, drop, known)
                torch.testing.assert_close(value, wanted[range(3), at].unsqueeze(1), rtol=1e-4, atol=1e-5)
            previous = got
        model.extend(cache, x[range(3), at])


@torch.no_grad()
def test_supervised_targets_see_the_source_and_targets_before_them(model):
    x, noisy, times = document(batch=1)
    whole = model(x, noisy, times)
    got = model(x, noisy[:, 3:], times[:, 3:], source_lengths=torch.tensor([3]))
    torch.testing.assert_close(got, whole[:, 3:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_self_conditioning_there_is_nothing_to_see():
    model = build_model({**SMALL, "type": "flow", "self_conditioning": False})
    x, noisy, times = document()
    assert model.denoiser.previous_proj is None
    again = torch.ones_like(times, dtype=torch.bool)
    assert torch.equal(model(x, noisy, times, self_conditioned=again), model(x, noisy, times))


@torch.no_grad()
def test_the_loss_is_the_error_of_the_velocity(model):
    x, eps, _ = document()
    times = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98]).expand(3, 7)
    noisy = (1 - times.unsqueeze(-1)) * eps + times.unsqueeze(-1) * x
    found = (model(x, noisy, times) - noisy) / (1 - times.unsqueeze(-1))
    per_row = (found - (x - eps)).square().sum(-1)
    per_row[:, 6] *= (0.02 / 0.05) ** 2  # the weight is bounded there
    lengths = [7, 4, 7]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    loss = objective().loss(model, batch_of(x, lengths), times, eps)
    torch.testing.assert_close(loss.sum, (per_row * mask).sum(), rtol=1e-4, atol=1e-3)
    assert float(loss.count) == 18
    plain = objective(weighting="data").loss(model, batch_of(x, lengths), times, eps)
    error = (model(x, noisy, times) - x).square().sum(-1)
    torch.testing.assert_close(plain.sum, (error * mask).sum())
    torch.testing.assert_close(plain.metrics["l2"][0], (error.sqrt() * mask).sum())


def test_times_follow_their_distribution():
    ids = torch.arange(4000)
    times = objective(times={"location": -1.0, "scale": 0.5}).draw_times(StepRandom(0), ids, 5)
    odds = torch.logit(times.double())
    assert odds.mean() == pytest.approx(-1.0, abs=0.02) and odds.std() == pytest.approx(0.5, abs=0.02)
    flat = objective(times={"type": "uniform"}).draw_times(StepRandom(0), ids, 5)
    assert flat.mean() == pytest.approx(0.5, abs=0.01) and flat.min() >= 0 and flat.max() < 1


def test_what_is_drawn_depends_on_seed_step_and_sample_only(model):
    x, _, _ = document(batch=2)
    make = objective()
    both = make(model, batch_of(x, [7, 5]), StepRandom(3, 4))
    alone = [
        make(model, ConceptBatch(x[b : b + 1, :n], torch.tensor([n]), torch.tensor([b])), StepRandom(3, 4))
        for b, n in enumerate((7, 5))
    ]
    torch.testing.assert_close(both.sum, alone[0].sum + alone[1].sum, rtol=1e-4, atol=1e-3)
    assert make(model, batch_of(x), StepRandom(3, 5)).sum != make(model, batch_of(x), StepRandom(3, 4)).sum


def test_supervised_batches_count_their_targets(model):
    x, _, _ = document(batch=2)
    loss = objective()(model, batch_of(x, [7, 5], [4, 3]), StepRandom(0))
    assert float(loss.count) == 5 and loss.sum.isfinite()


@torch.no_grad()
def test_golden_value(model):
    for i, parameter in enumerate(model.parameters()):
        parameter.copy_(torch.cos(torch.arange(parameter.numel()) * 0.7 + i).view_as(parameter) * 0.3)
    x = torch.linspace(-1, 1, 24).view(1, 4, 6).sin()
    got = model(x, 2 * x, torch.linspace(0, 0.9, 4).view(1, 4), self_conditioned=torch.ones(1, 4))
    golden = torch.tensor([0.2920926, 0.3011535, 0.2871111, 0.2250489])
    torch.testing.assert_close(got[0, :, 0], golden, rtol=1e-4, atol=1e-5)


def test_complaints(model):
    x, noisy, times = document()
    with pytest.raises(DataError, match="timesteps: wrong shape"):
        model(x, noisy, times[:, :3])
    with pytest.raises(ConfigError, match="the objective does not fit the model"):
        objective()(build_model({**SMALL, "type": "two_tower"}), batch_of(x), StepRandom(0))
    with pytest.raises(ConfigError, match=r"did you mean times\.location"):
        FlowObjectiveConfig.from_dict({"times": {"locaton": 1.0}})

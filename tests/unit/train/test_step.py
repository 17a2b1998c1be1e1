"""What one step does to gradients, against plain autograd."""

import pytest
import torch
from torch import nn

from largeconcept.train.ema import EMA
from largeconcept.train.parallel import Parallel
from largeconcept.train.step import Stepper, evaluate, mix_seed
from largeconcept.types import ConceptBatch, Loss


class Recorder:
    """Stands in for the optimisers: keeps the gradients that it is given."""

    def __init__(self, model):
        self.model = model
        self.seen = []

    def step(self, factor):
        self.seen.append((factor, [p.grad.clone() for p in self.model.parameters()]))

    def zero_grad(self):
        for p in self.model.parameters():
            p.grad = None


def objective(model, batch, rng):
    error = (model(batch.concepts[:, :-1]) - batch.concepts[:, 1:]).square().sum(-1)
    mask = torch.arange(error.shape[1]) < (batch.lengths - 1)[:, None]
    return Loss(
        (error * mask).sum(), mask.sum(), {"draw": (rng.uniform("x", batch.sample_ids, ()).sum(), torch.ones(()))}
    )


def batch(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (rows,), generator=generator)
    concepts = torch.randn(rows, 5, 4, generator=generator)
    return ConceptBatch(concepts, lengths, torch.arange(rows) + 10 * seed)


def make(clip_norm=None):
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    return model, Recorder(model), clip_norm


def mean_gradient(model, batches):
    losses = [objective(model, b, _Rng()) for b in batches]
    mean = sum(x.sum for x in losses) / sum(x.count for x in losses)
    return mean, torch.autograd.grad(mean, list(model.parameters()))


class _Rng:
    def uniform(self, stream, ids, shape):
        return torch.zeros(len(ids))


def test_the_gradient_is_that_of_the_mean_over_all_targets():
    model, recorder, _ = make()
    batches = [batch(3, 1), batch(7, 2), batch(1, 3)]
    mean, expected = mean_gradient(model, batches)
    result = Stepper(model, objective, recorder, Parallel.start("none", "cpu"))(batches, 0, 4, factor=0.5)
    assert result.loss == pytest.approx(mean.item(), rel=1e-6) and not result.skipped
    assert result.concepts == sum(int(b.lengths.sum()) for b in batches)
    assert result.count == sum(int((b.lengths - 1).sum()) for b in batches)
    ((factor, gradients),) = recorder.seen
    assert factor == 0.5
    for got, wanted in zip(gradients, expected):
        torch.testing.assert_close(got, wanted)
    norm = torch.cat([g.reshape(-1) for g in expected]).norm()
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_clipping_scales_the_mean_gradient_to_the_limit():
    model, recorder, _ = make()
    batches = [batch(3, 1), batch(7, 2)]
    _, expected = mean_gradient(model, batches)
    norm = torch.cat([g.reshape(-1) for g in expected]).norm().item()
    for limit in (norm / 3, norm * 3):
        recorder.seen.clear()
        stepper = Stepper(model, objective, recorder, Parallel.start("none", "cpu"), clip_norm=limit)
        assert stepper(batches, 0, 0, 1.0).grad_norm == pytest.approx(norm, rel=1e-5)
        gradients = recorder.seen[0][1]
        clipped = torch.cat([g.reshape(-1) for g in gradients]).norm().item()
        assert clipped == pytest.approx(min(limit, norm), rel=1e-4)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_nothing_is_updated_when_loss_or_gradient_is_not_finite(poison):
    model, recorder, _ = make()

    def bad(model, batch, rng):
        loss = objective(model, batch, rng)
        if poison == "loss":
            return Loss(loss.sum + float("inf"), loss.count)
        # finite value, infinite derivative
        return Loss(loss.sum + (model.weight[0, 0] - model.weight[0, 0].detach()).abs().sqrt(), loss.count)

    ema = EMA(model, 0.5)
    result = Stepper(model, bad, recorder, Parallel.start("none", "cpu"), ema=ema)([batch(2, 1)], 0, 0, 1.0)
    assert result.skipped and not recorder.seen and ema.updates == 0
    assert all(p.grad is None for p in model.parameters())


def test_a_step_without_targets_is_skipped():
    model, recorder, _ = make()
    stepper = Stepper(model, objective, recorder, Parallel.start("none", "cpu"))
    alone = ConceptBatch(torch.randn(2, 3, 4), torch.tensor([1, 1]), torch.tensor([0, 1]))
    for batches in ([alone], []):
        result = stepper(batches, 0, 0, 1.0)
        assert result.skipped and result.count == 0 and not recorder.seen


def test_random_numbers_follow_seed_step_and_place():
    model, recorder, _ = make()

    def noisy(model, batch, rng):
        loss = objective(model, batch, rng)
        return Loss(loss.sum * torch.rand(()), loss.count, loss.metrics)

    stepper = Stepper(model, noisy, recorder, Parallel.start("none", "cpu"))
    one = stepper([batch(2, 1)], seed=5, step=3, factor=1.0)
    torch.rand(100)
    two = stepper([batch(2, 1)], seed=5, step=3, factor=1.0)
    other = stepper([batch(2, 1)], seed=5, step=4, factor=1.0)
    assert one.loss == two.loss != other.loss
    assert one.metrics["draw"][0] == two.metrics["draw"][0] != other.metrics["draw"][0]
    assert len({mix_seed(a, b) for a in range(30) for b in range(30)}) == 900
    assert all(0 <= mix_seed(a, 2**63) < 2**63 for a in range(100))


def test_evaluation_leaves_the_model_as_it_was_and_draws_by_sample():
    model, _, _ = make()
    model.train()
    parallel = Parallel.start("none", "cpu")
    whole = batch(6, 1)
    parts = [
        ConceptBatch(whole.concepts[i : i + 2], whole.lengths[i : i + 2], whole.sample_ids[i : i + 2])
        for i in (0, 2, 4)
    ]
    one = evaluate(model, objective, [whole], 7, parallel)
    two = evaluate(model, objective, parts, 7, parallel)
    assert one["loss"] == pytest.approx(two["loss"]) and one["draw"][0] == pytest.approx(two["draw"][0])
    assert model.training and all(p.grad is None for p in model.parameters())
    assert one["loss"][1] == int((whole.lengths - 1).sum())

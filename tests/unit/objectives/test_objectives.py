"""Objectives: what counts as a target, and that the loss of a concept depends on nothing but its document."""

import math
from types import SimpleNamespace

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig
from largeconcept.diffusion.random import StepRandom
from largeconcept.diffusion.schedules import NoiseSchedule, NoiseScheduleConfig
from largeconcept.diffusion.weighting import WeightingConfig
from largeconcept.errors import ConfigError
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig
from largeconcept.objectives import DiffusionConfig, RegressionConfig, build_objective, default_objective
from largeconcept.objectives.diffusion import DiffusionObjective, TimestepConfig
from largeconcept.types import ConceptBatch

DIM = 6
SIZES = {"concept_dim": DIM, "model_dim": 16, "num_heads": 2, "ffn_dim": 32, "dropout": 0.0}
NORMALIZER = ConceptNormalizer(NormalizerConfig(dim=DIM), torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))


def shaken(model, seed=0):
    """Weights drawn anew: a fresh denoiser ignores its context, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


def mse_model():
    return shaken(MSEConceptModel(MSEConfig(**SIZES, num_layers=2)))


def two_tower_model(kind="x_0"):
    noise = NoiseScheduleConfig(zero_terminal_snr=kind != "eps")
    config = TwoTowerConfig(
        **SIZES, num_context_layers=1, num_denoiser_layers=2, prediction_type=kind, noise_schedule=noise
    )
    return shaken(TwoTowerConceptModel(config))


def documents(lengths=(5, 9, 1, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, DIM, generator=generator) for n in lengths]


def batch_of(docs, ids=None, sources=None, extra=0, fill=0.0):
    width = max(len(d) for d in docs) + extra
    concepts = torch.full((len(docs), width, DIM), fill)
    for row, document in zip(concepts, docs, strict=True):
        row[: len(document)] = document
    lengths = torch.tensor([len(d) for d in docs])
    ids = torch.tensor(ids if ids is not None else [100 + 7 * i for i in range(len(docs))])
    return ConceptBatch(concepts, lengths, ids, None if sources is None else torch.tensor(sources))


CASES = {
    "regression": lambda: (mse_model(), RegressionConfig()),
    "regression_rmse": lambda: (mse_model(), RegressionConfig(rmse=True, min_context=3)),
    "x_0": lambda: (two_tower_model("x_0"), DiffusionConfig(conditioning_dropout=0.4)),
    "eps": lambda: (two_tower_model("eps"), DiffusionConfig(rmse=True)),
    "v": lambda: (two_tower_model("v"), DiffusionConfig(weighting=WeightingConfig(type="min_snr"))),
    "beta": lambda: (two_tower_model("x_0"), DiffusionConfig(timesteps=TimestepConfig(type="beta"))),
}


@pytest.fixture(params=sorted(CASES))
def case(request):
    model, config = CASES[request.param]()
    return model, build_objective(config, NORMALIZER)


@pytest.fixture(params=["unsupervised", "supervised"])
def sources(request):
    return [2, 5, 0, 6] if request.param == "supervised" else None


def total(objective, model, batches, step=3):
    losses = [objective(model, batch, StepRandom(1, step)) for batch in batches]
    return sum(loss.sum for loss in losses), sum(loss.count for loss in losses), losses


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_loss_does_not_depend_on_padding(case, sources):
    model, objective = case
    tight, count, _ = total(objective, model, [batch_of(documents(), sources=sources)])
    wide, same, _ = total(objective, model, [batch_of(documents(), sources=sources, extra=11, fill=40.0)])
    assert count == same > 0
    torch.testing.assert_close(wide, tight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(model, wide), gradient(model, tight), rtol=1e-4, atol=1e-4)


def test_the_loss_does_not_depend_on_grouping_and_order(case, sources):
    model, objective = case
    docs, ids = documents(), [100, 107, 114, 121]
    pick = lambda *rows: batch_of(  # noqa: E731
        [docs[i] for i in rows], [ids[i] for i in rows], None if sources is None else [sources[i] for i in rows]
    )
    together, count, (whole,) = total(objective, model, [pick(0, 1, 2, 3)])
    apart, same, parts = total(objective, model, [pick(3), pick(2, 0), pick(1)])
    assert count == same
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(model, apart), gradient(model, together), rtol=1e-4, atol=1e-4)
    for name, (metric, number) in whole.metrics.items():
        torch.testing.assert_close(sum(p.metrics[name][0] for p in parts), metric, rtol=1e-5, atol=1e-5)
        assert sum(p.metrics[name][1] for p in parts) == number


def test_losses_are_float32_scalars_with_a_gradient(case):
    model, objective = case
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, batch_of(documents()), StepRandom(0))
    for tensor in (loss.sum, loss.count, *(t for pair in loss.metrics.values() for t in pair)):
        assert tensor.shape == () and tensor.dtype == torch.float32
    assert loss.sum.requires_grad and not any(a.requires_grad for pair in loss.metrics.values() for a in pair)
    assert float(gradient(model, loss.sum).abs().max()) > 0


def test_what_stands_at_padding_does_not_matter(case):
    model, objective = case
    clean = objective(model, batch_of(documents()), StepRandom(0))

    class Poisoned(torch.nn.Module):
        config = model.config

        def forward(self, x, *rest):
            lengths = rest[0] if len(rest) == 1 else rest[2]
            out = model(x, *rest)
            return out.masked_fill((torch.arange(out.shape[1]) >= lengths[:, None]).unsqueeze(-1), math.nan)

    poisoned = objective(Poisoned(), batch_of(documents()), StepRandom(0))
    assert torch.isfinite(poisoned.sum)
    torch.testing.assert_close(poisoned.sum, clean.sum)
    torch.testing.assert_close(poisoned.metrics["mse"][0], clean.metrics["mse"][0])


class Recorder(torch.nn.Module):
    """Stands in for a two-tower: keeps what it was given, answers with zeros."""

    def __init__(self, kind="x_0", zero=True):
        super().__init__()
        noise = NoiseScheduleConfig(zero_terminal_snr=zero)
        self.config = SimpleNamespace(noise_schedule=noise, prediction_type=kind)

    def forward(self, x, noisy, timesteps, lengths=None, source_lengths=None, unconditional=None):
        self.seen = SimpleNamespace(x=x, noisy=noisy, timesteps=timesteps, dropped=unconditional)
        return torch.zeros_like(noisy)


def test_regression_never_counts_the_first_concept():
    objective = build_objective(RegressionConfig(), NORMALIZER)
    docs = documents()
    loss = objective(lambda x, lengths: torch.zeros_like(x), batch_of(docs), StepRandom(0))
    assert loss.count == sum(len(d) - 1 for d in docs)
    expected = sum(float(NORMALIZER.normalize(d)[1:].square().sum()) for d in docs)
    assert float(loss.sum) == pytest.approx(expected, rel=1e-5)
    assert float(loss.metrics["mse"][0]) == pytest.approx(expected, rel=1e-5)
    distance = sum(float((d[1:] - NORMALIZER.center).norm(dim=-1).sum()) for d in docs)
    assert float(loss.metrics["l2"][0]) == pytest.approx(distance, rel=1e-5)


def test_regression_may_count_the_first_channels_alone():
    objective = build_objective(RegressionConfig(channels=2), NORMALIZER)
    docs = documents()
    prediction = torch.zeros(4, max(map(len, docs)), docs[0].shape[1], requires_grad=True)
    loss = objective(lambda x, lengths: prediction, batch_of(docs), StepRandom(0))
    expected = sum(float(NORMALIZER.normalize(d)[1:, :2].square().sum()) for d in docs)
    assert float(loss.sum) == pytest.approx(expected, rel=1e-5)
    assert float(loss.metrics["mse"][0]) == pytest.approx(expected, rel=1e-5)
    loss.sum.backward()
    assert prediction.grad[..., :2].any() and not prediction.grad[..., 2:].any()


def test_regression_on_pairs_counts_targets_only_and_still_not_the_first_concept():
    objective = build_objective(RegressionConfig(), NORMALIZER)
    loss = objective(lambda x, lengths: torch.zeros_like(x), batch_of(documents(), sources=[2, 9, 0, 6]), StepRandom(0))
    assert loss.count == 3 + 0 + 0 + 1
    assert not objective.target_mask(batch_of(documents(), sources=[0, 0, 0, 0]))[:, 0].any()
    fewer = build_objective(RegressionConfig(min_context=4), NORMALIZER)
    assert fewer(lambda x, lengths: torch.zeros_like(x), batch_of(documents()), StepRandom(0)).count == 1 + 5 + 0 + 3


def test_a_batch_without_targets_has_a_zero_gradient():
    model = mse_model()
    loss = build_objective(RegressionConfig(), NORMALIZER)(model, batch_of(documents((1, 1))), StepRandom(0))
    assert loss.count == 0 and loss.sum == 0
    assert float(gradient(model, loss.sum).abs().max()) == 0


@pytest.mark.parametrize("kind", ["x_0", "eps", "v"])
def test_diffusion_noises_every_concept_by_its_own_timestep(kind):
    model = Recorder(kind, zero=kind != "eps")
    docs = documents((40, 60))
    objective = build_objective(DiffusionConfig(conditioning_dropout=0.0), NORMALIZER)
    rng = StepRandom(5, 6)
    batch = batch_of(docs)
    loss = objective(model, batch, rng)
    assert loss.count == 100 and model.seen.dropped is None
    assert len(model.seen.timesteps.unique()) > 50
    x_0 = NORMALIZER.normalize(batch.concepts)
    alpha, sigma = NoiseSchedule(model.config.noise_schedule).alpha_sigma(model.seen.timesteps)
    eps = rng.normal("noise", batch.sample_ids, (60, DIM))
    torch.testing.assert_close(model.seen.noisy, alpha * x_0 + sigma * eps)
    target = {"x_0": x_0, "eps": eps, "v": alpha * eps - sigma * x_0}[kind]
    expected = target[0, :40].square().sum() + target[1].square().sum()
    torch.testing.assert_close(loss.sum, expected, rtol=1e-5, atol=1e-3)
    assert ("l2" in loss.metrics) == (kind != "eps")


def test_diffusion_on_pairs_denoises_targets_only():
    model = Recorder()
    docs = documents((5, 9, 4, 7))
    loss = build_objective(DiffusionConfig(), NORMALIZER)(model, batch_of(docs, sources=[2, 5, 4, 0]), StepRandom(0))
    assert loss.count == 3 + 4 + 0 + 7
    assert model.seen.noisy.shape == (4, 7, DIM) and model.seen.x.shape == (4, 9, DIM)
    parts = [NORMALIZER.normalize(d)[s:] for d, s in zip(docs, [2, 5, 4, 0], strict=True)]
    assert float(loss.sum) == pytest.approx(sum(float(p.square().sum()) for p in parts), rel=1e-5)


def test_timesteps_are_uniform_or_beta():
    ids = torch.arange(400)
    uniform = DiffusionObjective(DiffusionConfig(), NORMALIZER)
    drawn = uniform.draw_timesteps(StepRandom(0), ids, 100, 100)
    assert int(drawn.min()) == 0 and int(drawn.max()) == 99
    counts = torch.bincount(drawn.flatten(), minlength=100).double()
    assert float(((counts - 400) ** 2 / 400).sum()) < 149
    beta = DiffusionObjective(DiffusionConfig(timesteps=TimestepConfig(type="beta", a=0.8, b=0.7)), NORMALIZER)
    counts = torch.bincount(beta.draw_timesteps(StepRandom(0), ids, 100, 100).flatten(), minlength=100).double()
    expected = 40_000 * beta.probabilities(100)
    assert float(((counts - expected) ** 2 / expected).sum()) < 149
    u = (torch.arange(99, dtype=torch.float64) + 1) / 100
    shape = u**-0.2 * (1 - u) ** -0.3
    torch.testing.assert_close(expected[:99] / expected[:99].sum(), shape / shape.sum())


def test_conditioning_dropout():
    batch = batch_of(documents((64,) * 200))
    rows = DiffusionObjective(DiffusionConfig(conditioning_dropout=0.15), NORMALIZER)
    dropped = rows.draw_dropped(StepRandom(0), batch, 64)
    assert float(dropped.double().mean()) == pytest.approx(0.15, abs=0.012)
    assert bool(dropped[:, 0].any()) and len(dropped.unique(dim=0)) == 200
    assert bool((DiffusionObjective(DiffusionConfig(conditioning_dropout=1.0), NORMALIZER)
                 .draw_dropped(StepRandom(0), batch, 64)).all())  # fmt: skip

    meta = DiffusionObjective(DiffusionConfig(dropout_mode="meta"), NORMALIZER)
    same = meta.draw_dropped(StepRandom(0), batch, 64)
    assert len(same.unique(dim=0)) == 1 and int(same[0].sum()) == 9 and not same[:, 0].any()
    assert not torch.equal(same, meta.draw_dropped(StepRandom(0, 1), batch, 64))
    pairs = batch_of(documents((64,) * 200), sources=[10] * 200)
    own = meta.draw_dropped(StepRandom(0), pairs, 54)
    assert len(own.unique(dim=0)) > 150 and own.sum(dim=1).tolist() == [7] * 200 and not own[:, 0].any()


def test_weights():
    model, batch = Recorder(), batch_of(documents((200, 100)))
    loss = lambda **kw: build_objective(  # noqa: E731
        DiffusionConfig(conditioning_dropout=0.0, weighting=WeightingConfig(**kw)), NORMALIZER
    )(model, batch, StepRandom(0))
    plain = loss()
    snr = NoiseSchedule().snr.clamp(max=5.0)
    weights = snr[model.seen.timesteps]
    mask = torch.arange(200) < torch.tensor([[200], [100]])
    error = NORMALIZER.normalize(batch.concepts).square().sum(-1)
    expected = (error * weights)[mask].sum()
    clamped = loss(type="clamp_snr")
    torch.testing.assert_close(clamped.sum, expected / snr.mean(), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(clamped.metrics["mse"][0], plain.sum, rtol=1e-4, atol=1e-2)
    by_batch = loss(type="clamp_snr", normalize="batch")
    torch.testing.assert_close(by_batch.sum, expected * 300 / weights[mask].sum(), rtol=1e-4, atol=1e-2)


def test_buckets_cover_every_target_once():
    loss = build_objective(DiffusionConfig(timestep_buckets=7), NORMALIZER)(
        model := Recorder(), batch_of(documents((200, 100))), StepRandom(0)
    )
    buckets = {name: pair for name, pair in loss.metrics.items() if name.startswith("mse_t")}
    assert len(buckets) == 7
    torch.testing.assert_close(sum(pair[0] for pair in buckets.values()), loss.metrics["mse"][0], rtol=1e-4, atol=1e-2)
    mask = torch.arange(200) < torch.tensor([[200], [100]])
    for name, (_, count) in buckets.items():
        low, high = map(int, name.removeprefix("mse_t").split("-"))
        inside = (model.seen.timesteps >= low) & (model.seen.timesteps <= high) & mask
        assert count == inside.sum()
    none = build_objective(DiffusionConfig(timestep_buckets=0), NORMALIZER)(model, batch_of(documents()), StepRandom(0))
    assert set(none.metrics) == {"mse", "l2"}


def test_steps_and_seeds_draw_anew():
    model, objective = CASES["x_0"]()[0], build_objective(DiffusionConfig(), NORMALIZER)
    sums = {
        float(objective(model, batch_of(documents()), StepRandom(s, t)).sum.detach()) for s in (0, 1) for t in (0, 1)
    }
    assert len(sums) == 4


def test_an_objective_trains_its_model():
    torch.manual_seed(0)
    model = TwoTowerConceptModel(TwoTowerConfig(**SIZES, num_context_layers=1, num_denoiser_layers=1))
    objective = build_objective(default_objective(model.config), ConceptNormalizer.identity(DIM))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(16, 1, DIM, generator=generator)
    batch = batch_of(list(start.expand(-1, 6, -1)))  # every concept repeats the one before it
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(100):
        loss = objective(model, batch, StepRandom(0, step))
        optimizer.zero_grad()
        (loss.sum / loss.count).backward()
        optimizer.step()
        losses.append(float(loss.sum.detach() / loss.count))
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_configuration_and_mismatches():
    assert isinstance(default_objective(MSEConfig(**SIZES)), RegressionConfig)
    assert isinstance(default_objective(TwoTowerConfig(**SIZES)), DiffusionConfig)
    with pytest.raises(ConfigError, match="no objective"):
        default_objective(NoiseScheduleConfig())
    with pytest.raises(ConfigError, match="noise_schedule"):
        build_objective(DiffusionConfig(), NORMALIZER)(mse_model(), batch_of(documents()), StepRandom(0))
    with pytest.raises(ConfigError, match="zero_terminal_snr"):
        build_objective(DiffusionConfig(), NORMALIZER)(Recorder("eps"), batch_of(documents()), StepRandom(0))
    with pytest.raises(ConfigError, match="no configuration"):
        build_objective(DiffusionConfig(), NORMALIZER)(torch.nn.Linear(1, 1), batch_of(documents()), StepRandom(0))
    wrapped = torch.nn.DataParallel(torch.nn.Sequential())
    wrapped.module = Recorder()
    from largeconcept.objectives.base import config_of

    assert config_of(wrapped, "noise_schedule") is wrapped.module.config

"""The quantised model, its objective and its generation, beyond what all families promise."""

import math

import pytest
import torch
import torch.nn.functional as F
from variants import concepts, small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import generate_concepts, predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.quantized import choose
from largeconcept.models import QuantizedConceptModel, QuantizedConfig, load_model, save_model
from largeconcept.models.mse import MSEConceptModel, MSEConfig
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer
from largeconcept.objectives import build_objective
from largeconcept.objectives.quantized import QuantizedObjective, QuantizedObjectiveConfig
from largeconcept.types import ConceptBatch

DIM, LEVELS, SIZE = 16, 3, 8
HEADS = ["quantized", "quantized_codebook", "quantized_continuous"]
NORMALIZER = ConceptNormalizer.identity(DIM)


@pytest.fixture(params=HEADS)
def model(request):
    return small_model(request.param)


def objective(**settings):
    return QuantizedObjective(QuantizedObjectiveConfig(**settings), NORMALIZER)


def batch_of(x, lengths=None, sources=None):
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else torch.tensor(lengths)
    return ConceptBatch(x, lengths, torch.arange(len(x)), None if sources is None else torch.tensor(sources))


def partial_sums(model, x, levels):
    return model.quantizer.decode(model.quantizer.encode(x), levels)


def test_golden_values():
    x, levels = concepts(1, 4), torch.tensor([[0, 2, 1, 0]])
    found = []
    for name in (HEADS[0], HEADS[2]):
        model = small_model(name)
        with torch.no_grad():
            out = model(x, 0.5 * x, levels)
        found.append([out.sum().item(), out.square().sum().item(), out[0, 3, 2].item()])
    expected = [[11.49669, 24.38132, 1.59127], [-5.99995, 67.84607, -0.33896]]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["concept", "residual"])
def test_what_a_row_sees(target):
    model = small_model("quantized_continuous")
    model.config = model.config.model_copy(update={"target": target})
    x, levels = concepts(2, 6), torch.randint(0, LEVELS, (2, 6))
    partial = partial_sums(model, x, levels)
    with torch.no_grad():
        before = model(x, partial, levels)
        for j in range(6):
            for which in range(3):
                changed = [x.clone(), partial.clone(), levels.clone()]
                changed[which][:, j] = changed[which][:, j] + 1 if which < 2 else (levels[:, j] + 1) % LEVELS
                moved = ((model(*changed) - before).abs().amax(dim=(0, 2)) > 1e-5).nonzero().flatten().tolist()
                assert moved == (list(range(j + 1, 6)) if which == 0 else [j])


def test_logits_from_codebooks_are_the_likelihood_of_a_vector():
    model = small_model("quantized_codebook")
    found = concepts(1, 5)[0]
    precision = float(model.log_precision[1].detach().exp())
    centroids = model.quantizer.codebooks[1]
    normal = torch.distributions.Normal(centroids, precision**-0.5)
    expected = normal.log_prob(found.unsqueeze(1)).sum(-1).log_softmax(-1)
    torch.testing.assert_close(model._likelihood(found, 1).log_softmax(-1), expected, rtol=1e-4, atol=1e-4)


def test_residual_head_adds_what_is_known():
    model = small_model("quantized_continuous")
    x, levels = concepts(1, 3), torch.tensor([[0, 1, 2]])
    partial = partial_sums(model, x, levels)
    whole = model(x, partial, levels)
    model.config = model.config.model_copy(update={"target": "residual"})
    torch.testing.assert_close(model(x, partial, levels), whole + partial)


def test_generation_form_equals_training_form(model):
    x = concepts(2, 5)
    context, times = model.teacher_forced_context(x), model.plan(range(LEVELS))
    for target in ("concept", "residual"):
        model.config = model.config.model_copy(update={"target": target})
        for level in range(LEVELS):
            levels = torch.full((2, 5), level)
            partial = partial_sums(model, x, levels)
            with torch.no_grad():
                seen, blind = model.predict(partial, times[level], context, guided=True)
                if model.level_bias is not None:
                    seen, blind = model.logits(seen, partial, level), model.logits(blind, partial, level)
                torch.testing.assert_close(seen, model(x, partial, levels), rtol=1e-4, atol=1e-5)
                dropped = torch.ones(2, 5, dtype=torch.bool)
                expected = model(x, partial, levels, unconditional=dropped)
                torch.testing.assert_close(blind, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["quantized", "quantized_codebook"])
def test_discrete_loss_is_the_cross_entropy_of_the_next_index(name):
    model, x = small_model(name), concepts(2, 4)
    levels = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    indices = model.quantizer.encode(x)
    expected = 0.0
    for b in range(2):
        for i in range(4 if b == 0 else 3):
            k = int(levels[b, i])
            partial = torch.zeros(1, i + 1, DIM)
            partial[0, i] = sum((model.quantizer.codebooks[q][indices[b, i, q]] for q in range(k)), torch.zeros(DIM))
            logits = model(x[b : b + 1, : i + 1], partial, torch.full((1, i + 1), k))[0, i]
            expected += -F.log_softmax(logits, -1)[indices[b, i, k]]
    loss = objective().loss(model, batch_of(x, [4, 3]), levels)
    torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-4)
    assert loss.count == 7
    assert loss.metrics["nats"][0] == loss.sum.detach()


def test_a_later_codebook_can_be_asked_for():
    model, x = small_model("quantized_codebook"), concepts(2, 4)
    levels, asked = torch.tensor([[0, 1, 2, 0]] * 2), torch.tensor([[2, 1, 2, 1]] * 2)
    indices = model.quantizer.encode(x)
    got = objective().loss(model, batch_of(x), levels, asked=asked)
    context, times = model.teacher_forced_context(x), model.plan(range(LEVELS))
    expected = 0.0
    for i in range(4):
        k, j = int(levels[0, i]), int(asked[0, i])
        found = model.predict(model.quantizer.decode(indices, k), times[k], context)
        logits = model.logits(found, model.quantizer.decode(indices, j), j)[:, i]
        expected += F.cross_entropy(logits, indices[:, i, j], reduction="sum")
    torch.testing.assert_close(got.sum, expected, rtol=1e-4, atol=1e-4)
    same = objective().loss(model, batch_of(x), levels, asked=levels)
    torch.testing.assert_close(same.sum, objective().loss(model, batch_of(x), levels).sum)
    for name in ("quantized", "quantized_continuous"):
        with pytest.raises(ConfigError, match=r"objective\.lookahead.*: only a discrete model"):
            objective().loss(small_model(name), batch_of(x), levels, asked=asked)


def test_the_distance_of_the_concept_can_be_added():
    model, x = small_model("quantized_codebook"), concepts(2, 4)
    levels = torch.randint(0, LEVELS, (2, 4))
    _, found = model(x, partial_sums(model, x, levels), levels, with_concepts=True)
    plain, more = (objective(concept_weight=w).loss(model, batch_of(x, [4, 2]), levels) for w in (0.0, 3.0))
    error = (found - x).square().mean(-1)
    torch.testing.assert_close(more.sum - plain.sum, 3 * (error[0].sum() + error[1, :2].sum()), rtol=1e-4, atol=1e-4)
    assert torch.equal(more.metrics["nats"][0], plain.metrics["nats"][0]) and "l2" in more.metrics


def test_several_centroids_from_one_evaluation():
    x = concepts(2, 5)
    for name in ("quantized_codebook", "quantized_continuous"):
        model = small_model(name)
        first = model.predict(torch.zeros_like(x), model.plan([0])[0], model.teacher_forced_context(x)).detach()
        options = GenerationOptions(guidance_scale=1.0, codebooks_per_step=LEVELS)
        got = predict_teacher_forced(model, x, options=options)
        if name == "quantized_continuous":
            torch.testing.assert_close(got, model.quantizer(first))
        partial = torch.zeros_like(x)
        for level, codebook in enumerate(model.quantizer.codebooks):
            if name == "quantized_codebook":
                partial = partial + codebook[model.logits(first, partial, level).argmax(-1)]
        if name == "quantized_codebook":
            torch.testing.assert_close(got, partial)
        assert (
            got - predict_teacher_forced(model, x, options=options.override("codebooks_per_step=1"))
        ).abs().max() > 0


def test_continuous_loss_is_the_squared_distance_of_the_concept():
    model, x = small_model("quantized_continuous"), concepts(2, 4)
    levels = torch.randint(0, LEVELS, (2, 4))
    found = model(x, partial_sums(model, x, levels), levels)
    loss = objective().loss(model, batch_of(x, [4, 2]), levels)
    error = (found - x).square().sum(-1)
    torch.testing.assert_close(loss.sum, error[0].sum() + error[1, :2].sum())
    torch.testing.assert_close(loss.metrics["l2"][0], (error[0].sqrt().sum() + error[1, :2].sqrt().sum()).detach())


def test_supervised_loss_is_that_of_the_targets(model):
    x = concepts(2, 6)
    levels = torch.randint(0, LEVELS, (2, 6))
    rows = torch.stack([levels[0, 2:5], levels[1, 4:7].new_tensor([int(levels[1, 4]), int(levels[1, 5]), 0])])
    got = objective().loss(model, batch_of(x, [5, 6], [2, 4]), rows)
    each = [
        objective().loss(model, batch_of(x[b : b + 1, : n + 1]), levels[b : b + 1, : n + 1]).sum
        - objective().loss(model, batch_of(x[b : b + 1, :n]), levels[b : b + 1, :n]).sum
        for b, n in ((0, 2), (0, 3), (0, 4), (1, 4), (1, 5))
    ]
    assert got.count == 5
    torch.testing.assert_close(got.sum, sum(each), rtol=1e-3, atol=1e-3)


def test_levels_and_dropped_rows_are_drawn_as_configured(model):
    x, seen = concepts(64, 20), []

    class Spy(QuantizedObjective):
        def loss(self, model, batch, levels, dropped=None, asked=None):
            seen.append((levels, dropped, asked))

    for power, share, lookahead in ((1.0, 0.15, 0), (3.0, 0.0, 2)):
        settings = QuantizedObjectiveConfig(level_power=power, conditioning_dropout=share, lookahead=lookahead)
        Spy(settings, NORMALIZER)(model, batch_of(x), StepRandom(0, 5))
    (uniform, dropped, nothing), (early, none, asked) = seen
    assert nothing is None
    shares = torch.bincount(asked[early == 0], minlength=3) / (early == 0).sum()
    assert (shares - 1 / 3).abs().max() < 0.07 and (asked >= early).all() and asked.max() == 2
    shares = torch.bincount(uniform.flatten(), minlength=3) / uniform.numel()
    assert (shares - 1 / 3).abs().max() < 0.05
    assert abs((early == 0).float().mean() - (1 / 3) ** (1 / 3)) < 0.05
    assert abs(dropped.float().mean() - 0.15) < 0.04 and none is None


def test_loss_does_not_depend_on_the_batch(model):
    x, rng = concepts(3, 6), StepRandom(2, 7)
    batch = batch_of(x, [6, 3, 5])
    whole = objective()(model, batch, rng)
    parts = [
        objective()(model, ConceptBatch(x[b : b + 1, :n], torch.tensor([n]), torch.tensor([b])), rng)
        for b, n in enumerate([6, 3, 5])
    ]
    torch.testing.assert_close(sum(part.sum for part in parts), whole.sum, rtol=1e-4, atol=1e-4)
    name = "nats" if model.config.head == "discrete" else "mse"
    buckets = [value for key, value in whole.metrics.items() if key.startswith(f"{name}_k")]
    torch.testing.assert_close(sum(total for total, _ in buckets), whole.sum.detach())
    assert sum(float(count) for _, count in buckets) == 14


def test_a_model_that_knows_the_indices_generates_the_quantised_concept():
    """With the truth as what the head finds, generation is the greedy encoder."""
    x = concepts(2, 5)
    for name in HEADS:
        model = small_model(name)
        indices = model.quantizer.encode(x)

        def tell(partial, time, context, guided=False, model=model, indices=indices, name=name):
            level = int((model.plan(range(LEVELS)) - time).abs().sum(-1).argmin())
            truth = 99.0 * F.one_hot(indices[..., level], SIZE).float() if name == "quantized" else x
            return (truth, torch.zeros_like(truth)) if guided else truth

        model.predict = tell
        if name == "quantized_codebook":
            model.level_bias.data.zero_()
        for scale in (1.0, 1.0 + 1e-6):
            options = GenerationOptions(guidance_scale=scale, guidance_rescale=0.0)
            got = predict_teacher_forced(model, x, options=options)
            torch.testing.assert_close(got, model.quantizer.decode(indices), rtol=1e-4, atol=1e-4)


def test_results_are_sums_of_centroids_and_sampling_follows_the_seed(model):
    prompt = concepts(1, 3)[0]
    settings = {"max_concepts": 4, "stop_threshold": None, "temperature": 2.0, "centroid_temperature": 2.0}

    def run(**changes):
        options = GenerationOptions(**{**settings, **changes})
        return generate_concepts(model, [prompt], NORMALIZER, options)[0].concepts

    sampled = run()
    codes = torch.cartesian_prod(*[torch.arange(SIZE)] * LEVELS)
    apart = (sampled.unsqueeze(1) - model.quantizer.decode(codes)).norm(dim=-1)
    assert apart.min(dim=1).values.max() < 1e-4
    assert torch.equal(run(), sampled)
    assert (run(seed=1) - sampled).abs().max() > 0.1
    greedy = run(temperature=0.0, centroid_temperature=0.0)
    torch.testing.assert_close(run(top_k=1), greedy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(top_p=1e-6), greedy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(seed=1, temperature=0.0, centroid_temperature=0.0), greedy)


def test_guidance_changes_the_result(model):
    x = concepts(1, 6)
    got = [
        predict_teacher_forced(model, x, options=GenerationOptions(guidance_scale=scale, guidance_rescale=0.0))
        for scale in (1.0, 1.0 + 1e-6, 8.0)
    ]
    torch.testing.assert_close(got[0], got[1], rtol=1e-4, atol=1e-4)
    assert (got[2] - got[0]).abs().max() > 0.1


def test_more_codebooks_than_channels_can_be_sampled():
    torch.manual_seed(0)
    model = QuantizedConceptModel(
        QuantizedConfig(concept_dim=2, model_dim=8, num_heads=2, num_layers=1, num_quantizers=5, codebook_size=4)
    )
    model.prepare(lambda number: torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), 0)
    streams = []

    def noise(stream, rows, positions):
        streams.append(stream)
        return torch.zeros(len(rows), 2)

    options = GenerationOptions(max_concepts=1, temperature=1.0)
    generate_concepts(model, [torch.zeros(1, 2)], ConceptNormalizer.identity(2), options, noise=noise)
    assert streams == ["codebooks/0", "codebooks/1", "codebooks/2"]


def test_choice_follows_the_distribution():
    logits = torch.tensor([0.3, 1.0, -1.0, 0.1])
    u = (torch.arange(20_000) + 0.5) / 20_000
    for temperature, top_k, top_p in ((1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 2, 1.0), (1.0, 0, 0.6), (1.0, 0, 1e-9)):
        expected = (logits / temperature).softmax(-1)
        order = expected.argsort(descending=True)
        if top_k:
            expected[order[top_k:]] = 0.0
        kept = expected[order].cumsum(0) - expected[order] < top_p
        expected[order[~kept]] = 0.0
        got = choose(logits.expand(20_000, 4), temperature, top_k, top_p, u)
        torch.testing.assert_close(
            torch.bincount(got, minlength=4) / 20_000, expected / expected.sum(), atol=1e-3, rtol=0
        )
    assert choose(logits, 0.0) == 1
    edge = choose(logits.expand(2, 4), 1.0, uniform=torch.tensor([0.0, 1.0]))
    assert edge.tolist() == [1, 2]  # ndtr can round to 1


def test_codebooks_are_fitted_once_saved_and_replaced(tmp_path):
    torch.manual_seed(0)
    config = QuantizedConfig(concept_dim=DIM, model_dim=8, num_heads=2, num_layers=1, num_quantizers=2, codebook_size=4)
    model = QuantizedConceptModel(config)
    with pytest.raises(DataError, match="codebooks are empty"):
        generate_concepts(model, [concepts(1, 2)[0]], NORMALIZER)
    asked = []

    def sample(number):
        asked.append(number)
        return concepts(1, 60)[0]

    model.prepare(sample, seed=3)
    expected = ResidualVectorQuantizer.fit(concepts(1, 60)[0], 2, 4, seed=3)
    assert torch.equal(model.quantizer.codebooks, expected.codebooks)
    model.prepare(sample, seed=4)
    assert asked == [config.fit_samples]
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path).quantizer.codebooks, expected.codebooks)
    with pytest.raises(ConfigError, match=r"expected \(2, 4, 16\); got \(3, 4, 16\)"):
        model.set_codebooks(ResidualVectorQuantizer.fit(concepts(1, 60)[0], 3, 4))
    with pytest.raises(DataError, match="codebooks are empty"):
        model.set_codebooks(ResidualVectorQuantizer(QuantizerConfig(dim=DIM, num_quantizers=2, codebook_size=4)))


def test_other_models_are_refused():
    torch.manual_seed(0)
    model = MSEConceptModel(MSEConfig(concept_dim=DIM, model_dim=8, num_heads=2, num_layers=1))
    made = build_objective(QuantizedObjectiveConfig(), NORMALIZER)
    with pytest.raises(ConfigError, match="does not fit the model"):
        made(model, batch_of(concepts(2, 3)), StepRandom(0))


def test_size_of_the_paper():
    with torch.device("meta"):
        discrete = QuantizedConceptModel(QuantizedConfig())
        continuous = QuantizedConceptModel(QuantizedConfig(head="continuous"))
    for model in (discrete, continuous):
        assert 1.6e9 < sum(p.numel() for p in model.parameters()) < 1.7e9
        assert model.quantizer.codebooks.shape == (64, 8192, 1024)


def test_wrong_calls_are_named(model):
    x, levels = concepts(2, 4), torch.zeros(2, 4, dtype=torch.long)
    for call, message in (
        (lambda: model(x, x[:, :2], levels), "noisy: wrong shape"),
        (lambda: model(x, x, levels[:, :2]), "timesteps: wrong shape"),
        (lambda: model(x[..., :5], x, levels), "x: wrong shape"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    assert math.isfinite(float(model(x, x, levels).sum().detach()))

"""The planning model: roles from the concepts read, marks for any body, and its objective."""

from __future__ import annotations

import pytest
import torch
from variants import SMALL, concepts, small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import SeededNoise, make_predictor
from largeconcept.models import PlanningConceptModel, PlanningConfig, build_model, load_model, save_model
from largeconcept.objectives import build_objective, default_objective
from largeconcept.objectives.planning import PlanningObjective, PlanningObjectiveConfig
from largeconcept.types import ROLES, ConceptBatch

DIM = 16
CONCEPT, BREAK, PLAN, END = range(4)
NORMALIZER = ConceptNormalizer.identity(DIM)
FAMILIES = ["planning", "planning_two_tower", "planning_mse", "planning_flow", "planning_energy"]


def planner(name: str = "planning_mse", seed: int = 0) -> PlanningConceptModel:
    model = small_model(name, seed)
    model.set_break(concepts(1, 1, seed=9)[0, 0])
    return model


def planned(batch: int = 2) -> torch.Tensor:
    """Concepts with breaks at 2 and 5 of the first text, at 3 of the second."""
    x = concepts(batch, 7)
    pause = concepts(1, 1, seed=9)[0, 0]
    x[0, 2] = x[0, 5] = x[1, 3] = pause
    return x


def test_a_plan_comes_first_and_after_every_break():
    assert ROLES == ("concept", "break", "plan", "end")
    expected = [
        [PLAN, CONCEPT, BREAK, PLAN, CONCEPT, BREAK, PLAN],
        [PLAN, CONCEPT, CONCEPT, BREAK, PLAN, CONCEPT, CONCEPT],
    ]
    model, x = planner(), planned()
    assert model.roles(x).tolist() == expected
    expected[0][0] = CONCEPT  # in the middle of a paragraph
    assert model.roles(x, torch.tensor([False, True])).tolist() == expected
    assert model.roles(x[:, :0]).shape == (2, 0)


def test_what_resembles_the_break_is_one_up_to_the_threshold():
    model = planner()
    pause = model.break_concept
    side = concepts(1, 1, seed=4)[0, 0]
    side = side - pause * (side @ pause) / (pause @ pause)
    for cosine, found in ((0.95, True), (0.85, False)):
        near = 3 * (cosine * pause / pause.norm() + (1 - cosine**2) ** 0.5 * side / side.norm())
        assert bool(model.is_break(near)) is found
        assert bool(model.is_break(near, 0.8))
        assert not bool(model.is_break(near, 0.99))


def test_without_a_break_concept_nothing_is_a_break():
    model = small_model("planning_mse")
    assert not model.knows_breaks
    assert not model.roles(concepts(2, 5))[:, 1:].any()
    assert not bool(model.is_break(torch.zeros(DIM)))


@pytest.mark.parametrize("bad", [torch.zeros(DIM), torch.full((DIM,), torch.nan), torch.ones(DIM + 1)])
def test_useless_break_concepts_are_refused(bad):
    with pytest.raises(DataError, match="break concept"):
        small_model("planning_mse").set_break(bad)


@pytest.mark.parametrize("name", FAMILIES[:3])
def test_with_embeddings_at_zero_it_is_its_body(name):
    assert not build_model(SMALL[name]).role_embedding.any()
    model = planner(name)
    torch.nn.init.zeros_(model.role_embedding)
    x, noisy = planned(), concepts(2, 7, seed=3)
    rest = () if name == "planning_mse" else (noisy, torch.arange(14).view(2, 7) % 12)
    assert torch.equal(model(x, *rest), model.body(x, *rest))
    with torch.no_grad():
        model.role_embedding.normal_()
    assert not torch.allclose(model(x, *rest), model.body(x, *rest))
    marked = x + model.role_embedding[model.roles(x)]
    assert torch.equal(model(x, *rest), model.body(marked, *rest))


@pytest.mark.parametrize("name", FAMILIES)
def test_cached_generation_marks_roles_as_teacher_forcing_does(name):
    """Read a text with breaks from a cache, begun at every length; predictions are those of the whole text at once."""
    model, x = planner(name), planned()
    options = GenerationOptions(num_inference_steps=4, guidance_scale=2.0)
    with torch.no_grad():
        predictor = make_predictor(model, options, SeededNoise(0, [0, 0], DIM, x.device), 10)
        forced = predictor.teacher_forced(x)
        for begin in ([1, 1], [3, 2], [2, 4], [4, 3]):
            cache = predictor.start(x, begin, 8)
            for step in range(3):
                places = [n + step for n in begin]
                rows = torch.tensor([0, 1])
                predicted = predictor.predict(cache, [0, 1])
                torch.testing.assert_close(predicted, forced[rows, places], rtol=1e-4, atol=1e-4)
                predictor.extend(cache, x[rows, places])


def test_the_break_is_saved_with_the_weights(tmp_path):
    model = planner()
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again.break_concept, model.break_concept)
    assert again.config == model.config


def test_the_configuration_is_checked_with_the_place():
    config = PlanningConfig.from_dict(SMALL["planning"])
    assert (config.concept_dim, config.positions) == (16, config.body.positions)
    assert config.override("body.num_layers=3").body.num_layers == 3
    assert config.override("body.type=mse").body.type == "mse"
    with pytest.raises(ConfigError, match=r"body\.num_layer.*num_layers"):
        config.override("body.num_layer=3")
    with pytest.raises(ConfigError, match=r"body\.type"):
        PlanningConfig.from_dict({"type": "planning", "body": {"type": "planning"}})


def test_golden_value():
    torch.manual_seed(0)
    model = build_model(SMALL["planning"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.arange(parameter.numel()).view(parameter.shape).sin())
        model.set_break(torch.arange(16).float().cos())
        x = torch.arange(2 * 4 * 16).float().view(2, 4, 16).sin()
        x[0, 1] = model.break_concept
        out = model(x, x.flip(1), torch.tensor([[0, 3, 6, 11]] * 2))
    found = [float(out.sum()), float(out.abs().sum()), float(out[0, 2, 3]), float(out[1, 3, 7])]
    assert found == pytest.approx(GOLDEN, rel=1e-4, abs=1e-5)


GOLDEN = [24.004478, 73.280884, -0.605454, 0.0264955]


# --- objective -------------------------------------------------------------------------------------------------------


def batch(roles=None) -> ConceptBatch:
    return ConceptBatch(planned(), torch.tensor([7, 6]), torch.tensor([3, 4]), roles=roles)


def loss(name: str, data: ConceptBatch, **settings):
    objective = build_objective(PlanningObjectiveConfig(**settings), NORMALIZER)
    with torch.no_grad():
        return objective(planner(name), data, StepRandom(0, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_objective_is_the_body_s_own_on_marked_concepts(name):
    model = planner(name)
    own = build_objective(default_objective(model.config.body), NORMALIZER)(model, batch(), StepRandom(0, 1))
    for roles in (None, model.roles(planned())):
        found = loss(name, batch(roles))
        assert float(found.sum) == pytest.approx(own.sum.item(), rel=1e-5)
        assert float(found.count) == float(own.count)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_roles(name):
    """The loss is linear in the weights; its parts are those of plans, breaks and the rest."""
    roles = planner(name).roles(planned())
    data = batch(roles)
    whole = float(loss(name, data).sum)
    without_plans = float(loss(name, data, plan_weight=0.0).sum)
    without_breaks = float(loss(name, data, break_weight=0.0).sum)
    assert 0 < without_plans < whole
    assert 0 < without_breaks < whole
    found = loss(name, data, plan_weight=3.0, break_weight=0.5)
    expected = whole + 2 * (whole - without_plans) - 0.5 * (whole - without_breaks)
    assert float(found.sum) == pytest.approx(expected, rel=1e-4)
    assert float(found.count) == float(loss(name, data).count)
    for key, (total, _) in loss(name, data).metrics.items():
        assert torch.equal(found.metrics[key][0], total), key
    weights = PlanningObjective(PlanningObjectiveConfig(plan_weight=3.0, break_weight=0.5), NORMALIZER).weights(data)
    assert torch.equal(weights, torch.tensor([1.0, 0.5, 3.0, 1.0])[roles])
    # Weights without effect are none.
    assert PlanningObjective(PlanningObjectiveConfig(), NORMALIZER).weights(data) is None


@torch.no_grad()
def test_weights_reach_the_targets_of_source_and_target_data():
    data = ConceptBatch(
        planned(),
        torch.tensor([7, 6]),
        torch.tensor([3, 4]),
        source_lengths=torch.tensor([2, 3]),
        weights=torch.ones(2, 7),
    )
    for name in ("two_tower", "mse"):
        model = small_model(name)
        objective = build_objective(default_objective(model.config), NORMALIZER)
        whole = objective(model, data, StepRandom(0, 1)).sum
        only = torch.zeros(2, 7)
        only[0, 2] = only[1, 3] = 1.0  # the first target of each row
        data.weights = only
        first = objective(model, data, StepRandom(0, 1)).sum
        data.weights = 1.0 - only
        rest = objective(model, data, StepRandom(0, 1)).sum
        assert float(first) > 0
        assert float(first + rest) == pytest.approx(float(whole), rel=1e-5)
        data.weights = torch.ones(2, 7)


def test_other_models_are_refused():
    objective = build_objective(PlanningObjectiveConfig(), NORMALIZER)
    with pytest.raises(ConfigError, match="does not fit"):
        objective(small_model("mse"), batch(), StepRandom(0, 0))
    wrong = build_objective(PlanningObjectiveConfig.from_dict({"body": {"type": "diffusion"}}), NORMALIZER)
    with pytest.raises(ConfigError, match="does not fit"):
        wrong(planner("planning_mse"), batch(), StepRandom(0, 0))

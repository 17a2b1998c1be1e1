"""Concepts weighed by their fragility: the weights are the formula's, frozen, and their mean is a constant."""

import pytest
import torch
from variants import SMALL

from largeconcept.codec.fragility import FragilityScorer
from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig
from largeconcept.diffusion.random import StepRandom
from largeconcept.diffusion.weighting import WeightingConfig, fragility_weights
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.models import build_model
from largeconcept.objectives.diffusion import DiffusionConfig, DiffusionObjective
from largeconcept.types import ConceptBatch

DIM = 16
NORMALIZER = ConceptNormalizer(NormalizerConfig(dim=DIM), torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))


@pytest.fixture(scope="module")
def scorer_folder(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    concepts = torch.randn(200, DIM, generator=generator)
    values = torch.sigmoid(2 * concepts[:, 0]) - 1.0
    scorer, _ = FragilityScorer.fit(concepts, values, steps=200)
    folder = tmp_path_factory.mktemp("scorer")
    scorer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["two_tower", "one_tower"])
def model(request):
    torch.manual_seed(0)
    return build_model(SMALL[request.param]).eval()


def batch():
    concepts = torch.randn(3, 5, DIM, generator=torch.Generator().manual_seed(4))
    return ConceptBatch(concepts, torch.tensor([5, 3, 1]), torch.tensor([7, 8, 9]))


def objective(folder=None, **weighting):
    settings = {} if folder is None else {"type": "fragility", "fragility_scorer": str(folder)}
    return DiffusionObjective(DiffusionConfig(weighting=WeightingConfig(**settings, **weighting)), NORMALIZER)


def test_the_formula():
    config = WeightingConfig(type="fragility", fragility_scorer="x")
    weights = fragility_weights(torch.tensor([0.0, 0.5, 1.0]), config)
    assert weights.tolist() == pytest.approx([0.97069, 0.81757, 0.37754], abs=1e-5)


@pytest.mark.parametrize("normalize", ["expected", "batch"])
def test_each_concept_is_weighed_by_itself(model, scorer_folder, normalize):
    data, rng = batch(), StepRandom(0, 3)
    scorer = FragilityScorer.from_pretrained(scorer_folder)
    weights = torch.sigmoid(-4.0 * scorer(data.concepts) + 3.5)
    mask = torch.arange(5) < data.lengths[:, None]
    if normalize == "expected":
        weights = weights / scorer.mean_weight(-4.0, 3.5)
    else:
        weights = weights * mask.sum() / weights[mask].sum()
    assert float(weights[mask].max() / weights[mask].min()) > 1.3
    single = []
    for row in range(3):  # the plain loss of each concept: all others taken out of the count
        for position in range(int(data.lengths[row])):
            plain = objective()
            plain_sum = 0.0
            if position:
                short = ConceptBatch(data.concepts, data.lengths.clone(), data.sample_ids)
                short.lengths[:] = 0
                short.lengths[row] = position
                plain_sum = float(plain(model, short, rng).sum.detach())
            full = ConceptBatch(data.concepts, data.lengths.clone(), data.sample_ids)
            full.lengths[:] = 0
            full.lengths[row] = position + 1
            single.append((float(plain(model, full, rng).sum.detach()) - plain_sum) * float(weights[row, position]))
    found = objective(scorer_folder, normalize=normalize)(model, data, rng)
    assert float(found.sum.detach()) == pytest.approx(sum(single), rel=1e-4)
    assert float(found.count) == 9


def test_the_scorer_is_frozen_and_the_models_gradient_is_weighed(model, scorer_folder):
    weighed, plain = objective(scorer_folder), objective()
    gradients = []
    for one in (weighed, plain):
        model.zero_grad()
        one(model, batch(), StepRandom(0, 1)).sum.backward()
        parameter = next(p for p in model.parameters() if p.grad is not None and float(p.grad.abs().max()) > 0)
        gradients.append(parameter.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])
    assert all(p.grad is None and not p.requires_grad for p in weighed._scorer.parameters())


def test_mistakes(model, scorer_folder, tmp_path):
    with pytest.raises(ConfigError, match="fragility_scorer is needed"):
        WeightingConfig(type="fragility")
    with pytest.raises(ConfigError, match="fragility_scorer is needed"):
        WeightingConfig(type="none", fragility_scorer="x")
    with pytest.raises(CheckpointError, match="no such folder"):
        objective(tmp_path / "none")(model, batch(), StepRandom(0))
    other, _ = FragilityScorer.fit(torch.randn(30, 4), -torch.rand(30), steps=2)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(DataError, match="another dimension"):
        objective(tmp_path / "other")(model, batch(), StepRandom(0))

"""The cached, planned loop against one written straight from the equations (benchmarks/naive_two_tower.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.generate.loop import generate_concepts
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import TwoTowerConceptModel, TwoTowerConfig
from largeconcept.objectives import build_objective, default_objective
from largeconcept.types import ConceptBatch

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from naive_two_tower import NaiveTwoTower, naive_generate

DIM = 48


@pytest.fixture(params=["recipe", "toy"])
def model(request):
    torch.manual_seed(0)
    sizes = {
        "concept_dim": DIM,
        "model_dim": 64,
        "num_heads": 4,
        "num_context_layers": 2,
        "num_denoiser_layers": 3,
        "dropout": 0.0,
        "final_dropout": 0.0,
        "noise_schedule": {"num_timesteps": 100},
    }
    config = (
        TwoTowerConfig.toy(**sizes, max_positions=64) if request.param == "toy" else TwoTowerConfig.from_dict(sizes)
    )
    model = TwoTowerConceptModel(config).eval()
    for layer in model.denoiser.layers:
        torch.nn.init.normal_(layer.modulator.fc.weight, std=0.05)
        torch.nn.init.normal_(layer.modulator.fc.bias, std=0.2)
    return model


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_generation(model, batch, guidance):
    x = torch.randn(batch, 6, DIM)
    noise = torch.randn(batch, DIM)
    options = GenerationOptions(
        max_concepts=3,
        stop_threshold=None,
        num_inference_steps=10,
        guidance_scale=guidance,
        guidance_rescale=0.7,
        initial_noise_scale=1.0,
    )
    fast = generate_concepts(
        model, list(x), ConceptNormalizer.identity(DIM), options, noise=lambda stream, rows, positions: noise[rows]
    )
    plain = naive_generate(model, x, 3, options, lambda position: noise)
    assert plain.std() > 0.1
    assert (torch.stack([one.concepts for one in fast]) - plain).abs().max() <= 1e-5


def test_training(model):
    objective = build_objective(default_objective(model.config), ConceptNormalizer.identity(DIM))
    batch = ConceptBatch(torch.randn(4, 32, DIM), torch.full((4,), 32), torch.arange(4))
    naive, found = NaiveTwoTower(model), []
    for one in (model, naive):
        model.zero_grad()
        loss = objective(one, batch, StepRandom(3, 1))
        loss.sum.backward()
        found.append((loss.sum.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    (fast, gradients), (plain, others) = found
    assert torch.allclose(fast, plain, rtol=1e-5)
    for mine, theirs in zip(gradients, others, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max().clamp(min=1.0)))

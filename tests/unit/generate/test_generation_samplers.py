"""Every sampler drives every family that denoises along a noise schedule, with the loop's promises kept."""

import pytest
import torch
from variants import SMALL

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError
from largeconcept.generate.loop import generate_concepts, predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.models import build_model

SAMPLERS = ("ddim", "ddpm", "dpm_solver_pp_2m")
FAMILIES = ("one_tower", "two_tower")
NORMALIZER = ConceptNormalizer.identity(16)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    built = build_model(SMALL[request.param]).eval()
    with torch.no_grad():
        for parameter in built.parameters():  # modulators start at zero, and then nothing depends on the context
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built


def options(sampler, **settings):
    return GenerationOptions(sampler=sampler, num_inference_steps=6, max_concepts=3, stop_threshold=None, **settings)


PROMPTS = [torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in (5, 1, 3)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_is_one_at_a_time_and_repeats(model, sampler):
    together = generate_concepts(model, PROMPTS, NORMALIZER, options(sampler))
    again = generate_concepts(model, PROMPTS, NORMALIZER, options(sampler))
    for prompt, one, same in zip(PROMPTS, together, again, strict=True):
        assert bool(torch.isfinite(one.concepts).all())
        torch.testing.assert_close(one.concepts, same.concepts, rtol=1e-4, atol=1e-4)
        alone = generate_concepts(model, [prompt], NORMALIZER, options(sampler))[0]
        torch.testing.assert_close(one.concepts, alone.concepts, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_positions_at_once_give_the_first_new_concept(model, sampler):
    whole = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(9))
    forced = predict_teacher_forced(model, whole, None, options(sampler))
    for n in (1, 3):
        generated = generate_concepts(model, [whole[0, :n]], NORMALIZER, options(sampler))[0].concepts[0]
        torch.testing.assert_close(forced[0, n], generated, rtol=1e-4, atol=1e-4)


def test_samplers_differ_and_only_the_ancestral_one_draws_noise_on_the_way(model):
    drawn = []

    def noise(stream, rows, positions):
        drawn.append(stream)
        return torch.ones(len(rows), 16) * (len(stream) - 7) / 3

    found = {}
    for sampler in SAMPLERS:
        drawn.clear()
        found[sampler] = generate_concepts(model, PROMPTS[:1], NORMALIZER, options(sampler), noise=noise)[0].concepts
        # the last of six steps leads into clean data, where the posterior has no variance
        expected = {"initial", *(f"variance/{n}" for n in range(5))} if sampler == "ddpm" else {"initial"}
        assert set(drawn) == expected
    assert not torch.allclose(found["ddim"], found["dpm_solver_pp_2m"], atol=1e-4)
    assert not torch.allclose(found["ddim"], found["ddpm"], atol=1e-4)


def test_the_option_is_checked():
    with pytest.raises(ConfigError, match="dpm_solver_pp_2m"):
        GenerationOptions.from_dict({"sampler": "dpm_solver_pp_2m", "eta": 1.0})

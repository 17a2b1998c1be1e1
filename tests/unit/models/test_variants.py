"""What every family of models promises, checked on all of them."""

from __future__ import annotations

import pytest
import torch
from variants import GENERATION, SMALL, concepts, small_batch, small_model, small_objective

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.random import StepRandom
from largeconcept.generate.loop import generate_concepts, predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.predictors import PREDICTORS
from largeconcept.models import MODELS, load_model, save_model
from largeconcept.objectives import DEFAULTS

DIM = 16
NORMALIZER = ConceptNormalizer.identity(DIM)
GENERATING = [name for name, config in SMALL.items() if config["type"] in PREDICTORS]


def options(name: str, **changes) -> GenerationOptions:
    settings = {
        "max_concepts": 3,
        "stop_threshold": None,
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "seed": 5,
        **GENERATION.get(name, {}),
        **changes,
    }
    return GenerationOptions(**settings)


def generate(name: str, model, prompts, **changes):
    results = generate_concepts(model, prompts, NORMALIZER, options(name, **changes))
    return [result.concepts for result in results]


def test_every_family_has_a_small_model_and_an_objective():
    assert {config["type"] for config in SMALL.values()} == set(MODELS)
    assert set(DEFAULTS) == set(MODELS)


@pytest.mark.parametrize("name", GENERATING)
class TestEveryFamily:
    def test_a_concept_changes_no_prediction_of_itself_or_of_an_earlier_one(self, name):
        model, x = small_model(name), concepts(2, 6)
        before = predict_teacher_forced(model, x, options=options(name))
        for j in (1, 3, 5):
            changed = x.clone()
            changed[:, j] += 3.0
            after = predict_teacher_forced(model, changed, options=options(name))
            assert torch.equal(after[:, : j + 1], before[:, : j + 1])
            if j < 5:
                assert not torch.allclose(after[:, j + 1 :], before[:, j + 1 :])

    def test_training_loss_of_a_concept_does_not_depend_on_later_ones(self, name):
        model, x = small_model(name), concepts(1, 6)
        objective = small_objective(model, NORMALIZER)
        ids = torch.tensor([3])

        def loss(values, length):
            return objective(model, small_batch(values, torch.tensor([length]), ids), StepRandom(0, 0)).sum

        changed = x.clone()
        changed[:, 4:] = 7.0
        assert torch.allclose(loss(x, 4), loss(changed, 4), rtol=1e-5)
        assert not torch.allclose(loss(x, 6), loss(changed, 6))

    def test_cached_generation_starts_with_the_teacher_forced_prediction(self, name):
        model, x = small_model(name), concepts(1, 6)
        forced = predict_teacher_forced(model, x, options=options(name))
        for size in (1, 2, 5):
            first = generate(name, model, [x[0, :size]], max_concepts=1)[0]
            assert torch.allclose(first[0], forced[0, size], atol=1e-4), size

    def test_generation_with_a_cache_equals_reading_all_again(self, name):
        model, x = small_model(name), concepts(1, 3)
        at_once = generate(name, model, [x[0]])[0]
        text = x[0]
        for n in range(3):
            text = torch.cat((text, generate(name, model, [text], max_concepts=1)[0]))
            assert torch.allclose(text[-1], at_once[n], atol=1e-3), n

    def test_prompts_of_different_lengths_do_not_disturb_each_other(self, name):
        model, x = small_model(name), concepts(3, 5)
        prompts = [x[0, :1], x[1, :5], x[2, :3]]
        together = generate(name, model, prompts)
        for prompt, result in zip(prompts, together, strict=True):
            assert torch.allclose(generate(name, model, [prompt])[0], result, atol=1e-4)

    def test_the_same_seed_gives_the_same_and_a_cache_can_lose_and_gain_rows(self, name):
        from largeconcept.generate.predictors import SeededNoise, make_predictor

        model, x = small_model(name), concepts(3, 4)
        assert torch.equal(generate(name, model, [x[0]])[0], generate(name, model, [x[0]])[0])
        noise = SeededNoise(0, [0, 1, 2], DIM, torch.device("cpu"))
        with torch.no_grad():
            predictor = make_predictor(model, options(name), noise, 9)
            whole = predictor.start(x, [4, 2, 3], 8)
            parts = predictor.start(x[2:], [3], 4)
            parts.join(predictor.start(x[:2], [4, 2], 6))
            parts.select([1, 2, 0])
            assert parts.lengths == whole.lengths == [4, 2, 3]
            for _ in range(2):
                new = predictor.predict(whole, [0, 1, 2])
                assert torch.allclose(predictor.predict(parts, [0, 1, 2]), new, atol=1e-4)
                predictor.extend(whole, new)
                predictor.extend(parts, new)

    def test_saved_and_loaded_it_generates_the_same(self, name, tmp_path):
        model, x = small_model(name), concepts(1, 3)
        save_model(model, tmp_path)
        again = load_model(tmp_path)
        assert again.config == model.config
        assert torch.equal(generate(name, model, [x[0]])[0], generate(name, again, [x[0]])[0])

    def test_every_parameter_gets_a_finite_gradient_and_padding_does_not_matter(self, name):
        model, x = small_model(name), concepts(4, 8)
        model.train()
        objective = small_objective(model, NORMALIZER)
        lengths, ids = torch.tensor([8, 5, 2, 7]), torch.arange(4)
        loss = objective(model, small_batch(x, lengths, ids), StepRandom(1, 2))
        loss.sum.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), key
        padded = x.clone()
        for row, length in enumerate(lengths.tolist()):
            padded[row, length:] = 100.0
        again = objective(model, small_batch(padded, lengths, ids), StepRandom(1, 2))
        assert torch.allclose(again.sum, loss.sum, rtol=1e-5)
        assert float(again.count) == float(loss.count)

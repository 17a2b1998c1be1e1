"""The loop over concepts: independence of the batch, stopping, noise, complaints."""

import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.loop import GenerationOptions, generate_concepts, predict_teacher_forced
from largeconcept.generate.predictors import SeededNoise, make_predictor
from largeconcept.generate.stopping import StopTest
from largeconcept.models import MSEConceptModel, MSEConfig, TwoTowerConceptModel, TwoTowerConfig

SMALL = {"concept_dim": 6, "model_dim": 16, "num_heads": 2, "ffn_dim": 32}
FAST = {"num_inference_steps": 5, "stop_threshold": None}


@pytest.fixture
def normalizer():
    torch.manual_seed(1)
    normalizer = ConceptNormalizer.identity(6)
    normalizer.center.copy_(torch.randn(6))
    normalizer.scale.copy_(torch.rand(6) + 0.5)
    return normalizer


@pytest.fixture(params=["mse", "two_tower", "two_tower eps"])
def model(request):
    torch.manual_seed(0)
    if request.param == "mse":
        return MSEConceptModel(MSEConfig(**SMALL, num_layers=2))
    schedule = {"num_timesteps": 20, "zero_terminal_snr": request.param == "two_tower"}
    kind = "x_0" if request.param == "two_tower" else "eps"
    model = TwoTowerConceptModel(
        TwoTowerConfig.from_dict(
            {
                **SMALL,
                "num_context_layers": 2,
                "num_denoiser_layers": 2,
                "noise_schedule": schedule,
                "prediction_type": kind,
            }
        )
    )
    for layer in model.denoiser.layers:
        torch.nn.init.normal_(layer.modulator.fc.weight, std=0.3)
        torch.nn.init.normal_(layer.modulator.fc.bias, std=0.3)
    return model


def prompts(*lengths):
    torch.manual_seed(2)
    return [torch.randn(n, 6) for n in lengths]


def same(one, other):
    assert one.stop_reason == other.stop_reason
    torch.testing.assert_close(one.concepts, other.concepts, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extra", [{}, {"eta": 0.7, "temperature": 0.5, "guidance_scale": 1.0}])
def test_a_document_does_not_depend_on_its_neighbours(model, normalizer, extra):
    """Three prompts of different lengths that finish at different moments, together and each alone."""
    options = GenerationOptions(**{**FAST, **extra}, max_concepts=5, repetition_threshold=0.6)
    given = prompts(4, 1, 7)
    together = generate_concepts(model, given, normalizer, options)
    for prompt, result in zip(given, together, strict=True):
        same(generate_concepts(model, [prompt], normalizer, options)[0], result)
    for order in ([2, 0, 1], [1, 1, 2]):
        for i, result in zip(order, generate_concepts(model, [given[i] for i in order], normalizer, options)):
            same(result, together[i])


def test_rows_leave_at_different_moments(normalizer):
    """The batch really shrinks in the test above: some rows stop by repetition, others at the end."""
    torch.manual_seed(0)
    model = MSEConceptModel(MSEConfig(**SMALL, num_layers=2))
    options = GenerationOptions(**FAST, max_concepts=5, repetition_threshold=0.6)
    results = generate_concepts(model, prompts(4, 1, 7, 2, 3, 5), normalizer, options)
    assert len({len(result.concepts) for result in results}) > 1


def test_generating_in_two_calls_equals_one(model, normalizer):
    options = GenerationOptions(**FAST, max_concepts=4)
    whole = generate_concepts(model, prompts(3), normalizer, options)[0].concepts
    half = options.override("max_concepts=2")
    first = generate_concepts(model, prompts(3), normalizer, half)[0].concepts
    second = generate_concepts(model, [torch.cat((prompts(3)[0], first))], normalizer, half)[0].concepts
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=1e-4, atol=1e-4)


def test_teacher_forced_equals_the_first_generated_concept(model, normalizer):
    options = GenerationOptions(**FAST, max_concepts=1, eta=0.3, temperature=0.2)
    x = prompts(6, 4)
    padded = torch.nn.utils.rnn.pad_sequence([normalizer.normalize(p) for p in x], batch_first=True)
    got = predict_teacher_forced(model, padded, [6, 4], options, sample_ids=[3, 8])
    for b, prompt in enumerate(x):
        first = 1 if isinstance(model, MSEConceptModel) else 0
        for i in range(first, len(prompt)):
            one = generate_concepts(model, [prompt[:i]], normalizer, options, sample_ids=[[3, 8][b]])[0]
            torch.testing.assert_close(normalizer.denormalize(got[b, i]), one.concepts[0], rtol=1e-4, atol=1e-4)
        assert not got[b, : first if first else 0].any()
        assert not got[b, len(prompt) :].any()


def test_guidance_of_one_is_no_guidance(normalizer):
    torch.manual_seed(0)
    model = TwoTowerConceptModel(TwoTowerConfig.from_dict({**SMALL, "num_context_layers": 1, "num_denoiser_layers": 2}))
    for layer in model.denoiser.layers:
        torch.nn.init.normal_(layer.modulator.fc.weight, std=0.3)
    options = GenerationOptions(**FAST, max_concepts=2, guidance_scale=1.0)
    results = [
        generate_concepts(model, prompts(3), normalizer, options.override(f"guidance_scale={w}"))[0].concepts
        for w in (1.0, 1.0 + 1e-6, 3.0)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)
    assert (results[0] - results[2]).abs().max() > 1e-2


def test_seed_and_sample_id_change_the_result_and_nothing_else_does(model, normalizer):
    options = GenerationOptions(**FAST, max_concepts=2, temperature=0.5)
    given = prompts(3, 3)
    given[1] = given[0]
    torch.manual_seed(5)
    first = generate_concepts(model, given, normalizer, options)
    torch.manual_seed(6)
    same(first[0], generate_concepts(model, given[:1], normalizer, options)[0])
    same(first[0], first[1])
    two = generate_concepts(model, given, normalizer, options, sample_ids=[0, 1])
    same(first[0], two[0])
    assert (two[0].concepts - two[1].concepts).abs().max() > 1e-3
    other = generate_concepts(model, given, normalizer, options.override("seed=1"))
    assert (other[0].concepts - first[0].concepts).abs().max() > 1e-3


def test_initial_noise_scale_matters(normalizer):
    torch.manual_seed(0)
    model = TwoTowerConceptModel(TwoTowerConfig.from_dict({**SMALL, "num_context_layers": 1, "num_denoiser_layers": 1}))
    got = [
        generate_concepts(model, prompts(2), normalizer, GenerationOptions(**FAST, initial_noise_scale=scale))
        for scale in (0.0, 1.0)
    ]
    assert (got[0][0].concepts - got[1][0].concepts).abs().max() > 1e-3


def test_stop_concept(model, normalizer):
    free = GenerationOptions(**FAST, max_concepts=4, temperature=0.5)
    concepts = generate_concepts(model, prompts(3), normalizer, free)[0].concepts
    for i, keep in ((2, False), (2, True), (0, False)):
        options = free.override("stop_threshold=0.9999", f"keep_last={str(keep).lower()}")
        result = generate_concepts(model, prompts(3), normalizer, options, stop_vector=3 * concepts[i])[0]
        assert result.stop_reason == "stop_concept"
        torch.testing.assert_close(result.concepts, concepts[: i + keep])
    later = free.override("stop_threshold=0.9999", "min_concepts=2")
    result = generate_concepts(model, prompts(3), normalizer, later, stop_vector=concepts[0])[0]
    assert result.stop_reason == "length" and len(result.concepts) == 4


def test_stop_concept_is_recognised_by_its_meaning(model, normalizer):
    free = GenerationOptions(**FAST, max_concepts=4, temperature=0.5)
    concepts = generate_concepts(model, prompts(3), normalizer, free)[0].concepts
    stop = torch.cat((concepts[2][:4], -9 * concepts[2][4:]))  # the same meaning, another wording
    options = free.override("stop_threshold=0.9999")
    for channels, reason, length in ((None, "length", 4), (4, "stop_concept", 2)):
        result = generate_concepts(model, prompts(3), normalizer, options, stop_vector=stop, meaning_dim=channels)[0]
        assert (result.stop_reason, len(result.concepts)) == (reason, length)


def test_repetition_is_recognised_by_its_meaning():
    test = StopTest(GenerationOptions(repetition_threshold=0.99), None, 6, meaning_dim=4)
    new = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
    assert test(new, new * torch.tensor([1.0, 1, 1, 1, -1, -1]), [2]) == ["repetition"]
    assert test(new, new * torch.tensor([1.0, 1, 1, -1, 1, 1]), [2]) == [None]


def test_length_and_callback(model, normalizer):
    seen = []
    options = GenerationOptions(**FAST, max_concepts=3)
    results = generate_concepts(
        model, prompts(2, 5), normalizer, options, on_concept=lambda i, concept: seen.append((i, concept))
    )
    assert [result.stop_reason for result in results] == ["length", "length"]
    for b, result in enumerate(results):
        assert result.concepts.shape == (3, 6) and result.concepts.dtype == torch.float32
        assert torch.equal(result.concepts, torch.stack([concept for i, concept in seen if i == b]))


def test_repetition():
    options = GenerationOptions(max_concepts=9, repetition_threshold=0.9, min_concepts=2)
    stop = StopTest(options, torch.tensor([0.0, 1.0]), 2)
    new = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])
    previous = torch.tensor([[5.0, 0.1], [0.0, 1.0], [0.0, 0.0]])
    assert stop(new, previous, [1, 1, 1]) == [None, None, None]
    assert stop(new, previous, [2, 2, 2]) == ["repetition", "stop_concept", None]
    assert stop(new, previous, [9, 9, 9]) == ["repetition", "stop_concept", "length"]
    assert stop(new, previous, [1, 2, 9]) == [None, "stop_concept", "length"]


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_texts_that_wait_for_a_place_come_out_the_same(model, normalizer, max_batch):
    given = prompts(3, 1, 7, 2, 2, 5, 4)
    settings = {**FAST, "max_concepts": 5, "repetition_threshold": 0.6, "temperature": 1.0}
    ids = list(range(7))
    at_once = generate_concepts(model, given, normalizer, GenerationOptions(**settings), sample_ids=ids)
    assert len({len(one.concepts) for one in at_once}) > 1, "all texts are equally long: nothing is admitted early"
    widest = []
    start = type(make_predictor(model, GenerationOptions(**settings), None, 1)).start

    def watch(self, x, lengths, capacity):
        widest.append(len(lengths))
        return start(self, x, lengths, capacity)

    with patch.object(type(make_predictor(model, GenerationOptions(**settings), None, 1)), "start", watch):
        options = GenerationOptions(**settings, max_batch=max_batch)
        waiting = generate_concepts(model, given, normalizer, options, sample_ids=ids)
    assert max(widest) == max_batch and sum(widest) == 7
    for one, other in zip(at_once, waiting, strict=True):
        same(one, other)


def test_mode_is_left_as_it_was_and_dropout_is_off(model, normalizer):
    model.train()
    options = GenerationOptions(**FAST, max_concepts=2)
    one, two = (generate_concepts(model, prompts(3), normalizer, options)[0] for _ in range(2))
    assert torch.equal(one.concepts, two.concepts)
    assert model.training
    assert not one.concepts.is_inference()  # usable in training afterwards


def test_noise_depends_on_position_and_id_only():
    noise = SeededNoise(3, [7, 7, 9], 4, torch.device("cpu"))
    together = noise("initial", [0, 1, 2], [5, 2, 5])
    for i, (row, position) in enumerate([(0, 5), (1, 2), (2, 5)]):
        assert torch.equal(noise("initial", [row], [position])[0], together[i])
    assert not torch.equal(together[0], together[1]) and not torch.equal(together[0], together[2])
    assert torch.equal(noise("initial", [1], [5])[0], together[0])
    assert not torch.equal(noise("variance/0", [0], [5])[0], together[0])


def test_nothing_to_do(model, normalizer):
    assert generate_concepts(model, [], normalizer) == []


def test_beginning_a_text(model, normalizer):
    options = GenerationOptions(**FAST, max_concepts=2)
    given = [torch.zeros(0, 6), *prompts(2)]
    if isinstance(model, MSEConceptModel):
        with pytest.raises(DataError, match="prompt 0: an empty prompt"):
            generate_concepts(model, given, normalizer, options)
        return
    together = generate_concepts(model, given, normalizer, options)
    for prompt, result in zip(given, together, strict=True):
        same(generate_concepts(model, [prompt], normalizer, options)[0], result)


def test_bad_input_is_named(model, normalizer):
    options = GenerationOptions(**FAST)
    bad = prompts(2, 3)
    bad[1][2, 4] = float("nan")
    stop = torch.ones(6)
    for call, message in (
        (lambda: generate_concepts(model, bad, normalizer, options), r"prompt 1\[2\]: a concept is not finite"),
        (lambda: generate_concepts(model, [torch.zeros(2, 5)], normalizer, options), r"prompt 0: wrong shape"),
        (lambda: generate_concepts(model, prompts(2), normalizer, options, sample_ids=[1, 2]), "sample ids"),
        (lambda: generate_concepts(model, prompts(2), normalizer, options, stop_vector=stop[:5]), "stop_vector"),
        (lambda: generate_concepts(model, prompts(2), normalizer, options, stop_vector=0 * stop), "stop concept"),
        (lambda: predict_teacher_forced(model, bad[1].unsqueeze(0), None, options), r"x\[0, 2\]: a concept is not"),
        (lambda: predict_teacher_forced(model, bad[0], None, options), "x: wrong shape"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(ConfigError, match="min_concepts 3 is more than max_concepts 2"):
        GenerationOptions.from_dict({"min_concepts": 3, "max_concepts": 2})
    if not isinstance(model, MSEConceptModel):
        with pytest.raises(ConfigError, match="num_inference_steps"):
            generate_concepts(model, prompts(2), normalizer, GenerationOptions(num_inference_steps=21))


def test_learned_positions_must_have_room(normalizer):
    model = MSEConceptModel(MSEConfig.toy(**SMALL, max_positions=8, num_layers=1))
    fits = generate_concepts(model, prompts(5), normalizer, GenerationOptions(**FAST, max_concepts=4))
    assert len(fits[0].concepts) == 4  # the last one is never read, so it needs no position
    with pytest.raises(DataError, match=r"at most 8 concepts.*5 of the prompt and 5 to come"):
        generate_concepts(model, prompts(5), normalizer, GenerationOptions(**FAST, max_concepts=5))


def test_other_modules_are_refused(normalizer):
    other = torch.nn.Linear(6, 6)
    other.config = SimpleNamespace(type="linear", concept_dim=6, positions="none")
    with pytest.raises(ConfigError, match="cannot generate concepts"):
        generate_concepts(other, prompts(2), normalizer)


def test_options_load_without_torch():
    code = "import sys; import largeconcept.generate.options, largeconcept.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""BrierLM of the next sentence: planted predictors, what models are asked for, and what is left out."""

import json

import pytest
import torch
from letter_tokenizer import LetterTokenizer

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.eval.harness import evaluate
from largeconcept.eval.predictors import TokenModelPredictor
from largeconcept.eval.tasks import Context, LeftOut
from largeconcept.eval.tasks import next_sentence as task_module
from largeconcept.models import TokenLM, TokenLMConfig
from largeconcept.types import Document

METRICS = ["brier_lm", "brier_1", "brier_2", "brier_3", "brier_4"]


def text(number, length=6):
    return [f"w{number} x{i} y{number + i} z q." for i in range(length)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next_sentence")
    rows = [{"id": f"d{i}", "lang": "eng_Latn", "sentences": text(i)} for i in range(5)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_concepts(folder / "test.jsonl", folder / "data", codec=ToyCodec(16), split="test")
    return folder / "data"


@pytest.fixture(scope="module")
def codec():
    return ToyCodec(16, [sentence for i in range(5) for sentence in text(i)])


def token_model(name="token_lm"):
    torch.manual_seed(0)
    sizes = {"vocab_size": LetterTokenizer.vocab_size, "num_layers": 1, "model_dim": 16, "num_heads": 2}
    return TokenModelPredictor(TokenLM(TokenLMConfig(**sizes)).eval(), LetterTokenizer(), name=name)


def run(pipe, data, predictors=("none",), **settings):
    found = evaluate(
        pipe,
        "next_sentence",
        data=data,
        predictors=list(predictors),
        judge="none",
        metrics="none",
        settings={"next_sentence": settings},
    )
    return found.tasks["next_sentence"]


def test_planted_predictors_get_what_they_deserve(make_pipeline, codec, data, monkeypatch):
    said = {
        "right": lambda document, seed: document[1:],
        "sure_and_wrong": lambda document, seed: ["never said by anyone"] * (len(document) - 1),
        "unsure": lambda document, seed: [f"draw {seed} of {i} things" for i in range(len(document) - 1)],
        "half": lambda document, seed: document[1:] if seed % 2 else ["w x y z"] * (len(document) - 1),
    }
    planted = [token_model(name) for name in said]
    who = {id(one.model): said[one.name] for one in planted}

    def predict(model, tokenizer, documents, options, *, sample_ids):
        assert options.temperature == 1 and sample_ids == list(range(5))
        return [list(who[id(model)](document, options.seed)) for document in documents]

    monkeypatch.setattr("largeconcept.generate.token_lm.predict_next_sentences", predict)
    task = run(make_pipeline("mse", codec=codec), data, planted, num_samples=2)
    assert list(task.metrics) == METRICS and task.n == 5 and task.settings["num_places"] == 25
    values = {name: [task.scores[name][metric].value for metric in METRICS] for name in said}
    assert values["right"] == pytest.approx([100, 1, 1, 1, 1])
    assert values["sure_and_wrong"] == [0, -1, -1, -1, -1]
    assert values["half"] == pytest.approx([100, 1, 1, 1, 1])  # one of two draws is right, and they differ
    assert values["unsure"] == [0, -1, 0, 0, 0]  # the first word is always the same, the second never
    notes = {line.partition(":")[0]: line for line in task.extra["notes"]}
    assert set(notes) == {"model", "copy_last", *said}
    assert notes["right"].startswith("right: Brier-1 1 [1, 1], Brier-2 1 [1, 1]") and "not above" not in notes["right"]
    assert notes["unsure"].endswith("not above 0: Brier-1, Brier-2, Brier-3, Brier-4")
    right = task.differences["right"]["brier_1"]
    assert right.value < 0 and right.p <= 2 / 2**5
    # Sentences of a text differ in their second word.
    assert task.scores["copy_last"]["brier_1"].value == 1 and task.scores["copy_last"]["brier_2"].value == -1


def test_a_regression_says_the_same_twice_and_a_sampler_does_not(make_pipeline, codec, data, monkeypatch):
    asked = []
    original = task_module.predict_teacher_forced

    def predict(model, x, lengths, options, *, sample_ids):
        asked.append((options, original(model, x, lengths, options, sample_ids=sample_ids)))
        return asked[-1][1]

    monkeypatch.setattr(task_module, "predict_teacher_forced", predict)
    task = run(make_pipeline("mse", codec=codec), data, num_samples=2)
    (one, first), (two, second) = asked
    assert torch.equal(first, second) and one.seed != two.seed and one.temperature == 0
    assert all(abs(task.scores["model"][metric].value) <= 1 for metric in METRICS[1:])

    asked.clear()
    pipe = make_pipeline("two_tower", codec=codec)
    run(pipe, data)
    assert len(asked) == 4 and len({options.seed for options, _ in asked}) == 4
    (one, first), (_, second) = asked[:2]
    assert not torch.equal(first, second)
    assert (one.guidance_scale, one.initial_noise_scale, one.num_inference_steps) == (1, 1, 40)
    asked.clear()
    run(pipe, data, learnt=False)
    kept, _ = asked[0]
    assert kept.guidance_scale == pipe.options.guidance_scale
    assert kept.initial_noise_scale == pipe.options.initial_noise_scale
    assert kept.num_inference_steps == pipe.options.num_inference_steps


def test_a_token_model_is_drawn_from(make_pipeline, codec, data):
    task = run(make_pipeline("mse", codec=codec), data, [token_model()], length=4)
    assert task.settings["num_places"] == 15
    again = run(make_pipeline("mse", codec=codec), data, [token_model()], length=4)
    assert task.scores["token_lm"] == again.scores["token_lm"]


def test_too_little_text_is_left_out(make_pipeline, codec):
    context = Context(make_pipeline("mse", codec=codec), documents=[Document("a", sentences=("One.", "Two."))])
    with pytest.raises(LeftOut, match="fewer than two"):
        task_module.next_sentence(context)

"""Sweeps over what is written: the figures of an evaluation, everything encoded and read once, resumable."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest_helpers import SENTENCES

from largeconcept.data.build import build_concepts
from largeconcept.errors import ConfigError
from largeconcept.eval.harness import evaluate
from largeconcept.eval.records import MODEL
from largeconcept.eval.sweep_results import SweepResult
from largeconcept.eval.sweep_tasks import Remembering, check_task_metric, default_task, open_context, sweep_task
from largeconcept.generate.contexts import ContextStore
from largeconcept.generate.loop import generate_concepts
from largeconcept.generate.options import GenerationOptions

GRID = {"guidance_scale": [1.0, 3.0], "num_inference_steps": [2, 4]}
SHORT = {"continuation": {"prompt": 3, "length": 2}}


@pytest.fixture(scope="module")
def place(make_pipeline, tmp_path_factory):
    """A saved pipeline and a dataset with a validation split."""
    folder = tmp_path_factory.mktemp("sweep_tasks")
    pipeline = make_pipeline()
    lines = [
        {"id": f"d{i}", "lang": "eng_Latn", "sentences": [*SENTENCES[i % 4 :], *SENTENCES[: i % 4]][: 5 + i % 4]}
        for i in range(8)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    build_concepts(str(folder / "texts.jsonl"), folder / "data", codec=pipeline.codec, split="validation")
    pipeline.save_pretrained(folder / "pipeline")
    return folder


def context(place, metric="rouge_l", **words):
    return open_context(place / "pipeline", metric, data=place / "data", settings=SHORT, limit=5, device="cpu", **words)


def test_each_setting_has_the_figures_of_an_evaluation(place):
    found = sweep_task(context(place), "continuation", GRID, metric="rouge_l", num_bootstrap=1000)
    assert len(found.results) == 4 and found.task == "continuation" and found.num_documents == 5
    assert found.default.options == {"guidance_scale": 3.0, "num_inference_steps": 4}
    values = [one.scores["rouge_l"].value for one in found.results]
    assert values == sorted(values, reverse=True)
    for one in found.results:
        result = evaluate(
            str(place / "pipeline"), "continuation", data=place / "data", split="validation", predictors="none",
            settings=SHORT, limit=5, options=one.options, metrics="none", device="cpu",
        )  # fmt: skip
        alone = result.tasks["continuation"].scores[MODEL]
        assert set(alone) <= set(one.scores)
        for metric in ("rouge_l", "chrf", "coherence", "distinct_2"):
            assert one.scores[metric].value == pytest.approx(alone[metric].value)
        assert (one.scores["rouge_l"].low, one.scores["rouge_l"].n) == (
            pytest.approx(alone["rouge_l"].low),
            alone["rouge_l"].n,
        )
        if one.from_default is not None:
            gap = one.scores["rouge_l"].value - found.default.scores["rouge_l"].value
            assert one.from_default.value == pytest.approx(gap) and one.p_holm >= one.from_default.p


def test_sentences_are_encoded_and_prompts_read_once(place, monkeypatch):
    opened = context(place)
    encoded, stores = [], []
    codec = opened.pipeline.codec
    real = codec.encode
    monkeypatch.setattr(codec, "encode", lambda texts, *more, **words: encoded.extend(texts) or real(texts, *more))

    class Spy(ContextStore):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            stores.append(self)

    monkeypatch.setattr("largeconcept.eval.sweep_tasks.ContextStore", Spy)
    found = sweep_task(opened, "continuation", GRID, metric="chrf", num_bootstrap=10)
    assert len(encoded) == len(set(encoded)) > 5
    assert stores[0].num_read == 1 and stores[0].num_bytes > 0
    again = sweep_task(opened, "continuation", GRID, metric="chrf", num_bootstrap=10, context_bytes=0)
    assert stores[1].num_read == 4
    assert [one.scores["chrf"] for one in again.results] == [one.scores["chrf"] for one in found.results]
    assert opened.pipeline.contexts is None and opened.pipeline.codec is codec  # nothing of it stays behind


@pytest.mark.parametrize("family", ["mse", "two_tower"])
def test_what_was_read_is_not_changed_by_writing(make_pipeline, family):
    pipe = make_pipeline(family)
    prompts = [pipe.codec.encode(SENTENCES[:n]) for n in (2, 4, 3)]
    options = GenerationOptions(num_inference_steps=2, max_concepts=3, max_batch=2, stop_threshold=None)
    store = ContextStore(pipe.model)

    def write(contexts):
        return [
            one.concepts for one in generate_concepts(pipe.model, prompts, pipe.normalizer, options, contexts=contexts)
        ]

    alone, first = write(None), write(store)
    read = store.num_read
    for left, middle, right in zip(alone, first, write(store), strict=True):
        assert torch.equal(left, middle) and torch.equal(left, right)
    assert store.num_read == read > 0
    with pytest.raises(ConfigError, match="another model"):
        generate_concepts(make_pipeline(family).model, prompts, pipe.normalizer, options, contexts=store)


def test_a_sweep_goes_on_where_it_was(place, tmp_path, monkeypatch):
    from largeconcept.eval.predictors import ConceptModelPredictor

    written = []
    real = ConceptModelPredictor.generate
    monkeypatch.setattr(
        ConceptModelPredictor, "generate", lambda self, items, *more: written.append(1) or real(self, items, *more)
    )
    first = sweep_task(context(place), "continuation", GRID, metric="rouge_l", num_bootstrap=10, folder=tmp_path)
    assert len(written) == 4 and not (tmp_path / "raw").exists()
    wider = {**GRID, "num_inference_steps": [2, 3, 4]}
    found = sweep_task(context(place), "continuation", wider, metric="rouge_l", num_bootstrap=10, folder=tmp_path)
    assert len(written) == 6
    known = {one.name: one for one in found.results}
    for one in first.results:
        assert known[one.name].scores == one.scores
        # What was not written again costs what it cost.
        assert known[one.name].seconds == pytest.approx(one.seconds, abs=1e-3) and one.seconds > 0
    again = SweepResult.load(tmp_path)
    assert again.to_dict() == json.loads(json.dumps(found.to_dict())) and again.task == "continuation"


def test_the_nearest_to_human_text(place):
    grid = {"initial_noise_scale": [0.0, 1.0, 9.0]}
    found = sweep_task(
        context(place, "coherence"), "continuation", grid, metric="coherence", better="human", num_bootstrap=10
    )
    human = evaluate(
        str(place / "pipeline"), "continuation", data=place / "data", split="validation", predictors="reference",
        settings=SHORT, limit=5, metrics="none", device="cpu",
    ).tasks["continuation"].scores["reference"]["coherence"].value  # fmt: skip
    assert found.target == pytest.approx(human)
    gaps = [abs(one.scores["coherence"].value - human) for one in found.results]
    assert gaps == sorted(gaps) and gaps[0] < gaps[-1]


def test_next_sentences_and_next_concepts(place):
    settings = {"next_sentence": {"length": 4, "max_tokens": 6, "learnt": False}, "next_concept": {"max_length": 16}}
    opened = context(place, "brier_1")
    opened.settings = settings
    found = sweep_task(opened, "next_sentence", {"guidance_scale": [1.0, 3.0]}, metric="brier_1", num_bootstrap=20)
    assert len(found.results) == 2 and all(one.scores["brier_lm"].value is not None for one in found.results)
    assert found.results[0].difference is None and found.results[1].difference is not None
    concepts = sweep_task(opened, "next_concept", {"guidance_scale": [1.0, 3.0]}, metric="l2", num_bootstrap=20)
    assert concepts.task == "next_concept" and concepts.direction == "lower"


def test_options_of_whole_texts_count_here(place):
    found = sweep_task(context(place, "length_ratio"), "continuation", {"repetition_threshold": [None, -1.0]},
                       metric="length_ratio", better="higher", num_bootstrap=10)  # fmt: skip
    assert found.best.options == {"repetition_threshold": None}
    assert found.results[1].scores["length_ratio"].value < found.results[0].scores["length_ratio"].value


def test_a_metric_of_all_texts_has_no_interval(place):
    found = sweep_task(context(place, "distinct_2"), "continuation", GRID, metric="distinct_2", num_bootstrap=10)
    values = [one.scores["distinct_2"].value for one in found.results]
    assert values == sorted(values, reverse=True)
    assert all(one.difference is None and one.p_holm is None for one in found.results)
    assert found.results[0].ties and not found.results[1].ties


@pytest.mark.parametrize(
    ("task", "metric", "better", "words"),
    [
        ("continuation", "coherence", None, "say which: higher, lower or human"),
        ("continuation", "rouge_l", "lower", "higher is better"),
        ("continuation", "rouge", None, "did you mean rouge"),
        ("continuation", "l2", None, "was not measured"),
        ("continuation", "perplexity", "human", "needs a judge"),
        ("continuation", "cola", None, "was not opened"),
        ("continue", "rouge_l", None, "did you mean continuation"),
        ("codec_noise", "auto_bleu", None, "no option of generation changes it"),
        ("summarize", "rouge_l", None, "cannot be done"),
        ("continuation", "rouge_l", "more", "expected higher, lower or human"),
    ],
)
def test_mistakes(place, task, metric, better, words):
    with pytest.raises(ConfigError, match=words):
        sweep_task(context(place), task, {"guidance_scale": [1.0]}, metric=metric, better=better)


def test_where_a_metric_is_looked_for():
    assert [default_task(one) for one in ("l2", "brier_lm", "chrf")] == [
        "next_concept",
        "next_sentence",
        "continuation",
    ]
    given = SimpleNamespace(judge=object(), metrics={"cola": None})
    assert check_task_metric("continuation", "perplexity", "human", given).better == "human"
    assert check_task_metric("continuation", "cola", None, given).better == "higher"


def test_a_codec_that_remembers():
    calls = []

    def encode(texts, lang=None, **more):
        calls.append((list(texts), lang))
        return torch.tensor([[float(len(text)), float(lang is not None)] for text in texts]).reshape(-1, 2)

    codec = Remembering(SimpleNamespace(encode=encode, dim=2), most=3)
    assert codec.dim == 2
    assert codec.encode(["a", "bb", "a"]).tolist() == [[1, 0], [2, 0], [1, 0]]
    assert codec.encode(["a", "bb"], ["eng_Latn", "eng_Latn"]).tolist() == [[1, 1], [2, 1]]
    assert codec.encode(["bb"], "eng_Latn").tolist() == [[2, 1]]
    assert calls == [(["a", "bb"], None), (["a", "bb"], ["eng_Latn", "eng_Latn"]), (["bb"], ["eng_Latn"])]
    assert codec.encode([]).shape == (0, 2)

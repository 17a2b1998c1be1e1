"""Sweeps over settings of generation: right figures, read once, resumable, written atomically."""

import json
import math
from itertools import product

import pytest
import torch
from variants import SMALL, concepts, small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.eval.next_concept import evaluate_next_concept
from largeconcept.eval.records import Difference, Score
from largeconcept.eval.sweep import check_metric, combinations, sweep, write_best
from largeconcept.eval.sweep_results import SettingResult, SweepResult
from largeconcept.generate.contexts import ContextStore
from largeconcept.generate.options import GenerationOptions

DOCUMENTS = [concepts(1, 3 + i % 5, seed=100 + i)[0] for i in range(12)]
NORMALIZER = ConceptNormalizer.fit([torch.cat(DOCUMENTS)], method="standard")
GRID = {"guidance_scale": [1.0, 3.0], "num_inference_steps": [2, 4]}


BASE = GenerationOptions(num_inference_steps=2)


def run(name="two_tower", grid=GRID, options=BASE, **words):
    return sweep(small_model(name), DOCUMENTS, NORMALIZER, grid, num_bootstrap=200, options=options, **words)


def test_every_combination_has_the_figures_of_a_single_evaluation():
    model, base = small_model("two_tower"), GenerationOptions(guidance_rescale=0.3, seed=5)
    found = sweep(model, DOCUMENTS, NORMALIZER, GRID, options=base, seed=2, num_bootstrap=200)
    assert sorted(
        (one.options["guidance_scale"], one.options["num_inference_steps"]) for one in found.results
    ) == sorted(product(*GRID.values()))
    for one in found.results:
        options = GenerationOptions.from_dict({**base.to_dict(), **one.options})
        alone = evaluate_next_concept(model, DOCUMENTS, NORMALIZER, options=options, seed=2, num_bootstrap=200)
        expected = alone.scores["model"]["contrastive_accuracy"]
        score = one.scores["contrastive_accuracy"]
        assert (score.value, score.low, score.high) == pytest.approx((expected.mean, expected.low, expected.high))
        assert score.n == found.num_predictions == sum(len(d) - 1 for d in DOCUMENTS)
    values = [one.scores["contrastive_accuracy"].value for one in found.results]
    assert values == sorted(values, reverse=True) and len(set(values)) > 1


def test_lower_is_better_where_it_is():
    found = run(metric="l2")
    values = [one.scores["l2"].value for one in found.results]
    assert values == sorted(values) and found.direction == "lower"


def test_differences_are_paired_and_tell_ties():
    found = run("mse", {"temperature": [0.0, 1e-5, 30.0]}, metric="l2")
    best, near, far = found.results
    assert far.options == {"temperature": 30.0}
    assert best.ties and not far.ties
    assert best.difference is None and far.difference is not None and near.difference is not None
    gap = (best.scores["l2"].value or 0) - (far.scores["l2"].value or 0)
    assert far.difference.value == pytest.approx(gap) and far.difference.high < 0 and far.difference.p < 0.01
    # The same documents are drawn for both: far closer than intervals of their own would allow.
    own = best.scores["l2"]
    assert near.difference.high - near.difference.low < (own.high - own.low) / 100
    assert near.ties == (near.difference.low <= 0 <= near.difference.high)


def test_documents_are_read_once(monkeypatch):
    stores = []

    class Spy(ContextStore):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            stores.append(self)

    monkeypatch.setattr("largeconcept.generate.contexts.ContextStore", Spy)
    found = run()
    assert len(found.results) == 4 and stores[-1].num_read == 1 and stores[-1].seconds > 0
    again = run(context_bytes=0)
    assert stores[-1].num_read == 4
    assert [one.scores for one in again.results] == [one.scores for one in found.results]


def test_every_setting_is_tested_against_the_one_before():
    base = GenerationOptions(guidance_scale=3.0, num_inference_steps=4)
    found = run(metric="l2", options=base)
    assert found.default.options == {"guidance_scale": 3.0, "num_inference_steps": 4}
    assert any(one is found.default for one in found.results)
    others = [one for one in found.results if one is not found.default]
    for one in others:
        gap = one.scores["l2"].value - found.default.scores["l2"].value
        assert one.from_default.value == pytest.approx(gap)
    assert found.default.from_default is None and found.default.p_holm is None
    by_p = sorted(others, key=lambda one: one.from_default.p)
    assert by_p[0].p_holm == pytest.approx(min(1, 3 * by_p[0].from_default.p))
    assert by_p[-1].p_holm >= by_p[-1].from_default.p
    assert [one.p_holm for one in by_p] == sorted(one.p_holm for one in by_p)


def test_a_setting_before_outside_the_grid_is_measured_too():
    found = run("mse", {"temperature": [0.0, 30.0]}, options=GenerationOptions(temperature=5.0), metric="l2")
    assert found.default.options == {"temperature": 5.0} and len(found.results) == 2
    assert [one.options["temperature"] for one in found.results] == [0.0, 30.0]
    near, far = found.results
    assert near.from_default.value < 0 < far.from_default.value and found.beats_default()
    alone = evaluate_next_concept(
        small_model("mse"), DOCUMENTS, NORMALIZER, options=GenerationOptions(temperature=5.0), num_bootstrap=10
    )
    assert found.default.scores["l2"].value == pytest.approx(alone.scores["model"]["l2"].mean)
    # More steps than the model has: there was no setting to compare with.
    bare = run(grid={"num_inference_steps": [2, 4]}, options=GenerationOptions(num_inference_steps=400))
    assert bare.default is None and bare.beats_default() is None
    assert all(one.from_default is None for one in bare.results)


def test_the_nearest_to_human_text():
    found = run("mse", {"temperature": [0.0, 1.0, 30.0]}, metric="paraphrase", better="human")
    values = [abs(one.scores["paraphrase"].value - 1) for one in found.results]
    assert values == sorted(values) and found.direction == "human" and found.target == 1
    assert found.results[1].difference.value == pytest.approx(values[0] - values[1])
    ordered = run("mse", {"temperature": [0.0, 30.0]}, metric="paraphrase", better="lower").results
    assert ordered[0].scores["paraphrase"].value < ordered[1].scores["paraphrase"].value
    for metric, better, words in (("l2", "human", "no human value"), ("l2", "higher", "lower is better")):
        with pytest.raises(ConfigError, match=words):
            run(metric=metric, better=better)


def test_an_option_without_effect_is_told():
    assert run("mse", {"temperature": [0.0, 1.0], "guidance_scale": [1.0, 2.0]}).without_effect() == ["guidance_scale"]
    assert run("mse", {"guidance_scale": [1.0, 2.0]}).results[1].ties


@pytest.mark.parametrize("name", [name for name in SMALL if name != "token_lm"])
def test_every_family(name):
    found = run(name, {"initial_noise_scale": [0.5, 1.0]}, options=GenerationOptions(num_inference_steps=2))
    assert all(math.isfinite(one.scores["contrastive_accuracy"].value) for one in found.results)


def test_a_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = run()
    calls = []
    import largeconcept.eval.next_concept as module

    real = module.score_next_concept

    def counted(*words, **more):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*words, **more)

    monkeypatch.setattr(module, "score_next_concept", counted)
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path)
    assert not (tmp_path / "sweep.json").exists()
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt):  # the third setting is the first that is not done
        run(folder=tmp_path)
    calls[:] = [1, 1, 1]
    found = run(folder=tmp_path)
    assert len(calls) == 5
    assert [one.scores for one in found.results] == [one.scores for one in whole.results]
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt):  # other documents, other figures
        run(folder=tmp_path, limit=10)
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, options=GenerationOptions(seed=1, num_inference_steps=2))
    run(folder=tmp_path)


def test_a_record_can_be_read_again(tmp_path):
    found = run(folder=tmp_path, about={"split": "validation"})
    again = SweepResult.load(tmp_path)
    assert again.to_dict() == json.loads(json.dumps(found.to_dict()))
    assert again.best.options == found.best.options and again.settings["split"] == "validation"
    for damage in ('{"format_version": 1}', "[]", '{"format_version": 2, "results": []}'):
        (tmp_path / "sweep.json").write_text(damage)
        with pytest.raises(CheckpointError, match=r"sweep\.json"):
            SweepResult.load(tmp_path)


def test_the_quickest_of_ties():
    def setting(steps, value, seconds, ties):
        score = {"l2": Score(value, value - 1, value + 1)}
        return SettingResult({"num_inference_steps": steps}, score, Difference(0.1), ties, seconds)

    results = [setting(40, 1.0, 9.0, True), setting(10, 1.1, 2.0, True), setting(3, 5.0, 0.5, False)]
    found = SweepResult({"num_inference_steps": [3, 10, 40]}, "l2", "lower", results)
    assert found.best is results[0] and found.quickest is results[1]
    assert found.at_an_end() == ["num_inference_steps"]
    results[0].options["num_inference_steps"] = 1
    assert SweepResult({"num_inference_steps": [1, 10, 40]}, "l2", "lower", results).at_an_end() == []  # none is less
    results[0].options["num_inference_steps"] = 40
    assert SweepResult({"num_inference_steps": [3, 40, 80]}, "l2", "lower", results).at_an_end() == []


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "empty grid"),
        ({"guidance": [1]}, "did you mean guidance_scale"),
        ({"guidance_scale": []}, "no value"),
        ({"guidance_scale": [1, 1]}, "a value twice"),
        ({"guidance_scale": ["much"]}, "guidance_scale"),
        ({"num_inference_steps": [0]}, "num_inference_steps"),
        ({"max_concepts": [1, 2]}, "prediction of a single concept"),
        ({"seed": [1, 2]}, "luck"),
        ({"guidance_scale": range(200), "temperature": range(200)}, "too many combinations"),
    ],
)
def test_mistakes_in_a_grid(grid, words):
    with pytest.raises(ConfigError, match=words):
        run(grid=grid)


def test_other_mistakes(tmp_path):
    for metric in ("paraphrase", "mutual_information", "accuracy", "round_trip_l2"):
        with pytest.raises(ConfigError, match="metric"):
            run(metric=metric)
    for metric in ("rouge_l", "brier_lm"):
        with pytest.raises(ConfigError, match="not a metric of next concepts"):
            run(metric=metric)
    assert check_metric("round_trip_l2", True).better == "lower"
    assert check_metric("mutual_information", True, judge=True).better == "higher"
    with pytest.raises(DataError, match="too few documents"):
        run(limit=1)
    with pytest.raises(ConfigError, match="steps"):
        run(grid={"num_inference_steps": [4, 400]})  # more than the schedule has
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write there"):
        run(folder=tmp_path / "file" / "sweep")


def test_combinations_keep_the_other_options():
    base = GenerationOptions(seed=9, max_concepts=3)
    made = combinations({"guidance_scale": [1, 2.5]}, base)
    assert [values for values, _ in made] == [{"guidance_scale": 1}, {"guidance_scale": 2.5}]
    assert [o.guidance_scale for _, o in made] == [1.0, 2.5]
    assert all(o.seed == 9 and o.max_concepts == 3 for _, o in made)


def test_the_best_becomes_the_default(make_pipeline, tmp_path):
    from largeconcept.generate.pipeline import ConceptPipeline
    from largeconcept.hub import read_record

    folder = make_pipeline(max_length=12).save_pretrained(tmp_path / "pipeline")
    before = json.loads((folder / "pipeline.json").read_text())
    write_best(folder, {"guidance_scale": 1.5, "num_inference_steps": 7})
    after = json.loads((folder / "pipeline.json").read_text())
    assert after.pop("generation") == {**before.pop("generation"), "guidance_scale": 1.5, "num_inference_steps": 7}
    assert after == before and sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []
    options = ConceptPipeline.from_pretrained(folder, device="cpu").options
    assert options.guidance_scale == 1.5 and options.num_inference_steps == 7 and options.max_concepts == 3
    with pytest.raises(ConfigError, match="guidance"):
        write_best(folder, {"guidance": 1.0})
    assert read_record(folder).generation["guidance_scale"] == 1.5
    with pytest.raises(CheckpointError, match="not a saved pipeline"):
        write_best(tmp_path, {"guidance_scale": 1.0})

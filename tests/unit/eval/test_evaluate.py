"""Tasks × predictors: planted predictors get the scores they deserve, runs are resumed, mistakes are told in a line."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from letter_tokenizer import LetterTokenizer

import largeconcept
from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError, DataError
from largeconcept.eval.harness import _parts, evaluate, open_predictors, read_texts, token_model_beside
from largeconcept.eval.metrics.likelihood import TokenScorer
from largeconcept.eval.predictors import TokenModelPredictor, written
from largeconcept.eval.records import (
    MODEL,
    Difference,
    EvaluationResult,
    Score,
    TaskResult,
    corrected_differences,
    read_raw,
)
from largeconcept.eval.tasks import TASKS, Context, choose_tasks
from largeconcept.generate.token_lm import TokenOptions
from largeconcept.hub import PromptRecord
from largeconcept.models import TokenLM, TokenLMConfig
from largeconcept.types import Document

WORDS = (
    "red",
    "ball",
    "rolls",
    "over",
    "the",
    "old",
    "bridge",
    "and",
    "a",
    "small",
    "dog",
    "runs",
    "home",
    "now",
    "so",
)


def sentence(number: int) -> str:
    """A sentence of its own for every number, of words that others have too."""
    return " ".join(WORDS[(number * 7 + 3 * i * (number % 5 + 1)) % len(WORDS)] for i in range(6)) + f" {number}."


def texts(count=12, length=8, start=0):
    rows = []
    for index in range(count):
        first = start + index * (length + 2)
        rows.append(
            {
                "id": f"d{index}",
                "lang": "eng_Latn",
                "sentences": [sentence(first + i) for i in range(length)],
                "summary": sentence(first + length) + " " + sentence(first + length + 1),
            }
        )
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, a dataset of two splits, and all sentences in a codec that can write them."""
    folder = tmp_path_factory.mktemp("eval")
    for split, start in (("train", 1000), ("test", 0)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(start=start)))
        build_concepts(folder / f"{split}.jsonl", folder / "data", codec=ToyCodec(16), split=split)
    return folder


@pytest.fixture(scope="module")
def codec():
    return ToyCodec(16, [sentence(i) for start in (0, 1000) for i in range(start, start + 130)])


@pytest.fixture(scope="module")
def pipe(make_pipeline, codec):
    return make_pipeline("mse", codec=codec)


class Oracle:
    """Writes what the author wrote."""

    name, whole = "oracle", False

    def describe(self):
        return {"kind": "oracle"}

    def cannot(self, mode, items):
        return None

    def generate(self, items, mode, seed):
        return [written(item.reference, item.target_lang) for item in items]


def test_planted_predictors_get_the_scores_they_deserve(pipe, place):
    given = ["copy_last", "shuffled", "constant=red red red red red red red red.", Oracle(), "nearest_train"]
    task = evaluate(pipe, "continuation", data=place / "data", predictors=given).tasks["continuation"]
    scores = task.scores
    assert list(scores) == ["model", "copy_last", "shuffled", "constant", "nearest_train", "oracle"]
    assert task.n == 12

    oracle = scores["oracle"]
    for metric in ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "chrf"):
        assert oracle[metric].value == oracle[metric].low == pytest.approx(100)
    assert oracle["length_ratio"].value == 1
    assert oracle["similarity"].value == pytest.approx(1)
    assert oracle["repetition_4"].value < 0.2
    if "divergence" in oracle:
        assert oracle["divergence"].value == pytest.approx(1, abs=1e-6)

    assert scores["constant"]["rouge_2"].value == 0
    assert scores["constant"]["seq_rep_4"].value == pytest.approx(4 / 5)  # one run of four words, five times
    assert scores["constant"]["distinct_1"].value == pytest.approx(1 / (12 * 8))

    # Four times the same sentence of seven words: 25 runs of four words, of which 7 are new.
    assert scores["copy_last"]["seq_rep_4"].value == pytest.approx(1 - 7 / 25, abs=0.02)
    assert scores["copy_last"]["overlap_3"].value > 0.1
    assert scores["copy_last"]["coherence"].value == pytest.approx(1)
    assert scores["oracle"]["overlap_3"].value < scores["copy_last"]["overlap_3"].value

    # The control is human text about something else: fluent, and far below the oracle in content.
    assert scores["shuffled"]["length_ratio"].value == pytest.approx(1, abs=0.1)
    assert scores["shuffled"]["repetition_4"].value < 0.2
    assert scores["shuffled"]["rouge_2"].value < 40 and scores["shuffled"]["similarity"].value < 0.9
    apart = task.differences["oracle"]["rouge_2"]
    assert apart.high < 0 and apart.p < 0.05
    assert "model" not in task.differences


def test_names_are_parted_at_commas_and_texts_are_not():
    assert _parts("default, lcm=a/b,hf=gpt2") == ["default", "lcm=a/b", "hf=gpt2"]
    assert _parts("constant=Yes, no, well.,lead_2,shufled") == ["constant=Yes, no, well.", "lead_2", "shufled"]


def test_human_text_stands_beside_the_models(pipe, place):
    given = ["reference", Oracle()]
    task = evaluate(pipe, "continuation", data=place / "data", predictors=given).tasks["continuation"]
    assert task.scores["reference"] == task.scores["oracle"]


def test_the_shuffled_control_is_never_its_own_reference(pipe, place, tmp_path):
    evaluate(pipe, "continuation", data=place / "data", predictors="shuffled", out=tmp_path)
    lines = read_raw(tmp_path / "raw" / "continuation" / "shuffled.jsonl")
    references = {tuple(line["reference"]): line["id"] for line in lines}
    assert len(lines) == 12
    for line in lines:
        assert references[tuple(line["sentences"])] != line["id"]
    assert len({tuple(line["sentences"]) for line in lines}) == 12


def test_a_look_up_in_the_training_data_finds_what_was_memorised(pipe, place):
    # The held-out texts are the training texts: the nearest sentence is the very one; the reference follows it.
    settings = {"split": "train", "train_split": "train"}
    task = evaluate(pipe, "continuation", data=place / "data", predictors="none", **settings).tasks["continuation"]
    assert list(task.scores) == ["model"]
    from largeconcept.data.reader import ConceptDataset
    from largeconcept.eval.text_baselines import NearestTrain

    train = ConceptDataset(place / "data", "train")
    given = [NearestTrain(train, pipe.codec)]
    task = evaluate(pipe, "continuation", data=place / "data", predictors=given, **settings).tasks["continuation"]
    assert task.scores["nearest_train"]["rouge_2"].value == pytest.approx(100)


def tuned(make_pipeline, codec, **more):
    prompt = PromptRecord(suffix=("In short.",))
    return make_pipeline("mse", codec=codec, prompts={"summarize": prompt, "expand": prompt}, **more)


def test_summaries_expansion_and_other_languages(make_pipeline, codec, place, tmp_path):
    rows = [*texts(4), *[{**row, "lang": "fra_Latn"} for row in texts(4, start=60)]]
    file = tmp_path / "both.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pipe = tuned(make_pipeline, codec)
    given = ["lead_1", "lead_3", "shuffled", "copy_last", Oracle()]
    result = evaluate(
        pipe,
        ["summ*", "expand"],
        documents=file,
        predictors=given,
        settings={"expand": {"length": 3}, "summarize": {"length": 2}},
        out=tmp_path / "out",
    )
    if not {"eng_Latn", "fra_Latn"} <= set(codec.languages):
        assert set(result.tasks) == {"summarize", "expand"}
    summary = result.tasks["summarize"]
    assert summary.scores["oracle"]["rouge_lsum"].value == pytest.approx(100)
    copied = read_raw(tmp_path / "out" / "raw" / "summarize" / "copy_last.jsonl")
    assert all(line["sentences"] == line["source"][-1:] for line in copied)
    lead = read_raw(tmp_path / "out" / "raw" / "summarize" / "lead_1.jsonl")
    assert all(line["sentences"] == line["source"][:1] for line in lead)
    model = read_raw(tmp_path / "out" / "raw" / "summarize" / "model.jsonl")
    assert all(len(line["sentences"]) <= 2 and len(line["source"]) == 8 for line in model)
    expanded = read_raw(tmp_path / "out" / "raw" / "expand" / "model.jsonl")
    assert all(len(line["source"]) == 2 and len(line["reference"]) == 8 for line in expanded)
    if "summarize_into" in result.tasks:
        raw = read_raw(tmp_path / "out" / "raw" / "summarize_into" / "oracle.jsonl")
        summaries = {(row["id"], row["lang"]): row["summary"] for row in rows}
        assert raw and all(line["lang"] != line["target_lang"] for line in raw)
        for line in raw:
            assert " ".join(line["sentences"]) == summaries[line["id"], line["target_lang"]]
            assert line["metrics"]["overlap_3"] is None  # another language: nothing to overlap with


def test_models_without_a_prompt_say_why(pipe, place):
    settings = {"summarize": {"zero_shot": False}, "expand": {"zero_shot": False}}
    result = evaluate(pipe, "all", documents=place / "test.jsonl", predictors="none", limit=4, settings=settings)
    assert {"next_concept", "continuation"} <= set(result.tasks)
    assert "not tuned to summarize" in result.left_out["summarize"]
    assert "not tuned to expand" in result.left_out["expand"]
    assert "does not plan" in result.left_out["plan"]
    assert not set(result.tasks) & set(result.left_out)


def test_planning_models_plan(make_pipeline, codec, place):
    from largeconcept.models import PlanningConfig, build_model

    pipe = make_pipeline("mse", codec=codec)
    pipe.model = build_model(PlanningConfig(body=pipe.model.config, plan="first_sentence")).eval()
    pause = codec.encode(["End of paragraph."])[0]
    pipe.model.set_break(pipe.normalizer.normalize(pause[None])[0])
    result = evaluate(pipe, "plan", data=place / "data", predictors="shuffled", limit=4)
    assert result.tasks["plan"].n == 4 and set(result.tasks["plan"].scores) == {"model", "shuffled"}


def token_model(seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 100, "model_dim": 16, "num_heads": 2, "num_layers": 1}
    return TokenModelPredictor(TokenLM(TokenLMConfig(**sizes)), LetterTokenizer(), TokenOptions(max_tokens=8))


def test_a_token_model_continues_and_judges(pipe, place):
    result = evaluate(
        pipe,
        ["continuation", "next_concept"],
        data=place / "data",
        predictors=["copy_last", token_model()],
        limit=4,
    )
    task = result.tasks["continuation"]
    for name in ("model", "copy_last", "token_lm"):
        assert task.scores[name]["entropy"].n == 4
        # The judge is one of them: it would find its own texts likely.
        judged = task.scores[name]["perplexity"]
        assert judged.value is None and not judged.n if name == "token_lm" else judged.value > 1
    assert task.differences["token_lm"]["perplexity"].value is None
    assert task.differences["copy_last"]["perplexity"].value is not None
    said = "perplexity: judged by token_lm; not of token_lm, which is the judge and likes its own texts"
    assert task.extra["notes"] == [said]
    assert task.metrics["rouge_l"] == "higher"
    following = result.tasks["next_concept"]
    assert {"model", "copy_last", "training_mean", "nearest_train", "token_lm"} <= set(following.scores)
    # Where there is a judge mutual information is measured unless it is refused; not of the judge.
    assert "mutual_information" in following.metrics and "mutual_information" in following.scores["truth"]
    assert "mutual_information" not in following.scores["token_lm"]
    assert following.extra["notes"][0].startswith("mutual information: judged by token_lm; not of token_lm")
    assert result.settings["judge"] == {"kind": "token_lm", "name": "token_lm"}


def test_another_judge_judges_all(pipe, place):
    judge = token_model(seed=1)
    own = TokenScorer(judge.model, judge.tokenizer)
    given = {"data": place / "data", "predictors": ["reference", token_model()], "limit": 4}
    task = evaluate(pipe, "continuation", judge=own, **given).tasks["continuation"]
    assert all(task.scores[name]["perplexity"].value > 1 for name in ("model", "reference", "token_lm"))
    assert task.extra["notes"] == ["perplexity: judged by TokenScorer"]
    # A copy of the judge is the judge too.
    same = TokenScorer(copy.deepcopy(given["predictors"][1].model), judge.tokenizer)
    task = evaluate(pipe, "continuation", judge=same, **given).tasks["continuation"]
    assert task.scores["token_lm"]["perplexity"].value is None and task.scores["model"]["perplexity"].value > 1


@pytest.mark.peer
def test_any_causal_model_of_transformers_judges(pipe, place, tiny_gpt):
    given = {"data": place / "data", "judge": f"hf={tiny_gpt}", "limit": 4}
    found = evaluate(pipe, ["continuation"], predictors=["reference", token_model()], **given)
    scores = found.tasks["continuation"].scores
    assert all(scores[name]["perplexity"].value > 1 for name in ("model", "reference", "token_lm"))
    assert found.settings["judge"] == {"kind": "hf", "name": str(tiny_gpt)}
    assert found.tasks["continuation"].extra["notes"] == [f"perplexity: judged by {tiny_gpt.name}"]
    # As a predictor it is opened once more, from the same weights.
    found = evaluate(pipe, ["continuation"], predictors=["reference", f"hf={tiny_gpt}"], **given)
    scores = found.tasks["continuation"].scores
    assert scores[tiny_gpt.name]["perplexity"].value is None and scores["model"]["perplexity"].value > 1


class Counting(Oracle):
    """Counts what it is asked to write."""

    name = "counting"

    def __init__(self, kind="a"):
        self.kind, self.items = kind, 0

    def describe(self):
        return {"kind": self.kind}

    def generate(self, items, mode, seed):
        self.items += len(items)
        return super().generate(items, mode, seed)


def test_outputs_are_used_again_under_the_same_key_only(pipe, place, tmp_path):
    def run(kind="a", **changes):
        counting = Counting(kind)
        settings = {"data": place / "data", "out": tmp_path, "limit": 6, **changes}
        result = evaluate(pipe, "continuation", predictors=[counting], **settings)
        return counting.items, result

    count, first = run()
    assert count == 6
    count, second = run()
    assert count == 0
    assert first.tasks["continuation"].scores == second.tasks["continuation"].scores
    assert first.config_hash == second.config_hash
    keys = {line["key"] for line in read_raw(tmp_path / "raw" / "continuation" / "counting.jsonl")}
    count, more = run(limit=9)
    assert count == 3 and more.config_hash != first.config_hash
    assert keys < {line["key"] for line in read_raw(tmp_path / "raw" / "continuation" / "counting.jsonl")}
    for change in ({"kind": "b"}, {"seed": 1}, {"settings": {"continuation": {"length": 2}}}):
        count, other = run(**change)
        assert count == 6 and other.config_hash != first.config_hash, change
    assert run()[0] == 0  # what was kept for the first settings is still there


def test_the_key_of_the_model_hangs_on_weights_and_options(make_pipeline, codec, place, tmp_path):
    def keys(pipe, **more):
        evaluate(pipe, "continuation", data=place / "data", predictors="none", limit=2, out=tmp_path, **more)
        return [line["key"] for line in read_raw(tmp_path / "raw" / "continuation" / "model.jsonl")]

    pipe = make_pipeline(codec=codec)
    plain = keys(pipe)
    assert keys(pipe) == plain
    assert not set(keys(pipe, options={"guidance_scale": 1.5})) & set(plain)
    with torch.no_grad():
        next(pipe.model.parameters()).add_(1e-3)
    assert not set(keys(pipe)) & set(plain)


def test_torn_and_foreign_lines_are_done_again(pipe, place, tmp_path):
    def run():
        counting = Counting()
        evaluate(pipe, "continuation", data=place / "data", predictors=[counting], limit=6, out=tmp_path)
        return counting.items

    run()
    cache = tmp_path / "cache" / "continuation" / "counting.jsonl"
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) * 2 // 3])  # as a kill in the middle of a line leaves it
    left = cache.read_bytes().count(b"\n")
    assert 0 < left < 6
    assert run() == 6 - left
    assert cache.read_bytes() == whole
    cache.write_bytes(b"\xff\xfe\n[]\n" + whole)
    assert run() == 0


KILLED = """
import os, sys, time
sys.path[:0] = {path!r}
from test_evaluate import Counting
from largeconcept.eval.harness import evaluate
from largeconcept.eval.tasks import writing
from largeconcept.generate.pipeline import ConceptPipeline

class Slow(Counting):
    delay = 0

    def generate(self, items, mode, seed):
        time.sleep(self.delay)
        return super().generate(items, mode, seed)

def run(out, delay=0):
    slow = Slow()
    slow.delay = delay
    evaluate(pipe, "continuation", data={data!r}, predictors=[slow], out=out, options={{"max_concepts": 2}})
    return slow.items

writing.BATCH = 2
pipe = ConceptPipeline.from_pretrained({pipeline!r}, device="cpu")
broken, whole = {broken!r}, {whole!r}
cache = broken + "/cache/continuation/counting.jsonl"
child = os.fork()
if child == 0:
    run(broken, 0.4)
    os._exit(0)
lines = 0
while lines < 4:
    time.sleep(0.02)
    lines = open(cache, "rb").read().count(b"\\n") if os.path.exists(cache) else 0
os.kill(child, 9)
status = os.waitpid(child, 0)[1]
kept = open(cache, "rb").read().count(b"\\n")
print(status, kept, os.path.exists(broken + "/results.json"), run(broken), run(whole), flush=True)
"""


def test_killed_in_the_middle_and_resumed(saved_pipeline, place, tmp_path):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    code = KILLED.format(
        path=[str(Path(__file__).parent), str(Path(__file__).parents[2])],
        pipeline=str(saved_pipeline),
        data=str(place / "data"),
        broken=str(broken),
        whole=str(whole),
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    status, kept, finished, again, all_of_them = done.stdout.split()
    assert status == "9" and 4 <= int(kept) < 12 and finished == "False"
    assert int(again) == 12 - int(kept) and int(all_of_them) == 12
    left, right = (EvaluationResult.load(out) for out in (broken, whole))
    assert left.tasks["continuation"].scores == right.tasks["continuation"].scores
    assert left.config_hash == right.config_hash
    lines = [read_raw(out / "raw" / "continuation" / "counting.jsonl") for out in (broken, whole)]
    assert [line["key"] for line in lines[0]] == [line["key"] for line in lines[1]]
    assert [line["output"] for line in lines[0]] == [line["output"] for line in lines[1]]


def test_results_are_written_and_read(pipe, place, tmp_path):
    result = evaluate(pipe, "continuation", data=place / "data", limit=3, out=tmp_path, seed=5)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["format_version"] == 1 and found["seed"] == 5
    assert len(found["config_hash"]) == 16 and found["library_version"] == largeconcept.__version__
    assert found["git"] is None or len(found["git"]["revision"]) == 40
    assert found["machine"]["torch"] == str(torch.__version__)
    assert found["tasks"]["continuation"]["version"] == TASKS["continuation"].version
    assert found["tasks"]["continuation"]["metrics"]["rouge_l"] == "higher"
    for name in found["samples"]:
        assert (tmp_path / name).is_file()
    line = read_raw(tmp_path / "raw" / "continuation" / "model.jsonl")[0]
    wanted = {"key", "id", "lang", "source", "reference", "output", "seconds", "metrics"}
    assert wanted <= set(line)
    loaded = EvaluationResult.load(tmp_path)
    assert loaded.to_dict() == found == result.to_dict()
    other = loaded.save(tmp_path / "copy.json")
    assert EvaluationResult.load(other).to_dict() == found
    table = loaded.table()[0]
    assert [str(column.header) for column in table.columns][:2] == ["metric", "model"]
    assert largeconcept.evaluate is evaluate


def test_what_is_undefined_is_null_and_never_zero(tmp_path):
    scores = {"model": {"perplexity": Score(float("nan"), n=3), "x": Score(None)}}
    task = TaskResult(1, 3, {"perplexity": "lower", "x": "none"}, scores)
    result = EvaluationResult({"t": task}, {})
    result.save(tmp_path)
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert EvaluationResult.load(tmp_path).tasks["t"].scores["model"]["perplexity"].value is None
    assert [row[1] for row in task.rows()[1]] == ["–", "–"] or "nan" in task.rows()[1][0][1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1, "tasks": 3}'])
def test_damaged_results(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"results\.json"):
        EvaluationResult.load(tmp_path)


def test_choosing_tasks():
    assert choose_tasks("all") == list(TASKS)
    assert choose_tasks(["summ*", "next_concept"]) == ["next_concept", "summarize", "summarize_into"]
    assert choose_tasks("expand,continuation") == ["continuation", "expand"]
    for wrong in ("sumarize", "x*", "", []):
        with pytest.raises(ConfigError):
            choose_tasks(wrong)


def test_mistakes_are_told(pipe, place, tmp_path):
    data = place / "data"
    cases = [
        ({}, DataError, "nothing to judge on"),
        ({"data": data, "predictors": "copy_lst"}, ConfigError, "did you mean copy_last"),
        ({"data": data, "predictors": "token_lm"}, ConfigError, "token_lm=FOLDER"),
        ({"data": data, "predictors": "lead_0"}, ConfigError, "at least 1"),
        ({"data": data, "predictors": "constant="}, ConfigError, "nothing is named"),
        ({"data": data, "predictors": "mean_vector", "train_split": None}, ConfigError, "no training data"),
        ({"data": data, "predictors": f"token_lm={tmp_path}"}, CheckpointError, str(tmp_path)),
        ({"data": data, "predictors": [Oracle(), Oracle()]}, ConfigError, "two predictors of one name"),
        ({"data": data, "judge": "gpt2"}, ConfigError, "hf=NAME"),
        (
            {"data": data, "tasks": "next_concept", "settings": {"next_concept": {"mutual_information": True}}},
            ConfigError,
            "no judge",
        ),
        ({"data": data, "limit": 0}, ConfigError, "limit"),
        ({"data": data, "settings": {"continuaton": {}}}, ConfigError, "did you mean continuation"),
        ({"data": data, "settings": {"continuation": {"prompt": 0}}}, ConfigError, "continuation: prompt"),
        ({"data": data, "settings": {"continuation": {"promt": 1}}}, ConfigError, "did you mean prompt"),
        ({"data": data, "options": {"etta": 1}}, ConfigError, "did you mean eta"),
        ({"documents": tmp_path / "none.jsonl"}, DataError, "file not found"),
        ({"data": data, "split": "tset"}, DataError, "tset"),
    ]
    for settings, kind, message in cases:
        with pytest.raises(kind) as found:
            evaluate(pipe, **{"tasks": "continuation", **settings})
        assert message in str(found.value), (settings, str(found.value))
        assert "\n" not in str(found.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConceptLMError, match="cannot write"):
        evaluate(pipe, "continuation", data=data, limit=2, predictors="none", out=tmp_path / "file")


def test_predictors_of_one_name_are_told_apart(pipe, place, saved_pipeline, tmp_path):
    context = Context(pipe)
    names = [one.name for one in open_predictors(["copy_last,lead_2", "constant=a, b", "constant=c"], context)]
    assert names == ["copy_last", "lead_2", "constant", "constant_2"]
    assert [one.name for one in open_predictors([f"lcm={saved_pipeline}"], context)] == ["pipeline"]
    assert token_model_beside(tmp_path / "model") is None


def test_documents_come_in_an_order_of_the_seed(place):
    ids = [[one.id for one in read_texts(None, place / "test.jsonl", None, seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert sorted(ids[0]) == sorted(ids[2])


def test_items_do_not_show_predictors_the_reference(pipe, place, tmp_path):
    evaluate(pipe, "continuation", data=place / "data", predictors="none", out=tmp_path, limit=4)
    from largeconcept.eval.tasks.generation import _cut

    document = Document(
        "d", sentences=("A b.", "C d.", "E f."), summary="S.", target_sentences=("T.",), lang="eng_Latn"
    )
    item = _cut(replace(document, paragraph_starts=(0, 1, 2), plans=("p", "q", "r")), "eng_Latn", 2, 4)
    assert item.source.sentences == ("A b.", "C d.") and item.reference == ("E f.",)
    assert item.source.summary is None and item.source.target_sentences is None
    assert item.source.paragraph_starts == (0, 1) and item.source.plans == ("p", "q")
    for line in read_raw(tmp_path / "raw" / "continuation" / "model.jsonl"):
        assert not set(line["source"]) & set(line["reference"])


def test_stars_are_corrected_for_the_number_of_predictors():
    p_values = {"a": 0.02, "b": 0.03, "c": 0.04}
    differences = {name: {"l2": Difference(1.0, 0.5, 1.5, p)} for name, p in p_values.items()}
    found = {name: group["l2"].p for name, group in corrected_differences(differences).items()}
    assert found == pytest.approx({"a": 0.06, "b": 0.06, "c": 0.06})
    scores = {name: {"l2": Score(1.0, 0.5, 1.5, 9)} for name in (MODEL, *p_values)}
    assert "*" not in "".join(TaskResult(1, 9, {"l2": "lower"}, scores, differences).rows()[1][0])
    alone = {"a": differences["a"]}  # the only one that was compared
    assert TaskResult(1, 9, {"l2": "lower"}, scores, alone).rows()[1][0] == ["l2 ↓", "1 [0.5, 1.5]", "1*", "1", "1"]

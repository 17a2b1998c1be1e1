"""``eval run --tasks`` and ``eval ls`` on the command line."""

import json

import pytest
from conftest_helpers import SENTENCES

from largeconcept.codec.toy import ToyCodec
from largeconcept.data.build import build_concepts
from largeconcept.eval.records import EvaluationResult, read_raw
from largeconcept.eval.tasks import TASKS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    for split, turn in (("train", 1), ("test", 0)):
        rows = [
            {"id": f"{split}{i}", "lang": "eng_Latn", "sentences": [SENTENCES[(i + turn + j) % 8] for j in range(6)]}
            for i in range(6)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        build_concepts(folder / f"{split}.jsonl", folder / "data", codec=ToyCodec(16), split=split)
    return folder / "data"


def test_all_tasks(cli, saved_pipeline, data, tmp_path):
    out = tmp_path / "out"
    run = ["eval", "run", saved_pipeline, "--data", data, "--device", "cpu", "--limit", "4", "--out", out]
    text = cli(*run, "--tasks", "all").ok()
    for name in ("next_concept (4 items", "continuation (4 items", "copy_last", "shuffled", "rouge_l ↑"):
        assert name in text
    assert "left out: plan: the model does not plan" in text
    result = EvaluationResult.load(out)
    assert set(result.tasks) | set(result.left_out) == set(TASKS)
    assert {"model", "copy_last", "lead_3", "mean_vector", "nearest_train", "shuffled", "reference"} == set(
        result.tasks["continuation"].scores
    )
    assert len(read_raw(out / "raw" / "continuation" / "model.jsonl")) == 4
    again = json.loads(cli(*run, "-T", "continuation", "--predictors", "copy_last,lead_1", "--json").ok())
    assert set(again["tasks"]) == {"continuation"}
    assert set(again["tasks"]["continuation"]["scores"]) == {"model", "copy_last", "lead_1"}
    before = result.tasks["continuation"].to_dict()["scores"]
    assert again["tasks"]["continuation"]["scores"]["model"] == before["model"]


def test_settings_and_texts(cli, saved_pipeline, data, tmp_path):
    run = ["eval", "run", saved_pipeline, "--device", "cpu", "-T", "continuation", "--predictors", "none", "--json"]
    (tmp_path / "t.txt").write_text(" ".join(SENTENCES[:5]))
    settings = ["--set", "continuation.length=2", "--set", "continuation.prompt=3"]
    found = json.loads(cli(*run, "--documents", tmp_path / "t.txt", *settings).ok())
    assert found["tasks"]["continuation"]["n"] == 1
    assert found["tasks"]["continuation"]["settings"]["length"] == 2
    assert found["settings"]["data"] is None


def test_mistakes(cli, saved_pipeline, data, tmp_path):
    run = ["eval", "run", saved_pipeline, "--data", data, "--device", "cpu"]
    cli("eval", "run", saved_pipeline).error("nothing to judge on", "--data")
    cli("eval", "run", saved_pipeline, "--tasks", "all").error("nothing to judge on")
    cli(*run, "--tasks", "continuatoin").error("did you mean continuation?")
    cli(*run, "--tasks", ",").error("no task")
    cli(*run, "--tasks", "all", "--predictors", "shufled").error("did you mean shuffled?")
    cli(*run, "--tasks", "all", "--predictors", f"lcm={tmp_path / 'none'}").error("no such folder")
    cli(*run, "--tasks", "all", "--predictors", f"token_lm={saved_pipeline}").error("no model there")
    cli(*run, "--tasks", "all", "--set", "length=2").error("TASK.key=value")
    cli(*run, "--tasks", "all", "--set", "continuation.lenght=2").error("did you mean length?")
    cli(*run, "--tasks", "all", "--judge", "gpt2").error("hf=NAME")
    cli(*run, "--tasks", "all", "-o", "etta=1").error("did you mean eta?")
    cli(*run, "--tasks", "all", "--documents", tmp_path / "x.jsonl").error("x.jsonl", "file not found")
    (tmp_path / "bad.jsonl").write_text('{"sentences": ["A.", 3]}\n')
    cli(*run, "--tasks", "all", "--documents", tmp_path / "bad.jsonl").error("bad.jsonl:1")
    (tmp_path / "file").write_text("")
    cli(*run, "--tasks", "all", "--out", tmp_path / "file").error("is a file")


def test_ls(cli):
    text = cli("eval", "ls").ok()
    for name in (*TASKS, "lead_K", "token_lm=FOLDER", "rouge_l", "higher is better"):
        assert name in text
    found = json.loads(cli("eval", "ls", "--json").ok())
    assert set(found) == {"tasks", "predictors", "metrics"} and set(found["tasks"]) == set(TASKS)

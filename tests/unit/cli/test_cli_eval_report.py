"""``eval report`` and ``eval sweep`` from the command line."""

import json
import shutil

import pytest
from html_checks import check_safe, parse
from report_runs import write_evaluation

from largeconcept.data.build import build_concepts


@pytest.fixture(scope="module")
def sweepable(make_pipeline, tmp_path_factory):
    """A saved pipeline and a dataset of its concept space with the splits train and validation."""
    folder = tmp_path_factory.mktemp("sweep")
    pipeline = make_pipeline()
    from conftest_helpers import SENTENCES

    lines = [
        {"id": f"d{i}", "lang": "eng_Latn", "sentences": [*SENTENCES[i % 4 :], *SENTENCES[: i % 4]][: 4 + i % 4]}
        for i in range(8)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split in ("train", "validation", "test"):
        build_concepts(str(folder / "texts.jsonl"), folder / "data", codec=pipeline.codec, split=split)
    pipeline.save_pretrained(folder / "pipeline")
    return folder


def test_report(cli, tmp_path):
    write_evaluation(tmp_path / "a")
    out = cli("eval", "report", tmp_path / "a", "--out", tmp_path / "r.html", "--samples", 1, "--title", "T & t").ok()
    assert out.startswith(str(tmp_path / "r.html")) and "KiB" in out
    root = parse((tmp_path / "r.html").read_text())
    check_safe(root)
    assert root.all("title")[0].words() == "T & t" and len(root.all("article", "sample")) == 1


def test_report_with_a_map(cli, tmp_path, toy_codec):
    from conftest_helpers import SENTENCES

    write_evaluation(tmp_path / "a")
    for lang in ("eng_Latn", "deu_Latn"):
        line = {"id": "x", "lang": lang, "sentences": list(SENTENCES[:4])}
        (tmp_path / f"{lang}.jsonl").write_text(json.dumps(line) + "\n")
    texts = [word for lang in ("eng_Latn", "deu_Latn") for word in ("--texts", tmp_path / f"{lang}.jsonl")]
    cli("eval", "report", tmp_path / "a", "--out", tmp_path / "r.html", "--codec", toy_codec, *texts).ok()
    assert "Concepts of one text in several languages" in (tmp_path / "r.html").read_text()


def test_mistakes_in_a_report(cli, tmp_path):
    cli("eval", "report", tmp_path / "nothing").error("no such folder")
    cli("eval", "report", tmp_path, "--out", tmp_path / "r.html").error("holds no run")
    write_evaluation(tmp_path / "a")
    cli("eval", "report", tmp_path / "a", "--codec", "starter").error("--texts", "go together")
    (tmp_path / "a" / "results.json").write_text('{"format_version": 1, "tasks": {"x": 5}}')
    cli("eval", "report", tmp_path / "a", "--out", tmp_path / "r.html").error("damaged results")
    assert not (tmp_path / "r.html").exists()


def test_sweep(cli, sweepable, tmp_path):
    shutil.copytree(sweepable / "pipeline", tmp_path / "pipeline")
    command = ["eval", "sweep", tmp_path / "pipeline", "--data", sweepable / "data", "--grid", "guidance_scale=1,3",
               "num_inference_steps=2,4", "--out", tmp_path / "sweep", "--limit", 6, "--device", "cpu"]  # fmt: skip
    result = cli(*command)
    lines = result.ok().splitlines()
    assert lines[0].split()[:4] == ["rank", "guidance_scale", "num_inference_steps", "contrastive_accuracy"]
    assert lines[1].endswith("best") and "4 settings" in lines[5] and lines[6].startswith("best: guidance_scale ")
    assert "warning" not in result.err  # there is a validation split
    assert json.loads((tmp_path / "pipeline" / "pipeline.json").read_text())["generation"]["num_inference_steps"] == 4
    found = json.loads(cli(*command, "--json", "--write", "--metric", "l2", "--quickest").ok())
    assert found["taken"] == found["quickest"] and found["metric"] == "l2"
    assert found["settings"]["split"] == "validation" and found["num_documents"] == 6
    written = json.loads((tmp_path / "pipeline" / "pipeline.json").read_text())["generation"]
    assert {name: written[name] for name in found["taken"]} == found["taken"]
    page = tmp_path / "r.html"
    cli("eval", "report", tmp_path / "sweep", "--out", page).ok()
    assert "guidance scale" in page.read_text()


def test_a_fixed_option_is_used_and_written(cli, sweepable, tmp_path):
    shutil.copytree(sweepable / "pipeline", tmp_path / "pipeline")
    command = ["eval", "sweep", tmp_path / "pipeline", "--data", sweepable / "data", "-g", "guidance_scale=1,3",
               "--option", "guidance_rescale=0.25", "--write", "--json"]  # fmt: skip
    found = json.loads(cli(*command).ok())
    assert found["base"]["guidance_rescale"] == 0.25
    written = json.loads((tmp_path / "pipeline" / "pipeline.json").read_text())["generation"]
    assert written["guidance_rescale"] == 0.25 and written["seed"] == 0
    cli(*command, "--option", "guidance_scale=2").error("in the grid and fixed")


def test_the_test_split_is_warned_of(cli, sweepable):
    command = ["eval", "sweep", sweepable / "pipeline", "--data", sweepable / "data", "-g", "guidance_scale=1,3"]
    result = cli(*command, "--split", "test", "--limit", 3)
    assert result.status == 0 and "test split" in result.err
    result = cli(*command, "--split", "train", "--limit", 3)
    assert result.status == 0 and "trained on" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no grid"),
        (["-g", "guidance_scale"], "not an option with values"),
        (["-g", "guidance_scale=1,,2"], "a value is missing"),
        (["-g", "guidance_scale=1", "guidance_scale=2"], "an option twice"),
        (["-g", "guidance=1,2"], "guidance_scale"),
        (["-g", "guidance_scale=1,2", "--metric", "rouge"], "unknown metric"),
        (["-g", "guidance_scale=1,2", "--split", "nothing"], "nothing"),
        (["-g", "guidance_scale=1,2", "--metric", "round_trip_l2"], "needs a codec"),
    ],
)
def test_mistakes_in_a_sweep(cli, sweepable, words, message):
    cli("eval", "sweep", sweepable / "pipeline", "--data", sweepable / "data", *words).error(message)


def test_a_dataset_that_is_not_there(cli, sweepable, tmp_path):
    command = ["eval", "sweep", sweepable / "pipeline", "-g", "guidance_scale=1,2", "--data"]
    cli(*command, tmp_path / "nothing").error("nothing")
    cli(*command, tmp_path).error(str(tmp_path))


def test_only_a_pipeline_here_can_be_written(cli, sweepable, tmp_path):
    command = ["--data", sweepable / "data", "-g", "guidance_scale=1,2", "--write"]
    cli("eval", "sweep", "someone/model", *command).error("--write", "saved pipeline")
    cli("eval", "sweep", tmp_path, *command).error("--write")

"""The page of a report: whole, safe, accessible, and about what was recorded."""

import json

import pytest
from html_checks import check_accessible, check_safe, parse
from report_runs import write_all, write_evaluation, write_sweep, write_training

from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.eval.records import MODEL, RAW, EvaluationResult, raw_path
from largeconcept.eval.report.page import write_report
from largeconcept.types import Document

SENTENCES = ["A dog.", "A cat.", "A house.", "Ein Hund.", "Eine Katze.", "Ein Haus."]
TEXTS = [
    Document("pets", sentences=tuple(SENTENCES[:3]), lang="eng_Latn"),
    Document("pets", sentences=tuple(SENTENCES[3:]), lang="deu_Latn"),
    Document("other", sentences=tuple(SENTENCES[:3]), lang="eng_Latn"),
]


def page_of(folders, tmp_path, **words):
    return write_report(folders, tmp_path / "report.html", **words).read_text(encoding="utf-8")


def section(root, name):
    return next(one for one in root.all("section") if one.attributes.get("id") == name)


def test_everything_on_one_page(tmp_path):
    page = page_of([write_all(tmp_path / "runs")], tmp_path, codec=ToyCodec(8, SENTENCES), documents=TEXTS)
    root = parse(page)
    check_safe(root)
    check_accessible(root)
    assert len(page.encode()) < 400_000
    assert [a.words() for a in root.all("nav")[0].all("a")] == [
        "Summary", "Next concept", "Continuation", "Settings of generation", "Cost", "Training", "Map of concepts",
        "Records",
    ]  # fmt: skip
    assert len(section(root, "summary").all("a", "card")) == 4
    assert len(section(root, "sweep").all("rect", "best")) == 1
    assert {one.words() for one in section(root, "training").all("h3")} == {"mse", "two_tower"}
    assert len(section(root, "map").all("circle", "dot")) == 8  # six points, two in the legend
    assert "Decoding under noise, eval-b" in section(root, "task-next_concept").words()
    assert "model: 0123456789ab" not in page and "0123456789ab, with changes" in page


@pytest.mark.parametrize("samples", [0, 3])
def test_hostile_texts_stay_texts(tmp_path, samples):
    page = page_of([write_all(tmp_path / "runs", hostile=True)], tmp_path, title="<b>&", num_samples=samples)
    root = parse(page)
    check_safe(root)
    check_accessible(root)
    assert "<script" not in page and "<b>" not in page
    assert root.all("h1")[0].words() == "<b>&"
    if samples:
        assert 'alert("x")' in section(root, "task-continuation").words()


def test_scores_verdicts_and_samples(tmp_path):
    folder = write_evaluation(tmp_path / "run")
    root = parse(page_of([folder], tmp_path, num_samples=4))
    task = section(root, "task-continuation")
    rows = {row.all("th")[0].words(): row for row in task.all("tbody")[0].all("tr")}
    assert list(rows) == ["model", "token lm", "copy last", "lead 3", "reference", "plan first"]
    assert "best" in rows["model"].words() and "best" not in rows["reference"].words()  # people do not compete
    assert "worse p = 0.002" in rows["copy last"].words() and "alike p = 0.40" in rows["token lm"].words()
    assert len(task.all("article", "sample")) == 4
    card = task.all("article", "sample")[0]
    assert [h.words() for h in card.all("h5")] == ["Reference", "model", "token lm", "copy last", "lead 3"]
    assert {p.attributes.get("lang") for p in card.all("p", "text")} <= {"en", "de", "ar", "zh-Hans"}
    assert all(p.attributes.get("dir") == "auto" for p in card.all("p", "text"))
    assert "Models against each other" not in root.words()


def test_samples_follow_the_seed(tmp_path):
    folder = write_evaluation(tmp_path / "run")
    first, same, other = (
        [h.words() for h in parse(page_of([folder], tmp_path, num_samples=2, seed=seed)).all("h4")]
        for seed in (1, 1, 2)
    )
    assert first == same != other


def test_models_of_several_runs_are_compared_on_shared_items(tmp_path):
    one, two = write_evaluation(tmp_path / "one"), write_evaluation(tmp_path / "two", 1, lift=-0.4)
    root = parse(page_of([one, two], tmp_path))
    task = section(root, "task-continuation")
    table = task.all("table")[1]
    assert [th.words() for th in table.all("tbody")[0].all("th")] == ["two"]
    cells = [td.words() for td in table.all("td")]
    assert "+1" in cells[0] and "worse p" in cells[0]
    assert len([h for h in task.all("h5") if h.words().startswith("model, ")]) == 6
    raw_path(two, RAW, "continuation", MODEL).unlink()
    again = parse(page_of([one, two], tmp_path))
    assert "Models against each other" not in again.words()


def test_versions_that_cannot_be_compared_are_told(tmp_path):
    one, two = write_evaluation(tmp_path / "one"), write_evaluation(tmp_path / "two")
    assert "cannot be compared" not in page_of([one, two], tmp_path)
    result = EvaluationResult.load(two)
    result.tasks["continuation"].version = 2
    result.save(two)
    assert "cannot be compared" in page_of([one, two], tmp_path)


def test_folders_are_found_and_named(tmp_path):
    write_training(tmp_path / "runs" / "deep" / "mse")
    write_sweep(tmp_path / "runs" / "sweep")
    (tmp_path / "runs" / "results.json").write_text('{"another": "program"}')
    root = parse(page_of([tmp_path / "runs", tmp_path / "runs" / "sweep"], tmp_path))
    assert [h.words() for h in section(root, "records").all("h3")] == ["mse", "sweep"]
    assert not any(one.attributes.get("id") == "summary" for one in root.all("section"))
    write_training(tmp_path / "more" / "mse")
    labels = parse(page_of([tmp_path / "runs", tmp_path / "more"], tmp_path))
    assert {h.words() for h in section(labels, "training").all("h3")} == {"deep/mse", "more/mse"}


def test_mistakes_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        page_of([tmp_path / "nothing"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no run"):
        page_of([tmp_path / "empty"], tmp_path)
    folder = write_evaluation(tmp_path / "run")
    with pytest.raises(ConfigError, match="num_samples"):
        page_of([folder], tmp_path, num_samples=-1)
    with pytest.raises(DataError, match="two languages"):
        page_of([folder], tmp_path, codec=ToyCodec(8, SENTENCES), documents=TEXTS[2:])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report([folder], tmp_path / "file" / "report.html")
    results = json.loads((folder / "results.json").read_text())
    results["tasks"]["continuation"]["extra"] = {"curves": {"a": {"series": {"b": {"x": [1, 2], "y": [1]}}}}}
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(CheckpointError, match="not as many values"):
        page_of([folder], tmp_path)
    (folder / "results.json").write_text('{"format_version": 9, "tasks": {}}')
    with pytest.raises(CheckpointError, match="format_version 1"):
        page_of([folder], tmp_path)


def test_damaged_files_of_a_training_run(tmp_path):
    folder = write_training(tmp_path / "run")
    file = folder / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"step": 410, "lo')
    page_of([folder], tmp_path)  # a line that is being written
    file.write_text("oops\n" + whole)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:1"):
        page_of([folder], tmp_path)
    file.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n')
    assert "No finite values" in page_of([folder], tmp_path)


def test_a_run_that_went_back_is_drawn_once(tmp_path):
    from largeconcept.eval.report.reading import read_runs

    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": {s}.5}}\n' for s in (1, 2, 3, 2, 3, 4)))
    run = read_runs([tmp_path])[0]
    assert run.training is not None and run.training.curves == {"loss": ([1, 2, 3, 4], [1.5, 2.5, 3.5, 4.5])}

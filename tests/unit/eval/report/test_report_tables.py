"""Verdicts, marks and figures of tables."""

import pytest
from html_checks import parse

from largeconcept.eval.records import Difference, Score, TaskResult
from largeconcept.eval.report.tables import best_of, figure_text, p_text, signed, task_table, verdict


@pytest.mark.parametrize(
    ("difference", "direction", "kind"),
    [
        (Difference(2.0, 1.0, 3.0, 0.001), "higher", "worse"),
        (Difference(-2.0, -3.0, -1.0, 0.001), "higher", "better"),
        (Difference(2.0, 1.0, 3.0, 0.001), "lower", "better"),
        (Difference(-2.0, -3.0, -1.0, 0.001), "lower", "worse"),
        (Difference(2.0, 1.0, 3.0, 0.001), "none", "differs"),
        (Difference(2.0, -1.0, 5.0, 0.3), "higher", "alike"),
        (Difference(2.0, 1.0, 3.0), "higher", "worse"),
        (Difference(2.0, -1.0, 3.0), "higher", "alike"),
        (Difference(0.0, 0.0, 0.0, 0.01), "higher", "alike"),
    ],
)
def test_verdicts_are_about_the_other_predictor(difference, direction, kind):
    found = verdict(difference, direction)
    assert found is not None and found.kind == kind


def test_no_verdict_without_figures():
    assert verdict(None, "higher") is None
    assert verdict(Difference(None, None, None, 0.01), "higher") is None
    assert verdict(Difference(2.0), "higher") is None


def test_the_best_is_the_best_of_competitors():
    rows = [
        ("model", {"m": Score(1.0)}),
        ("truth", {"m": Score(9.0)}),
        ("a", {"m": Score(3.0)}),
        ("b", {"m": Score(3.0)}),
    ]
    assert best_of(rows, "m", "higher") == {2, 3}
    assert best_of(rows, "m", "lower") == {0}
    assert best_of(rows, "m", "none") == best_of(rows[:1], "m", "higher") == set()
    assert best_of([*rows, ("c", {"m": Score(None)}), ("d", {})], "m", "higher") == {2, 3}


def test_a_task_as_a_table():
    result = TaskResult(
        1,
        20,
        {"chrf": "higher", "overlap_3": "none", "missing": "higher"},
        {
            "copy_last": {"chrf": Score(20.0, 18.0, 22.0, 20)},
            "model": {"chrf": Score(31.24, 29.0, 33.0, 20), "overlap_3": Score(None)},
        },
        {"copy_last": {"chrf": Difference(11.25, 9.0, 13.0, 0.0005)}},
        left_out={"plans": "not a <planning> model"},
    )
    root = parse(task_table("Scores", [("run", result)]))
    rows = root.all("tbody")[0].all("tr")
    assert [row.all("th")[0].words() for row in rows] == ["model", "copy last", "plans"]
    assert [th.words() for th in root.all("thead")[0].all("th")] == ["Predictor", "chrF ↑ higher is better", "OVL-3"]
    model, copy, plans = (row.words() for row in rows)
    assert "best 31.2 29.0 – 33.0 –" in model
    assert "20.0" in copy and "worse p < 0.001" in copy
    assert plans == "plans left out: not a <planning> model"
    several = parse(task_table("Scores", [("one", result), ("two", result)]))
    groups = [th for th in several.all("th") if th.attributes["scope"] == "rowgroup"]
    assert [th.words() for th in groups] == ["one", "two"]


def test_figures_have_the_digits_that_intervals_allow():
    assert figure_text(0.923456, (0.91, 0.94)) == "0.923"
    assert figure_text(16.49429, (16.28, 16.70)) == "16.49"
    assert figure_text(123.456, (100.0, 150.0)) == "123"
    assert figure_text(0.5, (0.5, 0.5)) == figure_text(0.5, None) == "0.5"
    assert signed(0.0062, (0.0032, 0.0092)) == "+0.0062" and signed(-2.0) == "−2"
    assert [p_text(p) for p in (0.0001, 0.0312, 0.4)] == ["< 0.001", "= 0.031", "= 0.40"]


def scores_of(values):
    return {name: {"a": Score(v), "b": Score(v), "c": Score(v)} for name, v in values.items()}


def test_runs_with_other_items_have_a_best_each():
    metrics = {"a": "higher", "b": "lower", "c": "none"}
    groups = [("one", TaskResult(1, 5, metrics, scores_of({"model": 1.0, "x": 2.0}))),
              ("two", TaskResult(1, 9, metrics, scores_of({"model": 7.0, "x": 5.0})))]  # fmt: skip
    for comparable, marked in ((True, [["b"], [], ["a"], []]), (False, [["b"], ["a"], ["a"], ["b"]])):
        rows = parse(task_table("Scores", groups, comparable)).all("tbody")[0].all("tr")
        cells = [row.all("td") for row in rows if row.all("td")]
        assert [[m for m, cell in zip("abc", row) if "best" in cell.words()] for row in cells] == marked


def test_many_metrics_of_one_predictor_stand_below_each_other():
    metrics = {"auto_bleu": "higher", "auto_bleu/deu_Latn": "higher", "auto_bleu/0.1": "higher", "norm": "none"}
    result = TaskResult(
        1, 5, metrics, {"model": {m: Score(1.0, 0.5, 1.5) for m in metrics}}, left_out={"x": "no <reason>"}
    )
    root = parse(task_table("Scores", [("run", result)]))
    names = [row.all("th")[0].words() for row in root.all("tbody")[0].all("tr")]
    up = " ↑ higher is better"
    assert names == [f"Auto-BLEU{up}", f"Auto-BLEU, German{up}", f"Auto-BLEU, 0.1{up}", "Norm"]
    assert "x left out: no <reason>" in root.words() and not root.all("svg")


def test_many_metrics_stand_below_one_another():
    metrics = {f"m{i}": "higher" for i in range(10)}
    scores = {name: {m: Score(float(i), i - 0.1, i + 0.1, 9) for i, m in enumerate(metrics)} for name in ("model", "a")}
    scores["b"] = dict(list(scores["a"].items())[:2])
    result = TaskResult(1, 9, metrics, scores, left_out={"c": "too slow"})
    tables = parse(task_table("Scores", [("run", result)])).all("table")
    heads = [[cell.words() for cell in one.all("thead")[0].all("th")] for one in tables]
    assert [len(one) for one in heads] == [6, 6] and all(one[0] == "Predictor" for one in heads)
    assert [name.split()[0] for one in heads for name in one[1:]] == [f"M{i}" for i in range(10)]  # each once, in order
    for one in tables:
        rows = [row.all("th")[0].words() for row in one.all("tbody")[0].all("tr")]
        assert rows == ["model", "a", "b", "c"] and "too slow" in one.words()
    assert len({one.all("caption")[0].words() for one in tables}) == 2
    few = TaskResult(1, 9, dict(list(metrics.items())[:7]), scores)
    assert len(parse(task_table("Scores", [("run", few)])).all("table")) == 1


def test_verdicts_are_corrected_for_the_number_of_predictors():
    scores = {name: {"m": Score(1.0, 0.9, 1.1, 9)} for name in ("model", "a", "b", "c")}
    away = {name: {"m": Difference(0.5, 0.4, 0.6, p)} for name, p in (("a", 0.02), ("b", 0.03), ("c", 0.04))}
    page = parse(task_table("Scores", [("run", TaskResult(1, 9, {"m": "higher"}, scores, away))]))
    assert len(page.all("span", "alike")) == 3 and not page.all("span", "worse")
    alone = TaskResult(1, 9, {"m": "higher"}, scores, {"a": away["a"]})
    assert len(parse(task_table("Scores", [("run", alone)])).all("span", "worse")) == 1

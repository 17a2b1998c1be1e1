"""Records that somebody damaged are told as such, or shown as far as they go; never a fault of the program."""

import json
import random
import shutil

import pytest
from html_checks import check_safe, parse
from report_runs import write_all

from largeconcept.errors import ConceptLMError
from largeconcept.eval.report.page import write_report

DAMAGE = (None, "text", "<b>", -1, 1e308, float("nan"), True, [], [1, "a"], {}, {"a": None}, 10**30, 10**400)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("damage") / "runs")


def leaves(value, path=()):
    """Every place in plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from leaves(one, (*path, key))


def damaged(data, draw):
    place = draw.choice([path for path in leaves(data) if path])
    inside = data
    for key in place[:-1]:
        inside = inside[key]
    if draw.random() < 0.2 and isinstance(inside, dict):
        del inside[place[-1]]
    else:
        inside[place[-1]] = draw.choice(DAMAGE)
    return place


@pytest.mark.parametrize("name", ["eval-a/results.json", "sweep/sweep.json", "cost/cost.json"])
def test_damaged_records(runs, tmp_path, name):
    draw, told = random.Random(name), 0
    folder = tmp_path / "run"
    shutil.copytree((runs / name).parent, folder)
    file, original = folder / name.split("/")[1], (runs / name).read_text()
    for _ in range(50):
        data = json.loads(original)
        place = damaged(data, draw)
        file.write_text(json.dumps(data))
        try:
            page = write_report([folder], tmp_path / "r.html", num_samples=1).read_text()
        except ConceptLMError as error:
            assert file.name in str(error) or str(folder) in str(error), (place, error)
            told += 1
        except Exception as error:
            raise AssertionError(f"{place}: {error!r}") from error
        else:
            check_safe(parse(page))
    assert told > 3


def test_damaged_lines(runs, tmp_path):
    draw = random.Random(1)
    folder = tmp_path / "run"
    shutil.copytree(runs / "eval-a", folder)
    file = folder / "raw" / "continuation" / "model.jsonl"
    lines = file.read_text().splitlines()
    for _ in range(20):
        records = [json.loads(line) for line in lines]
        damaged(records, draw)
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        try:
            check_safe(parse(write_report([folder, runs / "eval-b"], tmp_path / "r.html").read_text()))
        except ConceptLMError as error:
            assert "model.jsonl" in str(error)

"""Test 8: beam search finds what the original's generator finds, 144 of 144 n-best lists, and scores them alike."""

import collections

import pytest
import sonar_original
import torch

from largeconcept.codec.sonar.writing import WritingOptions, write, write_hypotheses

DATA = sonar_original.records("beams")
GROUPS = collections.defaultdict(list)
for _case in DATA["cases"]:
    GROUPS[_case["decoder"], _case["beams"], _case["max_total"], _case["unknown"]].append(_case)
PROMPT_AND_END = 3  # </s>, the language and the last </s> count in the original's bound


def run(decoder, beams, max_total, unknown, rows=None):
    given = DATA["inputs"][str(decoder)]
    rows = range(len(given["languages"])) if rows is None else rows
    options = WritingOptions(num_beams=beams, max_length=max_total - PROMPT_AND_END, forbid_unknown=not unknown)
    languages = [given["languages"][row] for row in rows]
    found = write_hypotheses(
        sonar_original.decoder(decoder), torch.tensor(given["concepts"])[list(rows)], languages, options
    )
    return [
        [([3, language, *one.tokens, 3], one.score) for one in best]
        for language, best in zip(languages, found, strict=True)
    ]


def compare(case, found):
    assert [ids for ids, _ in found] == [one["ids"] for one in case["hypotheses"]]
    for (_, score), one in zip(found, case["hypotheses"], strict=True):
        assert score == pytest.approx(one["score"], rel=0, abs=1e-6)


@pytest.mark.parametrize(("decoder", "beams", "max_total", "unknown"), GROUPS)
def test_08_n_best_lists(decoder, beams, max_total, unknown):
    """Ids exactly, scores to 1e-6; all rows in one call."""
    found = run(decoder, beams, max_total, unknown)
    for case in GROUPS[decoder, beams, max_total, unknown]:
        compare(case, found[case["row"]])


@pytest.mark.parametrize(("decoder", "beams", "max_total", "unknown"), list(GROUPS)[::5])
def test_08_one_row_at_a_time(decoder, beams, max_total, unknown):
    for case in GROUPS[decoder, beams, max_total, unknown]:
        compare(case, run(decoder, beams, max_total, unknown, [case["row"]])[0])


@pytest.mark.parametrize(("decoder", "beams", "max_total", "unknown"), GROUPS)
def test_08_without_quick_products(decoder, beams, max_total, unknown, monkeypatch):
    """As on a device or in a type that has none."""
    monkeypatch.setattr("largeconcept.nn.products.has_onednn", lambda: False)
    found = run(decoder, beams, max_total, unknown)
    for case in GROUPS[decoder, beams, max_total, unknown]:
        compare(case, found[case["row"]])


def test_08_the_best_list_is_what_is_written():
    given = DATA["inputs"]["0"]
    options = WritingOptions(num_beams=3, max_length=10)
    written = write(sonar_original.decoder(0), torch.tensor(given["concepts"]), given["languages"], options)
    wanted = [case["hypotheses"][0]["ids"][2:-1] for case in GROUPS[0, 3, 13, False]]
    assert written == wanted


def test_08_the_cases_cover_what_they_should():
    cases = DATA["cases"]
    assert len(cases) == 144
    assert all(len(case["hypotheses"]) == case["beams"] for case in cases)
    hypotheses = [(case, one["ids"]) for case in cases for one in case["hypotheses"]]
    forced = sum(len(ids) == case["max_total"] for case, ids in hypotheses)
    assert 0 < forced < len(hypotheses)  # both forced and free ends
    assert len({len(ids) for _, ids in hypotheses}) > 10
    assert any(1 in ids for _, ids in hypotheses)
    assert not any(1 in ids for case, ids in hypotheses if not case["unknown"])
    empty = [ids for _, ids in hypotheses if len(ids) == 3]
    assert empty  # a text may end at once, as the original allows

"""The page of results: what it concludes follows from the figures, whatever they are; nothing is typed."""

import copy
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from results_parts.drawings import MOST_BYTES
from results_parts.page import page, write
from results_parts.targets import targets
from results_parts.text import against, figure, literal, pooled, shares, table

LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn")


def command(part):
    return "python benchmarks/results.py" + (f" --part {part}" if part else "")


def one(value, wide=1.0, n=200):
    return {"value": value, "low": value - wide, "high": value + wide, "n": n}


def tripped(value, n=200):
    scores = {"auto_bleu": one(value), "chrf": one(value + 3), "exact": one(0.4, 0.05), "meaning": one(0.97, 0.01)}
    return {"n": n, "documents": 90, "scores": scores, "samples": [{"source": "a <b> *c*", "output": ""}]}


def errors(value):
    return {"both": one(value, 0.5), "there": value + 0.1, "back": value - 0.1}


def item_values(mean, count=12):
    return [mean + (-1) ** i for i in range(count)]


def written(values, lang):
    """What a part of writing holds, of predictors with these means."""
    scores = {
        who: {
            "rouge_l": one(value),
            "chrf": one(value + 5),
            "repetition_4": one(0.1, 0.01),
            "length_ratio": one(1.1, 0.1),
        }
        for who, value in values.items()
    }
    own = values["model"]
    differences = {
        who: {"rouge_l": {"value": own - value, "low": own - value - 1, "high": own - value + 1, "p": 0.001}}
        for who, value in values.items()
        if who != "model"
    }
    return {
        "tasks": {
            "summarize": {
                "n": 12,
                "metrics": {"rouge_l": "higher", "chrf": "higher", "repetition_4": "lower", "length_ratio": "none"},
                "scores": scores,
                "differences": differences,
                "settings": {},
                "left_out": {},
                "extra": {"notes": []},
            }
        },
        "left_out": {"expand": "no summaries"},
        "items": {
            "summarize": {
                "ids": [f"{lang}-{i}" for i in range(12)],
                **{who: {"rouge_l": item_values(v), "chrf": item_values(v + 5)} for who, v in values.items()},
            }
        },
        "samples": {
            "summarize": [
                {
                    "id": "d`1",
                    "lang": lang,
                    "target_lang": lang,
                    "source": ["<script>alert(1)</script>", "x" * 600],
                    "reference": ["A summary."],
                    "outputs": {"model": "Written.", "lead_1": "- a list"},
                    "rouge_l": {"model": 31.0, "lead_1": None},
                }
            ]
        },
    }


MEANS = {"model": 30.0, "lead_1": 25.0, "nearest_train": 27.0, "token_lm": 32.0, "reference": 100.0}


def zero_shot_of(lang, value):
    whole = written({"model": value, "lead_1": 20.0}, lang)
    items, samples = whole["items"]["summarize"], whole["samples"]["summarize"]
    return {"task": whole["tasks"]["summarize"], "items": items, "samples": samples}


@pytest.fixture
def found():
    """Records of all parts."""
    data = {
        "held_out": {
            "split": "test",
            "languages": {
                lang: {"documents": 1234, "sentences": 9, "summaries": 8, "translations": 7} for lang in LANGUAGES
            },
        },
        "round_trip": {
            "classes": {
                "short": dict(zip(LANGUAGES, (tripped(82.5), tripped(71.0), tripped(64.0)), strict=True)),
                "long": {"eng_Latn": tripped(50.0), "deu_Latn": {"n": 0}},
                "meaning": {"eng_Latn": tripped(20.0)},
            },
            "form_dim": 512,
            "dim": 1024,
            "beams": 4,
        },
        "noise": {
            "strengths": [0.0, 0.3],
            "languages": {
                lang: {"n": 20, "scores": {"auto_bleu/0": one(80.0), "auto_bleu/0.3": one(60.0)}} for lang in LANGUAGES
            },
        },
        "translation": {
            "languages": list(LANGUAGES),
            "pairs": {
                "eng_Latn deu_Latn": {
                    "n": 40,
                    "chrf": one(50.0),
                    "chrf_meaning": one(40.0),
                    "copy": one(30.0),
                    "other": one(20.0),
                    "meaning": one(0.9, 0.01),
                    "meaning_human": one(0.95, 0.01),
                    "meaning_other": one(0.8, 0.01),
                    "samples": [{"source": "a", "output": "b", "reference": "c"}],
                }
            },
        },
        "search": {
            "languages": list(LANGUAGES),
            "meaning": True,
            "pairs": {
                "eng_Latn deu_Latn": {
                    "n": 300,
                    **{
                        space: {"margin": errors(v), "cosine": errors(v + 1), "margin_where_judge_finds": errors(1.0)}
                        for space, v in (("ours", 4.0), ("meaning", 3.0), ("judge", 2.0))
                    },
                },
                "eng_Latn fra_Latn": {
                    "n": 30,  # too few to count
                    **{
                        space: {"margin": errors(90.0), "cosine": errors(90.0)}
                        for space in ("ours", "meaning", "judge")
                    },
                },
                "deu_Latn fra_Latn": {"n": 1},
            },
        },
        "next_concept": {
            "task": {
                "n": 40,
                "metrics": {"l2": "lower", "contrastive_accuracy": "higher"},
                "scores": {
                    "model": {"l2": one(20.0), "contrastive_accuracy": one(0.8, 0.01)},
                    "copy_last": {"l2": one(30.0), "contrastive_accuracy": one(0.7, 0.01)},
                },
                "differences": {
                    "copy_last": {
                        "l2": {"value": -10.0, "low": -11.0, "high": -9.0, "p": 0.001},
                        "contrastive_accuracy": {"value": 0.1, "low": 0.05, "high": 0.15, "p": 0.2},
                    }
                },
                "settings": {"num_predictions": 4321},
                "left_out": {},
                "extra": {"notes": []},
            },
            "left_out": {},
        },
        "writing": {
            "languages": {lang: written(MEANS, lang) for lang in LANGUAGES},
            "into": {"tasks": {}, "left_out": {"summarize_into": "no twins"}, "items": {}, "samples": {}},
        },
        "zero_shot": dict(
            zip(LANGUAGES, (zero_shot_of(lang, v) for lang, v in zip(LANGUAGES, (30.0, 27.0, 24.0))), strict=True)
        ),
        "shipping": {
            "bytes": 30 * 2**20,
            "parts": {"codec": 11 * 2**20, "model": 12 * 2**20},
            "parameters": {
                "codec": 11_400_000,
                "model": 9_000_000,
                "family": "two_tower",
                "dim": 1024,
                "languages": [],
            },
            "opened": [[2.0, 1.5], [1.0, 1.0], [1.2, 1.0]],
            "rounding": {
                name: {
                    "bytes": size * 2**20,
                    "seconds": 1.0,
                    "l2": 20.0,
                    "contrastive_accuracy": 0.8,
                    "auto_bleu": {"eng_Latn": bleu},
                }
                for name, size, bleu in (("float", 90, 80.0), ("int8", 30, 79.25))
            },
        },
    }
    about = {
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 1800.0,
        "machine": {"processor": "A processor", "cores": 2, "torch": "2"},
        "library_version": "0.1.0",
        "seed": 0,
    }
    return {part: {**about, "part": part, "data": one} for part, one in data.items()}


def verdicts(found):
    return [(one.reached, one.verdict) for one in targets({part: record["data"] for part, record in found.items()})]


def test_targets_say_what_is_reached_and_by_how_much_it_is_missed(found):
    rows = verdicts(found)
    assert rows[0] == ("82.5 [81.5, 83.5]", "met")
    assert rows[1] == (
        "4.0 %; 1 of 1 pairs of languages are within; by meaning alone 3.0 %",
        "met",
    )  # the pair of too few is left out
    assert [verdict for _, verdict in rows[2:4]] == ["met", "met"]
    assert rows[2][0].startswith("30.0 [") and " against 25.0 [" in rows[2][0]
    assert rows[4][0].startswith("93.8 % [") and rows[4][1].startswith("met")  # 30 of 32
    assert rows[5][0].startswith("85.0 % [") and rows[5][1].startswith("met")  # the mean of 27/30 and 24/30

    data = {part: copy.deepcopy(record) for part, record in found.items()}
    data["round_trip"]["data"]["classes"]["short"]["eng_Latn"] = tripped(68.8)
    data["search"]["data"]["pairs"]["eng_Latn deu_Latn"]["ours"]["margin"] = errors(7.25)
    worse = {**MEANS, "model": 24.0}
    data["writing"]["data"]["languages"] = {lang: written(worse, lang) for lang in LANGUAGES}
    data["zero_shot"]["data"]["deu_Latn"] = zero_shot_of("deu_Latn", 9.0)
    rows = [verdict for _, verdict in verdicts(data)]
    assert rows[0] == "**missed by 1.2**"
    assert rows[1] == "**missed by 2.2 points**"
    assert rows[2:4] == ["**missed by 1.0**", "**missed by 3.0**"]
    assert rows[4] == "**missed by 15.0 %**"
    assert rows[5].startswith("**missed by 25.0 %**")


def test_an_interval_across_the_target_is_chance(found):
    found["round_trip"]["data"]["classes"]["short"]["eng_Latn"] = tripped(70.4)
    assert verdicts(found)[0][1] == "met, within chance"
    found["round_trip"]["data"]["classes"]["short"]["eng_Latn"] = tripped(69.6)
    assert verdicts(found)[0][1] == "**missed by 0.4**, within chance"


def test_what_was_not_measured_is_not_met(found):
    assert {verdict for _, verdict in verdicts({})} == {"not measured"}
    text, images = page({}, command)
    assert "0 of 6 targets are met" in text and text.count("Not measured.") == 8 and not images
    for lang in LANGUAGES:
        for who in ("token_lm", "nearest_train"):
            del found["writing"]["data"]["languages"][lang]["items"]["summarize"][who]
    assert [verdict for _, verdict in verdicts(found)[3:5]] == ["not measured"] * 2


def test_a_language_without_a_rival_is_said_to_be_missing(found):
    del found["writing"]["data"]["languages"]["fra_Latn"]["items"]["summarize"]["nearest_train"]
    rows = verdicts(found)
    assert rows[3][0].endswith("(in 2 of 3 languages)") and rows[3][1] == "met"
    assert "beats the nearest training text by 3.0 [3.0, 3.0] (in 2 of 3 languages)" in page(found, command)[0]


def test_the_page_concludes_from_the_figures(found):
    text, _ = page(found, command)
    for part in ("round_trip", "noise", "translation", "search", "next_concept", "writing", "zero_shot", "shipping"):
        assert f"```\n{command(part)}\n```" in text
    assert "English is 12.5 above the target of 70." in text
    assert "from 64.0 (French) to 82.5 (English)" in text
    assert "these reach 32.5 auto-BLEU less than short ones" in text
    assert "the languages keep 75 % of their auto-BLEU" in text
    assert "above copying beyond both intervals in 1 of 1 directions" in text
    assert "that is 67." in text  # (0.9 - 0.8) / (0.95 - 0.8)
    assert "the wording of the source helps here" in text
    assert "The independent encoder errs less, by 2.0 points." in text
    assert "the model beats the last sentence again by 0.100 [0.050, 0.150]" in text
    assert "30.0 \\*" not in text and "25.0*" in text  # a star beside what differs
    assert "does not beat the token model: 2.0 behind" in text
    assert "which reaches the target of 80 %" in text
    assert "Rounding costs 0.75 auto-BLEU on average" in text
    assert "opened in 1.20 s" in text
    assert "Not measured: no summaries." in text and "Not measured: no twins." in text
    assert "{" not in text.replace("\\{", "") and not re.search(r"\b(None|nan|inf)\b", text)

    data = copy.deepcopy(found)
    data["round_trip"]["data"]["classes"]["short"]["eng_Latn"] = tripped(60.0)
    data["search"]["data"]["pairs"]["eng_Latn deu_Latn"]["judge"]["margin"] = errors(5.0)
    data["zero_shot"]["data"]["deu_Latn"] = zero_shot_of("deu_Latn", 9.0)
    text, _ = page(data, command)
    assert "English is 10.0 below the target of 70." in text
    assert "no more than the independent encoder's, by 1.0 points" in text
    assert "which does not reach the target of 80 %" in text


def test_tables_have_as_many_cells_as_columns(found):
    text, _ = page(found, command)
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    assert len(blocks) > 12
    for block in blocks:
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in block.strip().splitlines()]
        assert len(set(cells)) == 1, block
    assert text.count("<details>") == text.count("</details>")


def test_drawings_are_small_files_of_their_own(found, tmp_path):
    files = write(found, command, tmp_path / "docs" / "results.md")
    text = files[0].read_text()
    drawings = files[1:]
    assert [one.name for one in drawings] == ["results-noise.svg", "results-translation.svg", "results-search.svg"]
    for one in drawings:
        assert f"](images/{one.name})" in text
        assert 1000 < one.stat().st_size < MOST_BYTES
        root = ElementTree.parse(one).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not list(root.iter("{http://www.w3.org/2000/svg}image"))
    noise = drawings[0].read_text()
    assert noise.count("<polyline") == len(LANGUAGES) and "German" in noise
    assert write(found, command, tmp_path / "docs" / "results.md")[0].read_text() == text


def test_texts_of_a_corpus_stay_texts(found):
    text, _ = page(found, command)
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "characters more)" in text
    assert literal("a | b_c_ `d` [e](f)") == "a \\| b\\_c\\_ \\`d\\` \\[e\\](f)"
    assert literal("- a") == "&#8203;- a" and literal("1. a") == "&#8203;1. a"
    assert literal("") == "*nothing*"
    assert literal("abc def", 3) == "abc … *(4 characters more)*"


def test_comparisons_say_what_is_chance():
    assert against(one(2.0), "it") == "beats it by 2.0 [1.0, 3.0]"
    assert against(one(0.5), "it") == "is ahead of it by 0.5, within chance [−0.5, 1.5]"
    assert against(one(-2.0), "it") == "does not beat it: 2.0 behind [−3.0, −1.0]"
    assert against(one(-0.5), "it") == "does not beat it: 0.5 behind, within chance [−1.5, 0.5]"
    assert against(one(0.0), "it").startswith("does not beat it: 0.0 behind, within chance")
    assert against({"value": None, "low": None, "high": None}, "it") == "cannot be compared with it"
    assert figure({"value": None, "low": None, "high": None}) == "–"
    assert figure(one(-0.01, 0.0)) == "0.0 [0.0, 0.0]"
    assert table(["a"], [["1.0 [−2.0, 3.0]"]])[2] == "| 1.0\u00a0[−2.0,\u00a03.0] |"
    assert table(["a", "b", "c"], [[1, 2, 3]]) == ["| a | b | c |", "| --- | ---: | ---: |", "| 1 | 2 | 3 |", ""]


def test_items_of_languages_are_taken_together_by_document():
    groups = [
        {"ids": ["a", "b#2"], "model": {"m": [10.0, 20.0]}, "other": {"m": [5.0, None]}},
        {"ids": ["a", "c"], "model": {"m": [30.0, 40.0]}, "other": {"m": [5.0, 5.0]}},
    ]
    assert pooled(groups, "model", "m")["value"] == 25.0
    apart = pooled(groups, "model", "m", "other")
    assert apart["value"] == pytest.approx((5 + 25 + 35) / 3) and apart["n"] == 3
    share = shares(groups, groups[0], "model", "m")
    assert share["value"] == pytest.approx((100 + 100 * 35 / 15) / 2)
    nothing = {"ids": ["a"], "model": {"m": [0.0]}}
    assert shares(groups, nothing, "model", "m")["value"] != shares(groups, nothing, "model", "m")["value"]

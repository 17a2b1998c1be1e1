"""The sections of the page about the concept model and what ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from largeconcept.eval.records import Difference, corrected_differences
from largeconcept.eval.report.tables import title_of
from results_parts.codec_sections import Images
from results_parts.targets import ENGLISH, ZERO_SHOT
from results_parts.text import against, apart, figure, folded, listed, literal, name, number, pooled, shares, table

NAMES = {
    "model": "**the model**",
    "lead_1": "lead-1",
    "lead_3": "lead-3",
    "copy_last": "last sentence again",
    "mean_vector": "mean vector",
    "training_mean": "training mean",
    "nearest_train": "nearest training text",
    "token_lm": "token model",
    "shuffled": "another text's (control)",
    "reference": "the author",
    "truth": "the truth",
}
HEADS = {
    "copy_last": "last again",
    "nearest_train": "nearest text",
    "shuffled": "another's",
    "reference": "author",
}
"""Shorter names, where each has a column."""
COLUMNS = {
    "rouge_l": 1,
    "chrf": 1,
    "repetition_4": 3,
    "distinct_2": 3,
    "length_ratio": 2,
    "overlap_3": 3,
    "similarity": 3,
    "coherence": 3,
    "perplexity": 1,
}
"""Metric → digits, in the order of columns."""
TASKS = {
    "summarize": ("Summaries", "The summary that a text came with is the reference."),
    "expand": ("Expansions", "The summary is read, and the text it came with is the reference."),
    "continuation": (
        "Continuations",
        "The beginning of a text is read; the author's next sentences are the reference.",
    ),
    "summarize_into": (
        "Summaries in another language",
        "A text is read in one language and summarised in another; the summary of its translation is the reference.",
    ),
}
RIVALS = ("lead_1", "nearest_train", "token_lm")
_LONGEST = 420


def label(predictor: str) -> str:
    """Return what a predictor is called in a table."""
    return NAMES.get(predictor, predictor.replace("_", " "))


def spoken(predictor: str) -> str:
    """Return what a predictor is called in a sentence."""
    name = label(predictor)
    return name if name.startswith(("lead-", "the ")) else f"the {name}"


def next_concept(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return how near predicted concepts are to the true ones."""
    task = data["task"]
    if task is None:
        return [f"Left out: {listed([f'{key}: {why}' for key, why in data['left_out'].items()])}.", ""]
    digits = {"l2": 2, "round_trip_l2": 2}
    metrics = list(task["metrics"])
    stars = _stars(task["differences"])
    rows = [
        [label(who), *(figure(group.get(one), digits.get(one, 3)) + stars(who, one) for one in metrics)]
        for who, group in task["scores"].items()
    ]
    lines = [
        "At every place of a held-out text the model predicts the next concept from the true ones before it: "
        f"{task['settings']['num_predictions']:,} predictions in {task['n']:,} documents. `l2` is the distance to the "
        "true concept, also after writing and reading the prediction again (`round-trip l2`); contrastive accuracy is "
        "the share of concepts of other texts that are farther away than the true one, 0.5 is chance; paraphrase above "
        "1 means that the model repeats more than the author. Never choose between models by `l2` alone: the mean of "
        "all that could follow is near everything and says nothing.",
        "",
        *table(["", *(_title(one, task["metrics"][one]) for one in metrics)], rows),
    ]
    accuracy = {
        who: group["contrastive_accuracy"]
        for who, group in task["differences"].items()
        if "contrastive_accuracy" in group
    }
    if accuracy:
        words = [against(one, spoken(who), 3) for who, one in accuracy.items() if one["value"] is not None]
        lines += [f"By contrastive accuracy the model {listed(words)}."]
    return [*lines, *_notes(task), ""]


def writing(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return how what is written compares with what people wrote."""
    lines = [
        "Every predictor writes the same held-out texts, and what it writes is compared with what people wrote. lead-1 "
        "and lead-3 are the first sentences of the text; the nearest training text answers with what stood there; "
        "`another text's` is a control that must be worse; `the author` shows the figures of human text. A star marks "
        "what differs from the model beyond chance (p < 0.05, corrected for the number of predictors).",
        "",
    ]
    for task, (title, about) in TASKS.items():
        groups = {lang: one for lang, one in data["languages"].items() if task in one["tasks"]}
        if task == "summarize_into" and task in data["into"]["tasks"]:
            groups = {"": data["into"]}
        lines += [f"#### {title}", "", about, ""]
        if not groups:
            reasons = {one["left_out"].get(task) for one in [*data["languages"].values(), data["into"]]} - {None}
            lines += [f"Not measured: {listed(sorted(map(str, reasons)))}.", ""]
            continue
        items = [one["items"][task] for one in groups.values()]
        if len(groups) > 1:
            lines += [*_by_language(groups, task, "rouge_l"), *_by_language(groups, task, "chrf")]
        shown = ENGLISH if ENGLISH in groups else next(iter(groups))
        for lang, one in groups.items():
            rows = [*_full(one["tasks"][task]), *_notes(one["tasks"][task])]
            if lang == shown:
                title_row = [f"{name(lang)}, all figures:", ""] if lang else []
                lines += [*title_row, *rows]
            else:
                lines += folded(f"{name(lang)}, all figures", rows)
        words = []
        for rival in RIVALS:
            known = [one for one in items if rival in one]
            if known:
                among = "" if len(known) == len(items) else f" (in {len(known)} of {len(items)} languages)"
                words.append(against(pooled(known, "model", "rouge_l", rival), spoken(rival)) + among)
        if words:
            lines += [f"Over all these texts the model, by ROUGE-L, {listed(words)}.", ""]
        rows = [row for one in groups.values() for row in one["samples"][task]]
        lines += folded(f"{title}: {len(rows)} samples, drawn by the seed and not by hand", _samples(rows))
    return lines


def _by_language(groups: Mapping[str, Any], task: str, metric: str) -> list[str]:
    present = {who for one in groups.values() for who in one["tasks"][task]["scores"]}
    order = [who for who in NAMES if who in present]
    rows = []
    for lang, one in groups.items():
        scores, stars = one["tasks"][task]["scores"], _stars(one["tasks"][task]["differences"])
        cells = [
            figure(scores[who].get(metric)) if who == "model" else number(_value(scores.get(who, {}), metric))
            for who in order
        ]
        rows.append([name(lang), one["tasks"][task]["n"], *(c + stars(w, metric) for c, w in zip(cells, order))])
    return [
        f"{title_of(metric)}, by language:",
        "",
        *table(["", "texts", *(HEADS.get(who, label(who)) for who in order)], rows),
    ]


def _full(task: Mapping[str, Any]) -> list[str]:
    metrics = [one for one in COLUMNS if one in task["metrics"]]
    stars = _stars(task["differences"])
    order = [who for who in NAMES if who in task["scores"]] + [who for who in task["scores"] if who not in NAMES]
    rows = []
    for who in order:
        group = task["scores"][who]
        cells = [
            (
                figure
                if who == "model" and one in ("rouge_l", "chrf")
                else lambda score, digits: number(_of(score), digits)
            )(group.get(one), COLUMNS[one])
            + stars(who, one)
            for one in metrics
        ]
        rows.append([label(who), *cells])
    return table([f"{task['n']} texts", *(_title(one, task["metrics"][one]) for one in metrics)], rows)


def _of(score: Mapping[str, Any] | None) -> float | None:
    return None if score is None else score.get("value")


def _value(group: Mapping[str, Any], metric: str) -> float | None:
    return _of(group.get(metric))


def _title(metric: str, way: str) -> str:
    return f"{title_of(metric)} {({'higher': '↑', 'lower': '↓'}).get(way, '')}".strip()


def _stars(differences: Mapping[str, Any]) -> Any:
    """Return a function of predictor and metric to a star, where the difference to the model is not chance."""
    made = {who: {one: Difference(**found) for one, found in group.items()} for who, group in differences.items()}
    corrected = corrected_differences(made)

    def star(who: str, metric: str) -> str:
        found = corrected.get(who, {}).get(metric)
        return apart(None if found is None else {"p": found.p})

    return star


def _notes(task: Mapping[str, Any]) -> list[str]:
    notes = [*task["extra"].get("notes", []), *(f"without {who}: {why}" for who, why in task["left_out"].items())]
    return [*(f"*{literal(note)}*<br>" for note in notes), ""] if notes else []


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        ways = (
            name(row["lang"])
            if row["target_lang"] == row["lang"]
            else f"{name(row['lang'])} → {name(row['target_lang'])}"
        )
        lines += [
            f"**{ways}**, `{row['id'].replace('`', '')}`",
            "",
            f"> {literal(' '.join(row['source']), _LONGEST)}",
            "",
        ]
        for who, text in row["outputs"].items():
            score = row["rouge_l"].get(who)
            known = "" if score is None else f" (ROUGE-L {number(score, 0)})"
            lines += [f"- {label(who)}{known}: {literal(text, _LONGEST)}"]
        lines += [f"- the author: {literal(' '.join(row['reference']), _LONGEST)}", ""]
    return lines


# ---------------------------------------------------------------------- zero-shot


def zero_shot(data: Mapping[str, Any], images: Images, every: Mapping[str, Any]) -> list[str]:
    """Return what a model tuned on English alone does elsewhere.

    Args:
        data: what was measured.
        images: drawings so far.
        every: language → items of the model that saw all languages.
    """
    known = {lang: one for lang, one in data.items() if "task" in one}
    if not known:
        return ["The model that was tuned on English alone cannot summarise.", ""]
    rows = []
    for lang, one in known.items():
        scores = one["task"]["scores"]
        same = lang in every and every[lang]["ids"] == one["items"]["ids"]
        whole = pooled([every[lang]], "model", "rouge_l")["value"] if same else None
        share = lead = "–"
        if ENGLISH in known:
            base = known[ENGLISH]["items"]
            share = figure(shares([one["items"]], base, "model", "rouge_l"), 0, " %")
            lead = number(shares([one["items"]], base, "lead_1", "rouge_l")["value"], 0) + " %"
        rows.append(
            [
                name(lang),
                one["task"]["n"],
                figure(scores["model"].get("rouge_l")),
                figure(scores["model"].get("chrf")),
                number(_value(scores["lead_1"], "rouge_l")),
                number(whole),
                share,
                lead,
            ]
        )
    lines = [
        "Concepts are the same in all languages, so a concept model that was tuned on English alone should summarise "
        "texts of other languages too, which it never saw (the decoder that writes them has learnt from summaries in "
        "all languages). Each text is summarised in its own language. The last two "
        "columns say what share of the English figure is reached, by the model and by lead-1; that of lead-1 tells how "
        "much of a difference is the texts' and not the model's.",
        "",
        *table(
            ["", "texts", "ROUGE-L", "chrF", "lead-1", "tuned on all languages", "of English", "lead-1, of English"],
            rows,
        ),
    ]
    others = [one["items"] for lang, one in known.items() if lang != ENGLISH]
    if ENGLISH in known and others:
        share = shares(others, known[ENGLISH]["items"], "model", "rouge_l")
        ahead = against(pooled(others, "model", "rouge_l", "lead_1"), "lead-1")
        way = "reaches" if share["value"] >= ZERO_SHOT else "does not reach"
        lines += [
            f"On average over the other languages that is {figure(share, 0, ' %')} of the English figure, which "
            f"{way} the target of {ZERO_SHOT:g} %. On them the model {ahead}.",
            "",
        ]
    rows = [row for one in known.values() for row in one["samples"]]
    return [*lines, *folded(f"Zero-shot: {len(rows)} samples, drawn by the seed", _samples(rows))]


# ---------------------------------------------------------------------- what ships


def shipping(data: Mapping[str, Any], images: Images) -> list[str]:
    """Return size, time to open, and what rounding costs."""
    counts, opened = data["parameters"], data["opened"]
    wall = sorted(one[0] for one in opened)
    parts = sorted(data["parts"].items(), key=lambda row: -row[1])
    lines = [
        f"The codec has {counts['codec'] / 1e6:.1f} million parameters, the concept model ({counts['family']}) "
        f"{counts['model'] / 1e6:.1f} million; all files together are {data['bytes'] / 2**20:.1f} MiB. It is opened in "
        f"{number(wall[len(wall) // 2], 2)} s (median of {len(wall)} new processes, imports included).",
        "",
        *table(["", "KiB"], [[f"`{literal(path)}`", f"{size / 1024:,.0f}"] for path, size in parts if size >= 1024]),
    ]
    found = data.get("rounding")
    if not found:
        return [*lines, "What rounding weights to int8 costs was not measured: that needs the weights before it.", ""]
    whole, rounded = found["float"], found["int8"]
    rows: list[list[str]] = [
        ["MiB", f"{whole['bytes'] / 2**20:.1f}", f"{rounded['bytes'] / 2**20:.1f}"],
        ["next concept, l2 ↓", number(whole["l2"], 3), number(rounded["l2"], 3)],
        [
            "contrastive accuracy ↑",
            number(whole["contrastive_accuracy"], 4),
            number(rounded["contrastive_accuracy"], 4),
        ],
    ]
    both = [lang for lang in whole["auto_bleu"] if lang in rounded["auto_bleu"]]
    rows += [
        [f"auto-BLEU, {name(lang)} ↑", number(whole["auto_bleu"][lang]), number(rounded["auto_bleu"][lang])]
        for lang in both
    ]
    losses = {lang: whole["auto_bleu"][lang] - rounded["auto_bleu"][lang] for lang in both}
    lines += ["Weights are stored as int8 with a scale for each row:", "", *table(["", "float32", "int8"], rows)]
    if losses:
        worst = max(losses, key=losses.__getitem__)
        lines += [
            f"Rounding costs {number(sum(losses.values()) / len(losses), 2)} auto-BLEU on average, most in "
            f"{name(worst)} ({number(losses[worst], 2)})."
        ]
    return [*lines, ""]

"""Tables of a report: predictors as rows, what is best, and whether a difference to the model could be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from largeconcept.eval.records import ARROWS, MODEL, Difference, Score, corrected_differences
from largeconcept.eval.report.charts import interval_bar, short
from largeconcept.eval.report.markup import Child, Markup, tag
from largeconcept.eval.report.reading import PlainTable, finite, interval
from largeconcept.languages import is_language_tag, language_name

if TYPE_CHECKING:
    from largeconcept.eval.records import TaskResult

LEVEL = 0.05
"""Differences with a smaller p-value, corrected for the number of predictors (or, without a p-value, an interval that
does not hold 0), are not taken for chance."""
NOT_RANKED = frozenset({"truth", "reference", "control", "shuffled"})
"""Rows that are no competitors: what people wrote, and controls."""

_MOST_COLUMNS = 7
"""Metrics that fit beside one another on a page."""
_LONG = 12
"""Rows of a recorded table from which it is folded up."""

_WORDS = {"higher": "higher is better", "lower": "lower is better", "none": "no direction"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a predictor compares with the model in one metric.

    Attributes:
        kind: ``worse`` or ``better`` than the model, ``alike`` (could be chance), or ``differs`` where neither more nor
            less is better.
        p: the p-value, if a test was made.
        tip: the difference in figures.
    """

    kind: str
    p: float | None
    tip: str


def verdict(difference: Difference | None, direction: str) -> Verdict | None:
    """Judge *model minus predictor*, its p-value corrected already; ``None`` where nothing is known."""
    if difference is None:
        return None
    value, p = finite(difference.value), finite(difference.p)
    low, high = finite(difference.low), finite(difference.high)
    if value is None or (p is None and (low is None or high is None)):
        return None
    certain = p < LEVEL if p is not None else not (low is not None and high is not None and low <= 0 <= high)
    both = interval(difference)
    tip = f"model minus this: {signed(value, both)}"
    if both is not None:
        tip += f" [{signed(both[0], both)}, {signed(both[1], both)}]"
    if p is not None:
        tip += f", corrected p {p_text(p)}"
    if not certain or value == 0:
        return Verdict("alike", p, tip)
    if direction not in ("higher", "lower"):
        return Verdict("differs", p, tip)
    return Verdict("worse" if (value > 0) == (direction == "higher") else "better", p, tip)


def ranked(name: str) -> bool:
    """Return whether a predictor is a competitor."""
    return name.split(":")[0] not in NOT_RANKED


def best_of(rows: Sequence[tuple[str, dict[str, Score]]], metric: str, direction: str) -> set[int]:
    """Return which rows have the best value of a metric, ``truth`` and controls apart."""
    if direction not in ("higher", "lower"):
        return set()
    sign = 1.0 if direction == "higher" else -1.0
    values = {
        i: sign * value
        for i, (name, group) in enumerate(rows)
        if ranked(name) and metric in group and (value := finite(group[metric].value)) is not None
    }
    if len(values) < 2:
        return set()
    top = max(values.values())
    return {i for i, value in values.items() if value == top}


def task_table(caption: str, groups: Sequence[tuple[str, TaskResult]], comparable: bool = True) -> Markup:
    """Return a task's table: a row for each predictor of each run.

    Args:
        caption: said to those who cannot see the heading above it.
        groups: label of a run and its result; the label is shown where there are several.
        comparable: the runs had the same items, so that one best of all is marked, not one of each run.
    """
    metrics = list(dict.fromkeys(metric for _, result in groups for metric in result.metrics))
    directions = {m: d for _, result in reversed(groups) for m, d in result.metrics.items()}
    corrected = [corrected_differences(result.differences) for _, result in groups]
    rows = [
        (label, name, scores, differences.get(name, {}), result.left_out.get(name))
        for (label, result), differences in zip(groups, corrected, strict=True)
        for name, scores in [
            *sorted(result.scores.items(), key=lambda one: one[0] != MODEL),
            *((name, {}) for name in result.left_out if name not in result.scores),
        ]
    ]
    metrics = [m for m in metrics if any(m in scores for _, _, scores, _, _ in rows)]
    plain = [(name, scores) for _, name, scores, _, _ in rows]
    labels = [None if comparable else row[0] for row in rows]
    best = {
        m: {
            i
            for label in set(labels)
            for i in best_of([one if at == label else ("", {}) for at, one in zip(labels, plain)], m, directions[m])
        }
        for m in metrics
    }
    ends = {m: _ends([scores[m] for name, scores in plain if m in scores and ranked(name)]) for m in metrics}
    several = len(groups) > 1

    def cell(i: int, metric: str) -> Markup:
        _, name, scores, differences, _ = rows[i]
        found = verdict(differences.get(metric), directions[metric])
        return _cell(scores.get(metric), i in best[metric], found, ends[metric] if ranked(name) else None)

    measured = [i for i, (_, _, scores, _, _) in enumerate(rows) if scores]
    if len(measured) <= 2 < len(metrics):  # figures of a codec: many of few
        names = [f"{rows[i][1].replace('_', ' ')}{f', {rows[i][0]}' if several else ''}" for i in measured]
        columns = [tag("th", name, scope="col", class_="number") for name in names]
        lines = [tag("tr", _metric_head(m, directions[m], "row"), [cell(i, m) for i in measured]) for m in metrics]
        made = _table(caption, [tag("th", "Metric", scope="col"), *columns], lines, "scores narrow")
        reasons = [f"{name} left out: {reason}" for _, name, scores, _, reason in rows if reason and not scores]
        return tag("div", made, [tag("p", one, class_="note") for one in reasons])
    # Twenty columns can be neither seen at once nor printed: they stand below one another, some of them each.
    parts = -(-len(metrics) // _MOST_COLUMNS)
    size = -(-len(metrics) // max(parts, 1))
    made_tables = []
    for start in range(0, len(metrics), max(size, 1)):
        some = metrics[start : start + size]
        body: list[Markup] = []
        shown = None
        for i, (label, name, scores, _, reason) in enumerate(rows):
            if several and label != shown:
                body.append(tag("tr", tag("th", label, scope="rowgroup", colspan=len(some) + 1), class_="group"))
                shown = label
            title = tag("th", name.replace("_", " "), scope="row")
            if reason is not None and not scores:
                body.append(tag("tr", title, tag("td", f"left out: {reason}", colspan=len(some), class_="why")))
                continue
            kind = "model" if name == MODEL else None if ranked(name) else "aside"
            body.append(tag("tr", title, [cell(i, m) for m in some], class_=kind))
        said = caption if parts == 1 else f"{caption}: {', '.join(title_of(m) for m in some)}"
        head = [tag("th", "Predictor", scope="col"), *(_metric_head(m, directions[m]) for m in some)]
        made_tables.append(_table(said, head, body))
    return made_tables[0] if len(made_tables) == 1 else tag("div", made_tables)


def _table(caption: str, head: Sequence[Markup], body: Sequence[Markup], kind: str = "scores") -> Markup:
    parts = (tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return scrolled(tag("table", *parts, class_=kind), caption)


def scrolled(table: Markup, label: str) -> Markup:
    """Let a wide table scroll by itself, with the keyboard too."""
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def plain_table(table: PlainTable) -> Markup:
    """Return a recorded table as it is, numbers to the right; a long one is folded up."""
    numbers = [all(_is_number(row[i]) for row in table.rows if i < len(row)) for i in range(len(table.columns))]
    kinds = ["number" if i and is_number else None for i, is_number in enumerate(numbers)]
    head = [tag("th", column, scope="col", class_=kind) for column, kind in zip(table.columns, kinds)]
    body = [
        tag(
            "tr",
            tag("th", row[:1], scope="row"),
            [tag("td", one, class_=kind) for one, kind in zip(row[1:], kinds[1:])],
        )
        for row in table.rows
    ]
    made = _table(table.title, head, body, "plain")
    return made if len(body) <= _LONG else tag("details", tag("summary", f"{len(body)} rows"), made)


def _is_number(cell: str) -> bool:
    return cell == "–" or cell.lstrip("+-−").replace(".", "", 1).replace("e-", "", 1).replace("e+", "", 1).isdigit()


def badge(found: Verdict) -> Markup:
    """Return a verdict in words, with the figures as a tooltip."""
    words = {"alike": "≈ alike", "differs": "differs"}.get(found.kind, found.kind)
    p = None if found.p is None else tag("span", f"p {p_text(found.p)}", class_="p")
    return tag("span", words, " " if p else None, p, class_=f"badge {found.kind}", title=found.tip)


def p_text(p: float) -> str:
    """Return a p-value as papers write it."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def signed(value: float, both: tuple[float, float] | None = None) -> str:
    """Return a number with its sign, and with as many digits as its interval makes sense of."""
    return f"+{figure_text(value, both)}" if value > 0 else figure_text(value, both)


def figure_text(value: float, both: tuple[float, float] | None) -> str:
    """Return a number with as many digits as its interval makes sense of: the width of that with two."""
    if both is None or both[1] <= both[0] or abs(value) >= 1e5:
        return short(value)
    digits = min(max(1 - math.floor(math.log10(both[1] - both[0])), 0), 4)
    return f"{value:.{digits}f}".replace("-", "−")


def title_of(metric: str) -> str:
    """Return the name of a metric as people write it."""
    known = {
        "l2": "ℓ₂ distance",
        "contrastive_accuracy": "Contrastive accuracy",
        "contrastive_accuracy_in_batch": "Contrastive accuracy, in batch",
        "round_trip_l2": "Round-trip ℓ₂",
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "rouge_l": "ROUGE-L",
        "rouge_lsum": "ROUGE-Lsum",
        "chrf": "chrF",
        "bleu": "BLEU",
        "auto_bleu": "Auto-BLEU",
        "overlap_3": "OVL-3",
        "repetition_4": "REP-4",
        "seq_rep_4": "seq-rep-4",
        "cola": "CoLA",
        "bert_score": "BERTScore",
        "blaser_qe": "BLASER QE",
        "blaser_ref": "BLASER",
        "mutox": "MuTox",
        **{f"seahorse_q{n}": f"SEAHORSE {n}" for n in range(1, 7)},
        "mauve": "MAUVE",
        "divergence": "Divergence",
        "brier_lm": "BrierLM",
        "translation_chrf": "Translation chrF",
        "xsim": "xsim",
        "xsim_hard": "xsim, hard",
    }
    base, _, part = metric.partition("/")
    words = base.replace("_", " ")
    title = known.get(base, words[:1].upper() + words[1:])
    return f"{title}, {part_title(part)}" if part else title


def part_title(name: str) -> str:
    """Return the name of a language, or the word itself without underscores."""
    return language_name(name) if "_" in name and is_language_tag(name) else name.replace("_", " ")


# --- inside ----------------------------------------------------------------------------------------------------------


def _metric_head(metric: str, direction: str, scope: str = "col") -> Markup:
    arrow = ARROWS.get(direction, "")
    mark: Child = None
    if arrow:
        mark = tag("abbr", tag("span", arrow, aria_hidden="true"), hidden(_WORDS[direction]), title=_WORDS[direction])
    return tag(
        "th", title_of(metric), " " if mark else None, mark, scope=scope, class_="number" if scope == "col" else None
    )


def hidden(text: str) -> Markup:
    """Return text for screen readers alone."""
    return tag("span", text, class_="hidden")


def _cell(score: Score | None, is_best: bool, found: Verdict | None, ends: tuple[float, float] | None) -> Markup:
    value = None if score is None else finite(score.value)
    if score is None or value is None:
        return tag("td", tag("span", "–", class_="quiet"), class_="number")
    both = interval(score)
    mark = [tag("span", "best", class_="badge best"), " "] if is_best else None
    parts: list[Child] = [tag("span", mark, figure_text(value, both), class_="figure")]
    if both is not None:
        text = f"{figure_text(both[0], both)} – {figure_text(both[1], both)}"
        parts.append(tag("span", text, class_="interval"))
        if ends is not None:
            parts.append(interval_bar(both[0], value, both[1], ends))
    if found is not None:
        parts.append(badge(found))
    return tag("td", parts, class_="number best" if is_best else "number")


def _ends(scores: Sequence[Score]) -> tuple[float, float] | None:
    """The scale of a metric's drawings: all its intervals, where there are some to compare."""
    if len(scores) < 2:
        return None
    found = [end for score in scores if (both := interval(score)) is not None for end in both]
    return (min(found), max(found)) if found else None


__all__ = [
    "LEVEL",
    "Verdict",
    "badge",
    "best_of",
    "figure_text",
    "hidden",
    "p_text",
    "part_title",
    "plain_table",
    "ranked",
    "scrolled",
    "signed",
    "task_table",
    "title_of",
    "verdict",
]

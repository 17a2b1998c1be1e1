"""Figures, tables and sentences of the page; every conclusion is computed from figures."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from largeconcept.data.documents import name_of
from largeconcept.eval.metrics.corpus_scores import by_document
from largeconcept.eval.statistics import Array, difference, estimate, per_document, ratio
from largeconcept.languages import language_name

Scores = Mapping[str, Any]
"""A score as plain data: value, low, high, n."""


def figure(score: Scores | None, digits: int = 1, unit: str = "") -> str:
    """Return a value with its interval."""
    if score is None or score.get("value") is None:
        return "–"
    low, high = score.get("low"), score.get("high")
    both = "" if low is None or high is None else f" [{number(low, digits)}, {number(high, digits)}]"
    return f"{number(score['value'], digits)}{unit}{both}"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number as it stands in a table."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], way: str = "---:") -> list[str]:
    """Return a table; columns but the first are figures, where ``way`` does not say otherwise."""
    ways = ["---", *(way for _ in head[1:])]
    return [f"| {' | '.join(_whole(str(cell)) for cell in row)} |" for row in (head, ways, *rows)] + [""]


def _whole(cell: str) -> str:
    """Keep a value and its interval on one line."""
    return re.sub(r"(?<=[\d%]) (?=\[)|(?<=\d,) (?=[−\d])|(?<=\d) (?=%)", "\u00a0", cell)


def name(lang: str) -> str:
    """Return the English name of a language."""
    return language_name(lang)


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def literal(text: object, most: int | None = None) -> str:
    """Return a text that means nothing to Markdown or HTML; a long one is cut, which is said."""
    plain = " ".join(str(text).split())
    rest = 0 if most is None else len(plain) - most
    plain = plain[:most].rstrip() if rest > 0 else plain
    safe = re.sub(r"([\\`*_{}\[\]#|~$@:])", r"\\\1", html.escape(plain, quote=False))
    safe = re.sub(r"^([-+=]|\d+(?=[.)]))", r"&#8203;\1", safe)  # at the beginning of a line these make lists
    return (safe or "*nothing*") + (f" … *({rest:,} characters more)*" if rest > 0 else "")


def folded(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are shown on demand."""
    return ["<details>", f"<summary>{html.escape(title, quote=False)}</summary>", "", *lines, "</details>", ""]


def against(found: Scores, other: str, digits: int = 1, unit: str = "") -> str:
    """Return how the model compares with another one, from model − other: what follows "the model"."""
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return f"cannot be compared with {other}"
    both = f"[{number(low, digits)}, {number(high, digits)}]"
    size = f"{number(abs(value), digits)}{unit}"
    if value > 0:
        return f"beats {other} by {size} {both}" if low > 0 else f"is ahead of {other} by {size}, within chance {both}"
    behind = f"does not beat {other}: {size} behind"
    return f"{behind} {both}" if high < 0 else f"{behind}, within chance {both}"


def apart(found: Scores | None) -> str:
    """Return a star where a difference is not chance."""
    return "*" if found is not None and found.get("p") is not None and found["p"] < 0.05 else ""


# ---------------------------------------------------------------------- items of several languages


def pooled(groups: Sequence[Mapping[str, Any]], left: str, metric: str, right: str | None = None) -> dict[str, Any]:
    """Return a predictor's mean over the items of all groups, or left minus right; documents are resampled.

    Args:
        groups: items as :func:`results_parts.model_parts.items` has them, of each language.
        left: a predictor.
        metric: of items.
        right: another predictor.
    """
    here, labels = _values(groups, left, metric)
    if right is None:
        found = estimate(per_document(here, labels), ratio, n=len(here))
        return {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    there, _ = _values(groups, right, metric)
    both = [not math.isnan(a) and not math.isnan(b) for a, b in zip(here, there, strict=True)]
    rows = [[one for one, known in zip(side, both) if known] for side in (here, there, labels)]
    if not rows[0]:
        return {"value": None, "low": None, "high": None, "n": 0, "p": None}
    apart = difference(per_document(rows[0], rows[2]), per_document(rows[1], rows[2]), ratio, n=len(rows[0]))
    return {"value": apart.mean, "low": apart.low, "high": apart.high, "n": apart.n, "p": apart.p}


def shares(
    groups: Sequence[Mapping[str, Any]], base: Mapping[str, Any], predictor: str, metric: str, other: str | None = None
) -> dict[str, Any]:
    """Return the mean over groups of a predictor's mean as a share of that in ``base``, in per cent.

    Args:
        groups: items, one group for each share.
        base: items of what is 100 %.
        predictor: whose figures.
        metric: of items.
        other: the predictor of ``base``, if another one.
    """
    sides = [(one, predictor) for one in groups] + [(base, other or predictor)]
    counts: list[Array] = []
    labels: list[list[str]] = []
    for one, who in sides:
        values, names = _values([one], who, metric)
        known = [(value, label) for value, label in zip(values, names, strict=True) if not math.isnan(value)]
        counts.append(np.array([[value, 1.0] for value, _ in known]).reshape(-1, 2))
        labels.append([label for _, label in known])

    def statistic(sums: Array) -> Array:
        means = ratio(sums.reshape(*sums.shape[:-1], len(sides), 2))
        base_mean = np.where(means[..., -1:] > 0, means[..., -1:], np.nan)  # of nothing there is no share
        return np.asarray(100 * (means[..., :-1] / base_mean).mean(axis=-1))

    found = estimate(by_document(counts, labels), statistic, n=sum(map(len, counts)))
    return {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _values(groups: Sequence[Mapping[str, Any]], predictor: str, metric: str) -> tuple[list[float], list[str]]:
    values = [math.nan if one is None else one for group in groups for one in group[predictor][metric]]
    return values, [name_of(id) for group in groups for id in group["ids"]]

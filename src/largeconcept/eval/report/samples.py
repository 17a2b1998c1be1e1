"""Outputs side by side: a few items drawn by seed, what was asked, what people wrote, what each predictor wrote."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from largeconcept.errors import LanguageError
from largeconcept.eval.records import MODEL, TaskResult
from largeconcept.eval.report.compare import Items, items_of
from largeconcept.eval.report.markup import Child, Markup, tag
from largeconcept.eval.report.reading import Run, real
from largeconcept.eval.report.tables import ranked, title_of
from largeconcept.languages import bcp47, language_name

_LONGEST = 600
"""Characters of a text that are shown."""
_METRICS = 4


def side_by_side(task: str, runs: Sequence[tuple[Run, TaskResult]], number: int, seed: int) -> list[Markup]:
    """Return a card for each of ``number`` items drawn by ``seed``; none where no raw outputs were kept.

    Items that the model answered are drawn. Baselines are shown of the first run that has them.

    Raises:
        CheckpointError: a damaged file of raw outputs.
    """
    answers: dict[str, Items] = {}
    for run, result in runs:
        for name in sorted(result.scores, key=lambda one: one != MODEL):
            if not ranked(name):  # the reference is shown anyway, and controls have nothing to say
                continue
            label = f"{name}, {run.label}" if name == MODEL and len(runs) > 1 else name
            if label not in answers and (items := items_of(run, task, name)):
                answers[label] = items
    if not answers:
        return []
    shown = next(iter(answers.values()))
    # Which items are drawn depends on the items and the seed, not on the order in which they were answered.
    chosen = random.Random(seed).sample(sorted(shown), min(number, len(shown)))
    return [_card({label: items[key] for label, items in answers.items() if key in items}) for key in chosen]


def _card(records: Mapping[str, Mapping[str, Any]]) -> Markup:
    first = next(iter(records.values()))
    lang, target = first.get("lang"), first.get("target_lang") or first.get("lang")
    words = language(lang) if target == lang else f"{language(lang)} → {language(target)}"
    source, reference = text_of(first.get("source")), text_of(first.get("reference"))
    answers = [
        tag(
            "div",
            tag("h5", label.replace("_", " ")),
            passage(text_of(record.get("output")), record.get("target_lang") or target),
            _figures(record),
            class_="answer model" if label.split(",")[0] == MODEL else "answer",
        )
        for label, record in records.items()
    ]
    if reference:
        answers.insert(0, tag("div", tag("h5", "Reference"), passage(reference, target), class_="answer truth"))
    asked: Child = None
    if source and source != reference:
        begin = tag("summary", tag("span", "Source", class_="quiet"), " ", _begin(source))
        asked = tag("details", begin, passage(source, lang))
    return tag(
        "article",
        tag("header", tag("h4", plain_id(first)), tag("span", words, class_="chip")),
        asked,
        tag("div", answers, class_="answers"),
        class_="sample",
    )


def plain_id(record: Mapping[str, Any]) -> str:
    """Return the name of an item."""
    return str(record.get("id") or "item")


def text_of(value: object) -> str:
    """Return a text that may be recorded as sentences."""
    if isinstance(value, Mapping):
        value = value.get("text") or value.get("sentences")
    if isinstance(value, list | tuple):
        return " ".join(str(one) for one in value)
    return "" if value is None else str(value)


def passage(text: str, lang: object) -> Markup:
    """Return a text in a language: shortened, isolated in its own direction, and marked for screen readers."""
    if not text.strip():
        return tag("p", tag("em", "nothing was written"), class_="quiet")
    rest = len(text) - _LONGEST
    more: Child = tag("span", f" … {rest:,} characters more", class_="quiet") if rest > 0 else None
    return tag("p", text[:_LONGEST] if rest > 0 else text, more, dir="auto", lang=_tag(lang), class_="text")


def language(code: object) -> str:
    """Return the English name of a language, or the code itself."""
    if not isinstance(code, str):
        return "language unknown"
    try:
        return language_name(code)
    except LanguageError:
        return code


def _tag(code: object) -> str | None:
    if not isinstance(code, str):
        return None
    try:
        return bcp47(code)
    except LanguageError:
        return None


def _begin(text: str) -> Markup:
    return tag("span", text[:90] + ("…" if len(text) > 90 else ""), dir="auto", class_="begin")


def _figures(record: Mapping[str, Any]) -> Markup | None:
    metrics = record.get("metrics")
    if not isinstance(metrics, Mapping):
        return None
    known = [(name, value) for name, one in metrics.items() if (value := real(one)) is not None]
    if not known:
        return None
    parts: list[Child] = []
    for name, value in known[:_METRICS]:
        parts += [" · " if parts else None, tag("span", f"{title_of(str(name))} {value:.3g}")]
    return tag("p", parts, class_="small")


__all__ = ["language", "passage", "side_by_side", "text_of"]

"""Parts of a report's page about evaluations: a summary, and each task with its table, plots and samples."""

from __future__ import annotations

import json
from collections.abc import Sequence

from largeconcept.eval.records import MODEL, Difference, Score, TaskResult, corrected_differences
from largeconcept.eval.report.charts import Series, line_chart, short
from largeconcept.eval.report.compare import compare_models
from largeconcept.eval.report.markup import Child, Markup, tag
from largeconcept.eval.report.reading import Extra, Plot, Run, finite, interval, read_extra
from largeconcept.eval.report.samples import side_by_side
from largeconcept.eval.report.tables import (
    badge,
    figure_text,
    part_title,
    plain_table,
    ranked,
    scrolled,
    signed,
    task_table,
    title_of,
    verdict,
)
from largeconcept.eval.tasks import TASKS

_HEADLINES = frozenset({"contrastive_accuracy", "rouge_l"})
"""Shown in the summary; the distance of concepts would prefer models that predict the mean of what could follow."""

Tasks = dict[str, list[tuple[Run, TaskResult]]]
"""Name of a task -> the runs that have it, and their results."""


def tasks_of(runs: Sequence[Run]) -> Tasks:
    """Gather the tasks of all evaluations."""
    found: Tasks = {}
    for run in runs:
        for name, result in run.evaluation.tasks.items() if run.evaluation is not None else ():
            found.setdefault(name, []).append((run, result))
    return {
        name: found[name] for name in [*(one for one in TASKS if one in found), *(o for o in found if o not in TASKS)]
    }


def section(anchor: str, title: str, *children: Child, lead: Child = None) -> Markup:
    """Return a part with its heading."""
    begin = tag("p", lead, class_="lead") if lead is not None else None
    return tag("section", tag("h2", title), begin, children, id=anchor)


def task_title(name: str) -> str:
    """Return the name of a task as people write it."""
    known = {"next_concept": "Next concept", "summarize_into": "Summary in another language"}
    words = name.replace("_", " ")
    return known.get(name, words[:1].upper() + words[1:])


# --- summary ---------------------------------------------------------------------------------------------------------


def summary(tasks: Tasks) -> Markup:
    """Return a card for each task and run: one metric, beside the best of the other predictors."""
    cards = [
        card
        for name, group in tasks.items()
        for run, result in group
        if (card := _headline(name, run if len(group) > 1 else None, result)) is not None
    ]
    if not cards:
        return Markup("")
    lead = "One metric of each task, beside the best of the other predictors."
    return section("summary", "Summary", tag("div", cards, class_="cards"), lead=lead)


def _headline(name: str, run: Run | None, result: TaskResult) -> Markup | None:
    own = result.scores.get(MODEL, {})
    corrected = corrected_differences(result.differences)
    metrics = sorted(result.metrics.items(), key=lambda one: one[0] not in _HEADLINES)
    for metric, direction in metrics:
        score = own.get(metric)
        if direction == "none" or score is None or finite(score.value) is None:
            continue
        sign = 1.0 if direction == "higher" else -1.0
        others = {
            other: sign * value
            for other, scores in result.scores.items()
            if other != MODEL and ranked(other) and metric in scores
            if (value := finite(scores[metric].value)) is not None
        }
        rival: Child = None
        if others:
            best = max(others, key=lambda one: others[one])
            difference = corrected.get(best, {}).get(metric)
            against = figure_text(sign * others[best], interval(score))
            rival = [f"{best.replace('_', ' ')} {against} ", _against(difference, direction)]
        return tag(
            "a",
            tag("span", task_title(name), f" · {run.label}" if run is not None else None, class_="what"),
            tag("span", title_of(metric), class_="metric"),
            tag("strong", figure_text(finite(score.value) or 0.0, interval(score))),
            tag("span", _range(score), class_="interval"),
            tag("span", rival, class_="rival"),
            href=f"#task-{name}",
            class_="card",
        )
    return None


def _against(difference: Difference | None, direction: str) -> Markup | None:
    """The same verdict as in the tables, seen from the model."""
    found = verdict(difference, direction)
    if found is None:
        return None
    words = {"worse": "model better", "better": "model worse", "alike": "≈ alike", "differs": "differs"}[found.kind]
    kind = {"worse": "good", "better": "bad"}.get(found.kind, found.kind)
    return tag("span", words, class_=f"badge {kind}", title=found.tip)


def _range(score: Score) -> str:
    both = interval(score)
    return "" if both is None else f"{figure_text(both[0], both)} – {figure_text(both[1], both)}"


# --- tasks -----------------------------------------------------------------------------------------------------------


def task_sections(tasks: Tasks, num_samples: int, seed: int) -> list[Markup]:
    """Return each task: its table, plots, comparison of runs and samples."""
    return [_task(name, group, num_samples, seed) for name, group in tasks.items()]


def _task(name: str, group: Sequence[tuple[Run, TaskResult]], num_samples: int, seed: int) -> Markup:
    about = TASKS[name].about if name in TASKS else None
    sizes = sorted({result.n for _, result in group})
    versions = sorted({result.version for _, result in group})
    facts = [
        f"{' / '.join(f'{n:,}' for n in sizes)} items",
        f"version {' / '.join(map(str, versions))} of the task",
    ]
    warnings = []
    if len(versions) > 1:
        warnings.append("The runs measured different versions of this task: their figures cannot be compared.")
    settings = {json.dumps(result.settings, sort_keys=True, default=str) for _, result in group}
    if len(settings) > 1:
        warnings.append("The settings of this task differ between the runs; see the records at the end.")
    if len(sizes) > 1:
        warnings.append("The runs had different numbers of items: compare their figures with care.")
    comparable = not warnings
    extras = [
        (run.label if len(group) > 1 else "", read_extra(result.extra, f"{run.path}: {name}")) for run, result in group
    ]
    table = task_table(f"Scores in the task {name}", [(run.label, result) for run, result in group], comparable)
    cards = side_by_side(name, group, num_samples, seed)
    return section(
        f"task-{name}",
        task_title(name),
        tag("p", " · ".join(facts), class_="facts"),
        [tag("p", one, class_="warning") for one in warnings],
        table,
        [tag("p", one, class_="note") for one in dict.fromkeys(line for _, extra in extras for line in extra.notes)],
        _models(name, group),
        extra_blocks(extras),
        [tag("h3", "Samples"), tag("p", f"{len(cards)} items drawn with seed {seed}.", class_="note"), cards]
        if cards
        else None,
        lead=about,
    )


def _models(name: str, group: Sequence[tuple[Run, TaskResult]]) -> Markup | None:
    """The models of several runs against the first run's, item by item."""
    if len(group) < 2:
        return None
    found = corrected_differences(compare_models(group, name))
    if not found:
        return None
    directions = {m: d for _, result in reversed(group) for m, d in result.metrics.items()}
    metrics = [m for m in directions if any(m in one for one in found.values())]
    rows = []
    for label, differences in found.items():
        cells = []
        for metric in metrics:
            difference = differences.get(metric)
            judged = verdict(difference, directions[metric])
            if difference is None or judged is None or difference.value is None:
                cells.append(tag("td", tag("span", "–", class_="quiet"), class_="number"))
                continue
            both = interval(difference)
            figure = tag("span", signed(difference.value, both), class_="figure")
            words = "" if both is None else f"{signed(both[0], both)} to {signed(both[1], both)}"
            ends = tag("span", words, class_="interval")
            cells.append(tag("td", figure, ends, badge(judged), class_="number"))
        rows.append(tag("tr", tag("th", label, scope="row"), cells))
    first = group[0][0].label
    caption = f"Model of {first} minus the models of the other runs, on the items they share"
    head = tag(
        "tr", tag("th", "Run", scope="col"), [tag("th", title_of(m), scope="col", class_="number") for m in metrics]
    )
    return tag(
        "div",
        tag("h3", "Models against each other"),
        tag("p", f"Model of {first} minus the other run's; verdicts are about the other run.", class_="note"),
        scrolled(
            tag("table", tag("caption", caption), tag("thead", head), tag("tbody", rows), class_="scores"), caption
        ),
    )


def extra_blocks(extras: Sequence[tuple[str, Extra]]) -> list[Markup]:
    """Return recorded plots and tables; each run's label, where it is not empty, is told with them."""
    plots = [_plot(plot, label) for label, extra in extras for plot in extra.plots]
    tables = [
        tag("div", tag("h3", f"{table.title}, {label}" if label else table.title), plain_table(table))
        for label, extra in extras
        for table in extra.tables
    ]
    return [tag("div", plots, class_="plots") if plots else Markup(""), tag("div", tables, class_="tables")]


def _plot(plot: Plot, label: str) -> Markup:
    series = [Series(part_title(name), one.x, one.y, one.low, one.high) for name, one in plot.series.items()]
    title = f"{plot.title}, {label}" if label else plot.title
    drawing = line_chart(title, series, x_label=plot.x_label, y_label=plot.y_label, log_x=plot.log_x, log_y=plot.log_y)
    return tag("div", drawing, _figures(title, plot.x_label, series), class_="with-figures")


def _figures(title: str, x_label: str, series: Sequence[Series]) -> Markup:
    """The figures of a plot, for those who want them or cannot see it."""
    places = sorted({x for one in series for x in one.x})[:60]
    head = tag("tr", tag("th", x_label, scope="col"), [tag("th", one.name, scope="col") for one in series])
    known = [dict(zip(one.x, one.y)) for one in series]
    rows = [
        tag("tr", tag("th", short(x), scope="row"), [tag("td", short(one[x]) if x in one else "–") for one in known])
        for x in places
    ]
    table = tag("table", tag("caption", title), tag("thead", head), tag("tbody", rows))
    return tag("details", tag("summary", "Figures"), scrolled(table, f"Figures: {title}"), class_="figures")


__all__ = ["Tasks", "extra_blocks", "section", "summary", "task_sections", "tasks_of"]

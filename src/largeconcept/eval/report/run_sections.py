"""Parts of a report's page about sweeps, costs and training runs, and what every run depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from largeconcept.eval.report.charts import Series, heat_map, line_chart, short
from largeconcept.eval.report.markup import Child, Markup, tag
from largeconcept.eval.report.reading import Run, TrainingRun, finite, interval
from largeconcept.eval.report.sections import extra_blocks, section
from largeconcept.eval.report.tables import figure_text, p_text, scrolled, signed, title_of
from largeconcept.eval.sweep_results import SettingResult, SweepResult, show

_MOST_SETTINGS = 20
_CURVES = ("loss", "l2", "mse")
_QUIET_CURVES = ("concepts", "skipped")
_LOG_CURVES = frozenset({"grad_norm"})


# --- sweeps ----------------------------------------------------------------------------------------------------------


def sweep_section(runs: Sequence[Run]) -> Markup:
    """Return the grids of sweeps over generation options."""
    found = [(run, run.sweep) for run in runs if run.sweep is not None]
    if not found:
        return Markup("")
    lead = (
        "Every combination of some settings of generation, measured on the same documents with the same noise. “Ties” "
        "could be as good as the best. p-values are of the difference from the settings that the model had before, "
        "corrected for the number of settings (Holm)."
    )
    return section("sweep", "Settings of generation", [_sweep(run, one) for run, one in found], lead=lead)


def _sweep(run: Run, found: SweepResult) -> Markup:
    metric = title_of(found.metric)
    ties = sum(one.ties for one in found.results) - 1
    split = found.settings.get("split")
    of = f"({found.num_predictions:,} predictions)" if found.task == "next_concept" else "texts"
    about = (
        f"Task {found.task.replace('_', ' ')}: {len(found.results)} settings on {found.num_documents:,} "
        f"{'documents ' if found.task == 'next_concept' else ''}{of}{f', split {split}' if split else ''}."
    )
    if found.direction == "human" and found.target is not None:
        about += f" The best is nearest to human text: {short(found.target)}."
    warning: Child = None
    if split in ("test", "train"):
        why = "the model was trained on" if split == "train" else "figures are reported on"
        warning = tag("p", f"Chosen on the {split} split, which {why}: the figures are too good.", class_="warning")
    also = f"; {ties} {'other ties' if ties == 1 else 'others tie'} with it" if ties else ""
    words = [tag("strong", found.best.name), f", {metric} {_with_range(found.best, found.metric)}{also}."]
    best = tag("p", "Best: ", words, class_="note")
    return tag("div", tag("h3", run.label), tag("p", about, class_="facts"), warning, best, _before(found),
               tag("div", _grid(found), class_="plots"), _settings(found))  # fmt: skip


def _before(found: SweepResult) -> Markup | None:
    """What the best has over the setting that was there before."""
    one = found.default
    if one is None:
        return None
    words: list[Child] = ["Before: ", one.name, f", {title_of(found.metric)} {_with_range(one, found.metric)}. "]
    gain = found.best.from_default
    if one.options == found.best.options:
        words.append("It is the best.")
    elif gain is not None and gain.value is not None:
        real = found.beats_default()
        said = "differs from it" if real else "does not differ from it by more than chance"
        p = "" if found.best.p_holm is None else f" (corrected p {p_text(found.best.p_holm)})"
        words.append(f"The best {said}{p}.")
    return tag("p", words, class_="note")


def _grid(found: SweepResult) -> list[Markup]:
    """A map of the two options with most values, others as in the best setting; a line where there is but one."""
    axes = sorted((name for name in found.grid if len(found.grid[name]) > 1), key=lambda name: -len(found.grid[name]))
    metric = title_of(found.metric)
    rest = {name: value for name, value in found.best.options.items() if name not in axes[:2]}
    fixed = f", {', '.join(f'{key} {show(value)}' for key, value in rest.items())}" if rest else ""
    among = [one for one in found.results if all(one.options[name] == value for name, value in rest.items())]
    if not axes:
        return []
    if len(axes) == 1:
        numbers = [one for one in among if isinstance(one.options[axes[0]], int | float)]
        numbers.sort(key=lambda one: float(one.options[axes[0]]))
        if len(numbers) < 2:
            return []
        scores = [one.scores[found.metric] for one in numbers]
        series = Series(
            metric,
            [float(one.options[axes[0]]) for one in numbers],
            [float("nan") if score.value is None else score.value for score in scores],
            [score.low for score in scores],
            [score.high for score in scores],
        )
        return [line_chart(f"{metric} by {axes[0]}", [series], x_label=axes[0].replace("_", " "), y_label=metric)]
    across, up = axes[0], axes[1]
    columns, rows = found.grid[across], found.grid[up]
    values: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    for one in among:
        j, i = rows.index(one.options[up]), columns.index(one.options[across])
        values[j][i] = finite(one.scores[found.metric].value)
    spot = (rows.index(found.best.options[up]), columns.index(found.best.options[across]))
    return [
        heat_map(
            f"{metric} by {across.replace('_', ' ')} and {up.replace('_', ' ')}{fixed}",
            across.replace("_", " "),
            up.replace("_", " "),
            [show(one) for one in columns],
            [show(one) for one in rows],
            values,
            higher_is_better=found.direction == "higher",
            target=found.target if found.direction == "human" else None,
            best=spot,
        )
    ]


def _settings(found: SweepResult) -> Markup:
    names = list(found.grid)
    metric = title_of(found.metric)
    columns = [*(name.replace("_", " ") for name in names), metric, "Best minus this", "Corrected p", "Seconds"]
    head = tag("tr", tag("th", "Rank", scope="col"), [tag("th", one, scope="col", class_="number") for one in columns])
    rows = []
    for place, one in enumerate(found.results[:_MOST_SETTINGS], 1):
        mark: Child = None
        if place == 1:
            mark = tag("span", "best", class_="badge best")
        elif one.ties:
            mark = tag("span", "ties", class_="badge alike")
        gap = one.difference
        away: list[Child] = [tag("span", "–", class_="quiet")]
        if gap is not None and gap.value is not None:
            both = interval(gap)
            away = [tag("span", signed(gap.value, both), class_="figure")]
            if both is not None:
                away.append(tag("span", f"{signed(both[0], both)} to {signed(both[1], both)}", class_="interval"))
        cells = [tag("td", show(one.options[name]), class_="number") for name in names]
        score = tag("span", mark, " " if mark else None, _with_range(one, found.metric), class_="figure")
        cells += [tag("td", score, class_="number best" if place == 1 else "number"), tag("td", away, class_="number"),
                  tag("td", _p_of(one, found), class_="number"),
                  tag("td", f"{one.seconds:.2f}", class_="number")]  # fmt: skip
        rows.append(tag("tr", tag("th", place, scope="row"), cells))
    more = len(found.results) - _MOST_SETTINGS
    caption = f"Settings by {metric}"
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", rows), class_="scores")
    note = tag("p", f"{more} more settings are in the record.", class_="note") if more > 0 else None
    return tag("div", scrolled(table, caption), note)


def _p_of(one: SettingResult, found: SweepResult) -> Child:
    if found.default is not None and one.options == found.default.options:
        return tag("span", "before", class_="quiet")
    return tag("span", "–", class_="quiet") if one.p_holm is None else p_text(one.p_holm).removeprefix("= ")


def _with_range(one: SettingResult, metric: str) -> str:
    score = one.scores[metric]
    both = interval(score)
    value = "–" if finite(score.value) is None else figure_text(score.value or 0.0, both)
    return value if both is None else f"{value} [{figure_text(both[0], both)}, {figure_text(both[1], both)}]"


# --- training and costs ----------------------------------------------------------------------------------------------


def training_section(runs: Sequence[Run]) -> Markup:
    """Return the curves of training runs."""
    found = [(run, run.training) for run in runs if run.training is not None]
    if not found:
        return Markup("")
    return section("training", "Training", [_training(run.label, one) for run, one in found])


def _training(label: str, run: TrainingRun) -> Markup:
    groups: dict[str, list[Series]] = {}
    for name, (steps, values) in run.curves.items():
        *before, metric = name.split("/")
        words = " ".join(before) if before else "training"
        groups.setdefault(metric, []).append(Series(words, steps, values))
    first = [name for name in _CURVES if name in groups]
    first = [name for name in first if name != "mse" or "loss" not in first]
    others = [name for name in groups if name not in first and name not in _QUIET_CURVES and name != "mse"]
    more: Child = None
    if others:
        more = tag("details", tag("summary", f"{len(others)} more curves"),
                   tag("div", [_curve(name, groups[name]) for name in others[:16]], class_="plots"))  # fmt: skip
    last = max((int(one.x[-1]) for group in groups.values() for one in group if one.x), default=0)
    return tag(
        "div",
        tag("h3", label),
        tag("p", f"{last:,} steps", class_="facts"),
        tag("div", [_curve(name, groups[name]) for name in first], class_="plots"),
        more,
    )


def _curve(name: str, series: Sequence[Series]) -> Markup:
    known = {"lr": "Learning rate", "grad_norm": "Gradient norm", "concepts_per_second": "Concepts per second"}
    title = known.get(name, title_of(name))
    return line_chart(title, series, x_label="step", y_label=title, log_y=name in _LOG_CURVES, marks=False)


def cost_section(runs: Sequence[Run]) -> Markup:
    """Return measurements of cost."""
    found = [(run, run.cost) for run in runs if run.cost is not None]
    if not found:
        return Markup("")
    return section("cost", "Cost", extra_blocks([(run.label if len(found) > 1 else "", one) for run, one in found]))


# --- records ---------------------------------------------------------------------------------------------------------


def records_section(runs: Sequence[Run]) -> Markup:
    """Return what each run depends on."""
    return section("records", "Records", [_record(run) for run in runs])


def _record(run: Run) -> Markup:
    facts: dict[str, Any] = {"folder": run.path}
    details: dict[str, Any] = {}
    for found in (run.evaluation, run.sweep):
        if found is None:
            continue
        facts["created"] = found.created
        facts["library"] = found.library_version
        if found.git:
            changed = ", with changes" if found.git.get("changed") else ""
            facts["revision"] = f"{str(found.git.get('revision', ''))[:12]}{changed}"
        facts["machine"] = ", ".join(
            str(found.machine[key]) for key in ("processor", "accelerator", "device", "torch") if found.machine.get(key)
        )
    if run.evaluation is not None:
        facts["seed"] = run.evaluation.seed
        facts["configuration"] = run.evaluation.config_hash
        facts["left out"] = "; ".join(f"{name}: {why}" for name, why in run.evaluation.left_out.items())
        details["settings"] = run.evaluation.settings
        details["tasks"] = {name: task.settings for name, task in run.evaluation.tasks.items()}
    if run.sweep is not None:
        details["sweep"] = {"settings": run.sweep.settings, "other options": run.sweep.base}
    entries = [[tag("dt", key), tag("dd", str(value))] for key, value in facts.items() if value not in ("", None)]
    return tag(
        "div",
        tag("h3", run.label),
        tag("dl", entries, class_="record"),
        [tag("details", tag("summary", name), tag("pre", _pretty(value))) for name, value in details.items() if value],
    )


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)[:20_000]


__all__ = ["cost_section", "records_section", "sweep_section", "training_section"]

"""What a report is made of: folders of evaluations, sweeps, cost measurements and training runs, read and checked.

Nothing here knows which tasks or metrics exist: a report shows whatever was recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largeconcept.errors import CheckpointError
from largeconcept.eval.records import ARROWS, RESULTS, Difference, EvaluationResult, Score
from largeconcept.eval.sweep_results import SWEEP, SweepResult
from largeconcept.io import read_json

TRAINING = "metrics.jsonl"
COST = "cost.json"
_DEPTH = 2
"""How far below a folder that is itself no run others are looked for."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a recorded plot."""

    x: list[float]
    y: list[float]
    low: list[float | None] | None = None
    high: list[float | None] | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """A recorded plot: name of each line -> its points."""

    title: str
    x_label: str
    y_label: str
    log_x: bool
    log_y: bool
    series: dict[str, Curve]


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A recorded table."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(slots=True)
class Extra:
    """Plots, tables and remarks that a task, or a measurement of costs, put on record."""

    plots: list[Plot] = field(default_factory=list)
    tables: list[PlainTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class TrainingRun:
    """The curves of a training run: metric -> (steps, values)."""

    curves: dict[str, tuple[list[float], list[float]]]


@dataclass(slots=True)
class Run:
    """A folder and whatever was found in it.

    Attributes:
        label: the shortest end of its path that tells it from the others.
        path: the folder.
    """

    label: str
    path: Path
    evaluation: EvaluationResult | None = None
    sweep: SweepResult | None = None
    training: TrainingRun | None = None
    cost: Extra | None = None


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read run folders; one that is no run itself stands for those inside it, at most two levels down.

    Raises:
        CheckpointError: a folder that is missing, holds no run, or holds a damaged one.
    """
    found: list[Path] = []
    for path in paths:
        given = Path(path)
        folder = given.parent if given.is_file() else given
        if not folder.is_dir():
            raise CheckpointError("no such folder", where=path, expected="folders of evaluations, sweeps or trainings")
        inside = [folder] if _is_run(folder) else sorted(_runs_below(folder, _DEPTH))
        if not inside:
            raise CheckpointError(
                "holds no run",
                where=path,
                expected=f"{RESULTS} of eval run, {SWEEP} of eval sweep, or {TRAINING} of a training",
            )
        found += inside
    folders = list({one.resolve(): one for one in found}.values())
    return [_read(folder, label) for folder, label in zip(folders, _labels(folders), strict=True)]


def read_extra(data: Any, where: object) -> Extra:
    """Read ``{"curves": {title: …}, "tables": {title: …}, "notes": [line, …]}``; what else is in it is for no report.

    Raises:
        CheckpointError: not of that form.
    """
    extra, recorded = Extra(), _object(data, where)
    for title, plot in _object(recorded.get("curves"), f"{where}: curves").items():
        place = f"{where}: {title}"
        fields = _object(plot, place)
        series = {
            str(name): _curve(points, f"{place}: {name}")
            for name, points in _object(fields.get("series"), f"{place}: series").items()
        }
        x_label, y_label = (str(fields.get(key, "")) for key in ("x_label", "y_label"))
        log_x, log_y = (bool(fields.get(key)) for key in ("log_x", "log_y"))
        extra.plots.append(Plot(str(title), x_label, y_label, log_x, log_y, series))
    for title, table in _object(recorded.get("tables"), f"{where}: tables").items():
        place = f"{where}: {title}"
        fields = _object(table, place)
        columns = [str(one) for one in _list(fields.get("columns"), place)]
        rows = [[_cell(cell) for cell in _list(row, place)] for row in _list(fields.get("rows"), place)]
        if any(len(row) != len(columns) for row in rows):
            raise CheckpointError("not as many cells as columns", where=place)
        extra.tables.append(PlainTable(str(title), columns, rows))
    extra.notes += [str(one) for one in _list(recorded.get("notes") or [], f"{where}: notes")]
    return extra


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _curve(data: Any, where: object) -> Curve:
    points = _object(data, where)
    x, y = ([_number(v, where) for v in _list(points.get(key), where)] for key in ("x", "y"))
    ends: list[list[float | None] | None] = []
    for key in ("low", "high"):
        given = points.get(key)
        ends.append(None if given is None else [_number(v, where) for v in _list(given, where)])
    if any(one is not None and len(one) != len(x) for one in (y, *ends)):
        raise CheckpointError("not as many values as places", where=where)
    order = sorted(range(len(x)), key=lambda i: x[i])
    low, high = (None if one is None else [one[i] for i in order] for one in ends)
    return Curve([x[i] for i in order], [y[i] for i in order], low, high)


def _number(value: Any, where: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError("not a number", where=where, got=value)
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise CheckpointError("not a number", where=where, got="hundreds of digits") from None


def _list(value: Any, where: object) -> list[Any]:
    if not isinstance(value, list):
        raise CheckpointError("not a list", where=where, got=type(value).__name__)
    return value


def _object(value: Any, where: object) -> Mapping[str, Any]:
    """Return an object; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointError("not an object", where=where, got=type(value).__name__)
    return value


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SWEEP, TRAINING, COST)) or _is_evaluation(folder / RESULTS)


def _is_evaluation(path: Path) -> bool:
    """Other programs call their files ``results.json`` too."""
    return path.is_file() and isinstance(value := read_json(path), dict) and isinstance(value.get("tasks"), dict)


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    for child in folder.iterdir():
        if not child.is_dir() or child.name.startswith("."):
            continue
        if _is_run(child):
            yield child
        elif depth > 1:
            yield from _runs_below(child, depth - 1)


def _labels(folders: list[Path]) -> list[str]:
    parts = [folder.resolve().parts for folder in folders]
    longest = max((len(one) for one in parts), default=1)
    for size in range(1, longest + 1):
        names = ["/".join(one[-size:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _evaluation(folder: Path) -> EvaluationResult:
    """Read results; numbers that are none would only be noticed where they are drawn."""
    where = folder / RESULTS
    found = EvaluationResult.load(folder)
    for name, task in found.tasks.items():
        check_scores([task.scores, task.differences], f"{where}: {name}")
        for metric, direction in task.metrics.items():
            if not isinstance(direction, str) or direction not in ARROWS:
                raise CheckpointError(
                    "not a direction", where=f"{where}: {name}: {metric}", got=direction, expected=", ".join(ARROWS)
                )
        _number(task.n, f"{where}: {name}: n")
    for key, value in (("machine", found.machine), ("git", found.git or {})):
        _object(value, f"{where}: {key}")
    return found


def _sweep(folder: Path) -> SweepResult:
    found, where = SweepResult.load(folder), folder / SWEEP
    places = [(f"result {number}", one) for number, one in enumerate(found.results, 1)]
    places += [] if found.default is None else [("default", found.default)]
    for name, one in places:
        place = f"{where}: {name}"
        check_scores([{"scores": one.scores}], place)
        for kind, gap in (("difference", one.difference), ("from_default", one.from_default)):
            if gap is not None:
                check_scores([{kind: {"": gap}}], place)
    _object(found.git, f"{where}: git")
    return found


def check_scores(groups: Sequence[Mapping[str, Mapping[str, Score | Difference]]], where: str) -> None:
    """Complain about a score that is not of numbers.

    Raises:
        CheckpointError: names the task, the predictor and the metric.
    """
    for group in groups:
        for name, scores in group.items():
            for metric, score in scores.items():
                last = score.p if isinstance(score, Difference) else score.n
                for value in (score.value, score.low, score.high, last):
                    _number(value, f"{where}: {name}: {metric}")


def _read(folder: Path, label: str) -> Run:
    return Run(
        label,
        folder,
        _evaluation(folder) if _is_evaluation(folder / RESULTS) else None,
        _sweep(folder) if (folder / SWEEP).is_file() else None,
        _training(folder / TRAINING) if (folder / TRAINING).is_file() else None,
        read_extra(read_json(folder / COST), folder / COST) if (folder / COST).is_file() else None,
    )


def _training(path: Path) -> TrainingRun:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise CheckpointError("cannot be read", where=path, got=error.strerror or error) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            step = float(item["step"])
            values = dict(item)
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError) as error:
            if number == len(lines):  # a run that is being written, or was killed
                continue
            raise CheckpointError("not a record of a step", where=f"{path}:{number}", got=error) from None
        for name, value in values.items():
            if name in ("step", "time") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            steps, points = curves.setdefault(name, ([], []))
            if steps and step <= steps[-1]:  # a run that was taken up again from an earlier checkpoint
                keep = next(i for i, old in enumerate(steps) if old >= step)
                del steps[keep:], points[keep:]
            steps.append(step)
            points.append(_number(value, f"{path}:{number}"))
    return TrainingRun(curves)


def real(value: Any) -> float | None:
    """Return a recorded value as a finite number, or ``None`` for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return finite(float(value))
    except OverflowError:
        return None


def finite(value: float | None) -> float | None:
    """Return a number, or ``None`` for one that is none."""
    return None if value is None or not math.isfinite(value) else value


def interval(score: Score | Difference) -> tuple[float, float] | None:
    """Return both ends of an interval, or ``None``."""
    low, high = finite(score.low), finite(score.high)
    return None if low is None or high is None else (low, high)


__all__ = [
    "COST",
    "TRAINING",
    "Curve",
    "Extra",
    "PlainTable",
    "Plot",
    "Run",
    "TrainingRun",
    "finite",
    "interval",
    "read_extra",
    "read_runs",
    "real",
]

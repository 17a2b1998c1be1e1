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
from largeconcept.eval.records import RESULTS, Difference, EvaluationResult, Score
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
    """Plots and tables that a task, or a measurement of costs, put on record."""

    plots: list[Plot] = field(default_factory=list)
    tables: list[PlainTable] = field(default_factory=list)


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
    """Read ``{"curves": {title: …}, "tables": {title: …}}``; anything else in it is not for a report.

    Raises:
        CheckpointError: not of that form.
    """
    extra = Extra()
    for title, plot in _mapping(data, "curves", where).items():
        place = f"{where}: {title}"
        series = {
            str(name): _curve(points, f"{place}: {name}") for name, points in _mapping(plot, "series", place).items()
        }
        labels = [str(plot.get(key, "")) for key in ("x_label", "y_label")]
        extra.plots.append(
            Plot(str(title), labels[0], labels[1], bool(plot.get("log_x")), bool(plot.get("log_y")), series)
        )
    for title, table in _mapping(data, "tables", where).items():
        columns = _list(_mapping({"": table}, "", where).get("columns"), f"{where}: {title}")
        rows = _list(table.get("rows"), f"{where}: {title}")
        cells = [[_cell(cell) for cell in _list(row, f"{where}: {title}")] for row in rows]
        extra.tables.append(PlainTable(str(title), [str(one) for one in columns], cells))
    return extra


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _curve(data: Any, where: object) -> Curve:
    points = _mapping({"": data}, "", where)
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
    return float(value)


def _list(value: Any, where: object) -> list[Any]:
    if not isinstance(value, list):
        raise CheckpointError("not a list", where=where, got=type(value).__name__)
    return value


def _mapping(data: Any, key: str, where: object) -> Mapping[str, Any]:
    value = data.get(key) if isinstance(data, Mapping) else data
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointError("not an object", where=f"{where}: {key}" if key else where, got=type(value).__name__)
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


def _read(folder: Path, label: str) -> Run:
    return Run(
        label,
        folder,
        EvaluationResult.load(folder) if _is_evaluation(folder / RESULTS) else None,
        SweepResult.load(folder) if (folder / SWEEP).is_file() else None,
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
            step = item["step"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            if number == len(lines):  # a run that is being written, or was killed
                continue
            raise CheckpointError("not a record of a step", where=f"{path}:{number}", got=error) from None
        for name, value in item.items():
            if name in ("step", "time") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            steps, values = curves.setdefault(name, ([], []))
            if steps and step <= steps[-1]:  # a run that was taken up again from an earlier checkpoint
                keep = next(i for i, old in enumerate(steps) if old >= step)
                del steps[keep:], values[keep:]
            steps.append(float(step))
            values.append(float(value))
    return TrainingRun(curves)


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
]

"""What an evaluation writes: results with everything they depend on, and the raw outputs, resumable item by item.

A run folder::

    results.json                     see :class:`EvaluationResult`
    raw/TASK/PREDICTOR.jsonl         one line an item: key, id, lang, source, reference, output, seconds, metrics
    cache/TASK/PREDICTOR.jsonl       outputs as they come, for a run that is stopped and started again

The key of an output is a hash of all it depends on: weights, options, task and its version, seed and the item itself.
An output is used again where the key is the same, and never otherwise, so one folder may serve many settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import atomic_write_bytes, read_json, write_json
from largeconcept.version import __version__

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from largeconcept.eval.statistics import Table

FORMAT_VERSION = 1
RESULTS = "results.json"
RAW, CACHE = "raw", "cache"
MODEL = "model"
"""Name, among the predictors, of the model that is judged."""

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of one predictor.

    Attributes:
        value: the metric; ``None`` where it is undefined (a ratio to nothing, a text without words).
        low, high: 95 % interval; ``None`` for metrics of all outputs together, which have none.
        n: items (documents) it was taken over.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """Model minus another predictor, on the same items.

    Attributes:
        value: mean of the differences.
        low, high: 95 % interval; one that does not hold 0 tells the two apart.
        p: two-sided p-value of no difference, if a test was made.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(slots=True)
class TaskResult:
    """Scores of all predictors in one task.

    Attributes:
        version: of the task; figures of different versions are not comparable.
        n: items.
        metrics: name of each metric and whether more of it is better.
        scores: predictor -> metric -> score; a metric that a predictor does not have is missing, never zero.
        differences: predictor -> metric -> model minus predictor.
        settings: what the task was run with.
        left_out: predictor -> why it has no scores.
        seconds: wall-clock time of all predictors, results of an earlier run that were used again not counted.
        extra: other figures of the task (curves, tables) as plain data.
        tables: predictor -> metric -> the sums over documents that scores were made of, as long as the task has just
            been run: they are not written down.
    """

    version: int
    n: int
    metrics: dict[str, Direction]
    scores: dict[str, dict[str, Score]]
    differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Table]] = field(default_factory=dict, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in ``results.json``."""
        return {
            "version": self.version,
            "n": self.n,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "metrics": dict(self.metrics),
            "scores": {
                name: {m: {"value": _plain(s.value), "low": _plain(s.low), "high": _plain(s.high), "n": s.n}
                       for m, s in group.items()}
                for name, group in self.scores.items()
            },
            "differences": {
                name: {m: {"value": _plain(d.value), "low": _plain(d.low), "high": _plain(d.high), "p": _plain(d.p)}
                       for m, d in group.items()}
                for name, group in self.differences.items()
            },
            "left_out": dict(self.left_out),
            "extra": self.extra,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskResult:
        """Read what :meth:`to_dict` returned."""
        return cls(
            version=int(data["version"]),
            n=int(data["n"]),
            metrics=dict(data["metrics"]),
            scores={
                name: {metric: Score(**score) for metric, score in group.items()}
                for name, group in data["scores"].items()
            },
            differences={
                name: {metric: Difference(**one) for metric, one in group.items()}
                for name, group in data.get("differences", {}).items()
            },
            settings=dict(data.get("settings", {})),
            left_out=dict(data.get("left_out", {})),
            seconds=float(data.get("seconds", 0.0)),
            extra=dict(data.get("extra", {})),
        )

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Return a heading and a row of text for each metric, with a column for each predictor.

        The model's values come with their intervals; a star marks values of others from which the model's differ with
        p < 0.05, corrected for the number of predictors (:func:`corrected_differences`).
        """
        names = list(self.scores)
        corrected = corrected_differences(self.differences)
        found = []
        for metric, direction in self.metrics.items():
            row = [f"{metric} {ARROWS[direction]}".strip()]
            for name in names:
                one = self.scores[name].get(metric)
                apart = corrected.get(name, {}).get(metric)
                if one is None or one.value is None:
                    row.append("–")
                elif name == MODEL:
                    row.append(str(one))
                else:
                    row.append(f"{one.value:.4g}" + ("*" if apart is not None and _apart(apart) else ""))
            found.append(row)
        return ["metric", *names], found

    def table(self, title: str = "") -> RichTable:
        """Return :meth:`rows` as a table for a terminal."""
        from rich.table import Table as RichTable

        caption = f"{self.n:,} items; 95 % intervals; * differs from the model, p < 0.05 (Holm)"
        heading, rows = self.rows()
        made = RichTable(title=title, caption=caption)
        for number, name in enumerate(heading):
            made.add_column(name, justify="right" if number else "left")
        for row in rows:
            made.add_row(*row)
        for name, reason in self.left_out.items():
            made.add_row(f"{name}: {reason}", style="dim")
        return made


ARROWS: dict[str, str] = {"higher": "↑", "lower": "↓", "none": ""}


@dataclass(slots=True)
class EvaluationResult:
    """What :func:`largeconcept.eval.harness.evaluate` found; the content of ``results.json``.

    Attributes:
        tasks: name of each task that was run, and its result.
        settings: model, data, predictors and options, with their fingerprints.
        seed: of noise, draws of items and intervals.
        left_out: name of each task that was asked for and not run, and why.
        config_hash: of ``settings``, seed and the versions of the tasks: equal hashes mean the same question asked.
        git: revision of the source tree and whether it was changed, or ``None`` outside a repository.
        machine: versions and hardware.
        created: when, UTC, ISO 8601.
        samples: files with the raw outputs, relative to the folder.
        folder: where it was written, if it was.
    """

    tasks: dict[str, TaskResult]
    settings: dict[str, Any]
    seed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    config_hash: str = ""
    git: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    library_version: str = __version__
    samples: list[str] = field(default_factory=list)
    folder: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in ``results.json``."""
        return {
            "format_version": FORMAT_VERSION,
            "config_hash": self.config_hash,
            "settings": self.settings,
            "git": self.git,
            "library_version": self.library_version,
            "machine": self.machine,
            "created": self.created,
            "seed": self.seed,
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "left_out": dict(self.left_out),
            "samples": list(self.samples),
        }

    @classmethod
    def from_dict(cls, data: Any, where: object = RESULTS) -> EvaluationResult:
        """Read what :meth:`to_dict` returned.

        Raises:
            CheckpointError: another format, or a part is missing or damaged.
        """
        found = data.get("format_version") if isinstance(data, dict) else None
        if found != FORMAT_VERSION:
            raise CheckpointError(
                "not the results of an evaluation", where=where, expected=f"format_version {FORMAT_VERSION}", got=found
            )
        try:
            return cls(
                tasks={str(name): TaskResult.from_dict(task) for name, task in data["tasks"].items()},
                settings=dict(data["settings"]),
                seed=int(data["seed"]),
                left_out=dict(data.get("left_out", {})),
                config_hash=str(data["config_hash"]),
                git=data.get("git"),
                machine=dict(data.get("machine", {})),
                created=str(data.get("created", "")),
                library_version=str(data.get("library_version", "")),
                samples=[str(name) for name in data.get("samples", [])],
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError("damaged results of an evaluation", where=where, got=error) from None

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Read ``results.json``, given by its name or by its folder.

        Raises:
            CheckpointError: missing, damaged, or of another format.
        """
        file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
        result = cls.from_dict(read_json(file), file)
        result.folder = file.parent
        return result

    def save(self, path: str | Path) -> Path:
        """Write the results as JSON: to this file, or as ``results.json`` into this folder.

        Raises:
            ConfigError: the place cannot be written.
        """
        file = Path(path)
        if file.suffix != ".json":
            file = file / RESULTS
        try:
            write_json(file, self.to_dict())
        except OSError as error:
            raise ConfigError("cannot write there", where=file, got=error.strerror or error) from None
        return file

    def table(self) -> list[RichTable]:
        """Return a table for each task; print them with ``rich.print(*result.table())``."""
        return [task.table(name) for name, task in self.tasks.items()]


def corrected_differences(differences: Mapping[str, Mapping[str, Difference]]) -> dict[str, dict[str, Difference]]:
    """Return predictor -> metric -> difference with p-values corrected for the number of predictors (Holm).

    The comparisons of one metric are a family: among all the stars of a row there is a false one with a chance of 5 %
    at most. Rows are not corrected for one another, as most metrics of a task measure nearly the same.
    """
    from largeconcept.eval.statistics import holm

    found = {name: dict(group) for name, group in differences.items()}
    for metric in dict.fromkeys(metric for group in found.values() for metric in group):
        names = [name for name, group in found.items() if metric in group]
        for name, p in zip(names, holm([found[name][metric].p for name in names]), strict=True):
            found[name][metric] = replace(found[name][metric], p=p)
    return found


def _apart(difference: Difference) -> bool:
    if difference.p is not None:
        return difference.p < 0.05
    low, high = difference.low, difference.high
    return low is not None and high is not None and not low <= 0 <= high


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that identify plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class OutputCache:
    """Outputs of one predictor in one task, kept on disk as they come.

    Lines are appended and made durable one batch at a time. A process that is killed leaves at most one torn line,
    which the next one cuts off; lines that cannot be read are passed over, so their items are done again.

    Args:
        path: the file; ``None`` keeps nothing on disk.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                self._read(path)
        except OSError as error:
            raise ConfigError("cannot write there", where=path, got=error.strerror or error) from None

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("rb+") as file:
                file.truncate(whole)
        for line in data[:whole].splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("key"), str) and "output" in record:
                    self._found[record["key"]] = record

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record with this key, if there is one."""
        return self._found.get(key)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep some records, each with its ``key``.

        Raises:
            ConfigError: the disk is full, or the place cannot be written.
        """
        self._found |= {record["key"]: record for record in records}
        if self.path is None or not records:
            return
        try:
            with self.path.open("ab") as file:
                file.write(json_lines(records))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError("cannot write there", where=self.path, got=error.strerror or error) from None


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return records as lines of JSON; numbers that are not finite become null."""
    return b"".join(json.dumps(_finite(record), ensure_ascii=True).encode() + b"\n" for record in records)


def write_raw(folder: Path, task: str, predictor: str, records: Iterable[Mapping[str, Any]]) -> str:
    """Write the raw outputs of a predictor, atomically; return the file's name relative to ``folder``."""
    path = raw_path(folder, RAW, task, predictor)
    try:
        atomic_write_bytes(path, json_lines(records))
    except OSError as error:
        raise ConfigError("cannot write there", where=path, got=error.strerror or error) from None
    return path.relative_to(folder).as_posix()


def read_raw(path: str | Path) -> list[dict[str, Any]]:
    """Read raw outputs.

    Raises:
        CheckpointError: missing or damaged; names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError("cannot read the raw outputs", where=path, got=error) from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CheckpointError("not JSON", where=f"{path}:{number}", got=error) from None
        if not isinstance(record, dict):
            raise CheckpointError("not an object", where=f"{path}:{number}", got=type(record).__name__)
        records.append(record)
    return records


def raw_path(folder: Path, kind: str, task: str, predictor: str) -> Path:
    """Return the file of a predictor's outputs; names become safe ones for a file, and stay different."""
    return folder / kind / _file_name(task) / f"{_file_name(predictor)}.jsonl"


def _file_name(name: str) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip(".")
    return safe if safe == name and len(name) < 100 else f"{safe[:80]}-{digest(name)[:8]}"


def git_revision() -> dict[str, Any] | None:
    """Return revision and state of the repository that the library's source is in, else of the working folder's.

    ``None`` outside a repository, or without git.
    """
    here = Path(__file__).resolve()
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
    folder, of = (here.parent, "library") if tracked is not None else (Path.cwd(), "working folder")
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision.strip(), "changed": bool(changed and changed.strip()), "of": of}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def machine(device: object = None) -> dict[str, Any]:
    """Return versions and hardware, without names of machine or user."""
    import torch

    found = {
        "system": platform.system(),
        "release": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": str(device) if device is not None else "cpu",
    }
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    """Return the time, UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: float | None) -> float | None:
    """JSON has no NaN: what is undefined is null."""
    return None if value is None or not math.isfinite(value) else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return _plain(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


__all__ = [
    "CACHE",
    "MODEL",
    "RAW",
    "RESULTS",
    "Difference",
    "Direction",
    "EvaluationResult",
    "OutputCache",
    "Score",
    "TaskResult",
    "corrected_differences",
    "digest",
    "git_revision",
    "json_lines",
    "machine",
    "now",
    "raw_path",
    "read_raw",
    "write_raw",
]

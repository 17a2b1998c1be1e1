"""What a sweep over settings of generation finds; the content of ``sweep.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from largeconcept.errors import CheckpointError
from largeconcept.eval.records import Difference, Score, digest
from largeconcept.io import read_json
from largeconcept.version import __version__

SWEEP = "sweep.json"
FORMAT_VERSION = 2


@dataclass(slots=True)
class SettingResult:
    """One point of the grid.

    Attributes:
        options: the options of the grid, and what they were.
        scores: metric -> score over documents.
        difference: best setting minus this one in the metric of the sweep, paired; ``None`` for the best.
        ties: this is the best setting, or the interval of the difference holds 0.
        from_default: this setting minus the one that was there before, paired; ``None`` for that one itself. Where
            ``direction`` is ``human``, both differences are of distances from human text.
        p_holm: p-value of ``from_default``, corrected for the number of settings (Holm).
        seconds: of prediction or writing.
    """

    options: dict[str, Any]
    scores: dict[str, Score]
    difference: Difference | None = None
    ties: bool = False
    seconds: float = 0.0
    from_default: Difference | None = None
    p_holm: float | None = None

    @property
    def name(self) -> str:
        """The options in a few words."""
        return ", ".join(f"{key} {show(value)}" for key, value in self.options.items())


@dataclass(slots=True)
class SweepResult:
    """What a sweep found; the content of ``sweep.json``.

    Attributes:
        grid: option -> the values tried.
        metric: what settings are compared by.
        direction: ``higher`` or ``lower`` is better, or what is nearest to ``human`` text.
        results: every setting, the best first.
        default: the setting that was there before, which may be one of them.
        task: what was done with each setting.
        target: the value of human text, where settings are compared by their distance from it.
        base: all options of which the grid changes some.
        settings: documents, seed and everything else that the figures depend on.
        num_documents, num_predictions: what they are over.
        machine, git, created, library_version: as in the results of an evaluation.
    """

    grid: dict[str, list[Any]]
    metric: str
    direction: str
    results: list[SettingResult]
    default: SettingResult | None = None
    task: str = "next_concept"
    target: float | None = None
    base: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    num_documents: int = 0
    num_predictions: int = 0
    machine: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    created: str = ""
    library_version: str = __version__

    @property
    def best(self) -> SettingResult:
        """The setting with the best value of the metric."""
        return self.results[0]

    @property
    def quickest(self) -> SettingResult:
        """Of the best setting and those that tie with it, the one that took least time."""
        return min((one for one in self.results if one.ties), key=lambda one: one.seconds)

    def without_effect(self) -> list[str]:
        """Return the options of the grid that changed no figure at all."""
        found = []
        for name, values in self.grid.items():
            rest: dict[str, set[str]] = {}
            for one in self.results:
                key = digest({key: value for key, value in one.options.items() if key != name})
                figures = digest({m: [s.value, s.low, s.high] for m, s in one.scores.items()})
                rest.setdefault(key, set()).add(figures)
            if len(values) > 1 and all(len(figures) == 1 for figures in rest.values()):
                found.append(name)
        return found

    def at_an_end(self) -> list[str]:
        """Return the options whose best value is the least or greatest number tried, with more of them beyond."""
        from largeconcept.generate.options import GenerationOptions

        found = []
        for name, values in self.grid.items():
            numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            limits = {
                getattr(m, side, None) for m in GenerationOptions.model_fields[name].metadata for side in ("ge", "le")
            }
            best = self.best.options[name]
            if len(numbers) > 2 and best in (min(numbers), max(numbers)) and best not in limits:
                found.append(name)
        return found

    def beats_default(self) -> bool | None:
        """Return whether the best setting differs from the one before (p < 0.05, corrected); ``None`` if untested."""
        p = self.best.p_holm
        if self.default is not None and self.default.options == self.best.options:
            return False
        return None if p is None else p < 0.05

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in ``sweep.json``."""
        return {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "metric": self.metric,
            "direction": self.direction,
            "target": self.target,
            "grid": self.grid,
            "best": self.best.options,
            "quickest": self.quickest.options,
            "default": None if self.default is None else _plain(self.default),
            "base": self.base,
            "settings": self.settings,
            "num_documents": self.num_documents,
            "num_predictions": self.num_predictions,
            "machine": self.machine,
            "git": self.git,
            "created": self.created,
            "library_version": self.library_version,
            "results": [_plain(one) for one in self.results],
        }

    @classmethod
    def from_dict(cls, data: Any, where: object = SWEEP) -> SweepResult:
        """Read what :meth:`to_dict` returned.

        Raises:
            CheckpointError: another format, or a part is missing or damaged.
        """
        found = data.get("format_version") if isinstance(data, dict) else None
        if found != FORMAT_VERSION:
            raise CheckpointError("not the record of a sweep", where=where, expected=FORMAT_VERSION, got=found)
        try:
            results = [_setting(one) for one in data["results"]]
            if not results or any(data["metric"] not in one.scores for one in results):
                raise ValueError("a setting without the metric, or none at all")
            grid = {str(name): list(values) for name, values in data["grid"].items()}
            if any(one.options[name] not in values for name, values in grid.items() for one in results):
                raise ValueError("a setting outside the grid")
            return cls(
                grid=grid,
                metric=str(data["metric"]),
                direction=str(data["direction"]),
                results=results,
                default=None if data.get("default") is None else _setting(data["default"]),
                task=str(data["task"]),
                target=None if data.get("target") is None else float(data["target"]),
                base=dict(data.get("base", {})),
                settings=dict(data.get("settings", {})),
                num_documents=int(data.get("num_documents", 0)),
                num_predictions=int(data.get("num_predictions", 0)),
                machine=dict(data.get("machine", {})),
                git=data.get("git"),
                created=str(data.get("created", "")),
                library_version=str(data.get("library_version", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError("damaged record of a sweep", where=where, got=error) from None

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read ``sweep.json``, given by its name or by its folder.

        Raises:
            CheckpointError: missing, damaged, or of another format.
        """
        file = Path(path) / SWEEP if Path(path).is_dir() else Path(path)
        return cls.from_dict(read_json(file), file)


def _plain(one: SettingResult) -> dict[str, Any]:
    return {
        "options": one.options,
        "scores": {m: {"value": s.value, "low": s.low, "high": s.high, "n": s.n} for m, s in one.scores.items()},
        "difference": None if one.difference is None else asdict(one.difference),
        "ties": one.ties,
        "from_default": None if one.from_default is None else asdict(one.from_default),
        "p_holm": one.p_holm,
        "seconds": round(one.seconds, 4),
    }


def _setting(data: Any) -> SettingResult:
    gap, away, p = data["difference"], data.get("from_default"), data.get("p_holm")
    return SettingResult(
        options=dict(data["options"]),
        scores={str(metric): Score(**score) for metric, score in data["scores"].items()},
        difference=None if gap is None else Difference(**gap),
        ties=bool(data["ties"]),
        seconds=float(data["seconds"]),
        from_default=None if away is None else Difference(**away),
        p_holm=None if p is None else float(p),
    )


def show(value: Any) -> str:
    """Return a value of an option as one writes it."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


__all__ = ["FORMAT_VERSION", "SWEEP", "SettingResult", "SweepResult", "show"]

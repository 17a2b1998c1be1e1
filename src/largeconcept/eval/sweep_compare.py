"""What a sweep compares settings by, and how: the best, what ties with it, and what differs from the setting before.

Every setting is tested against one that was chosen beforehand, so that Holm's correction holds for all of them
together; a test against the best of all, which was chosen by the same figures, would find too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from largeconcept.errors import ConfigError
from largeconcept.eval.records import Difference, Score, git_revision, machine, now
from largeconcept.eval.statistics import Array, Statistic, Table, difference, estimate, holm
from largeconcept.eval.sweep_results import SWEEP, SettingResult, SweepResult
from largeconcept.io import write_json

if TYPE_CHECKING:
    from largeconcept.generate.options import GenerationOptions

LEVEL = 0.05
Better = Literal["higher", "lower", "human"]
"""Which values of a metric are good: great ones, small ones, or those near that of what people wrote."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """What settings are compared by.

    Attributes:
        metric: its name.
        better: see :data:`Better`.
        target: the value of human text, where that is wanted.
    """

    metric: str
    better: Better
    target: float | None = None

    def badness(self, value: float) -> float:
        """Return a number that is the lower the better."""
        if self.better == "human":
            return abs(value - (self.target if self.target is not None else math.nan))
        return -value if self.better == "higher" else value

    def of(self, statistic: Statistic) -> Statistic:
        """Return a metric as its distance from human text, where that is wanted, or as it is."""
        if self.better != "human":
            return statistic
        target = math.nan if self.target is None else self.target
        return lambda sums: np.asarray(np.abs(statistic(sums) - target))


@dataclass(slots=True)
class Measured:
    """What one setting has got.

    Attributes:
        tables: metric -> sums over documents.
        values: metrics of all outputs together, which have no intervals.
        seconds: of prediction or writing; scoring and reading are the same for all.
    """

    tables: Mapping[str, Table]
    values: Mapping[str, Score] = field(default_factory=dict)
    seconds: float = 0.0


def compared(
    axes: Mapping[str, list[Any]],
    points: Sequence[tuple[dict[str, Any], GenerationOptions]],
    base: GenerationOptions,
    measure: Callable[[int, GenerationOptions], Measured],
    criterion: Criterion,
    *,
    seed: Any,
    number: int,
    count: int | None = None,
) -> SweepResult:
    """Measure all points and the setting that was there before, and compare them; the best comes first.

    Args:
        axes: the grid.
        points: its combinations.
        base: the setting that all are tested against; measured too where it is not one of them. One that the model
            cannot do is left out.
        measure: called with the number of the point and its options.
        criterion: what they are compared by.
        seed, number: of the resamplings.
        count: predictions that each value is over; where it is ``None`` the documents that have one are counted.
    """
    plain = base.to_dict()
    before = {name: plain[name] for name in axes}
    wanted = [*points]
    found = [measure(i, settings) for i, (_, settings) in enumerate(points)]
    at = next((i for i, (_, settings) in enumerate(points) if settings.to_dict() == plain), None)
    if at is None:
        with suppress(ConfigError):  # more steps than the model has, say: then there was none that could be used
            found.append(measure(len(points), base))
            wanted.append((before, base))
            at = len(points)
    settings = [
        SettingResult(values, _scores(one, number, seed, count), seconds=one.seconds)
        for (values, _), one in zip(wanted, found, strict=True)
    ]
    if any(criterion.metric not in one.scores for one in settings):
        raise ConfigError("was not measured", where="metric", got=criterion.metric,
                          expected=", ".join(settings[0].scores))  # fmt: skip

    def rank(i: int) -> float:
        value = settings[i].scores[criterion.metric].value
        return math.inf if value is None or math.isnan(value) else criterion.badness(value)

    def table(i: int | None) -> Table | None:
        """Sums that a difference can be made of, if there are any."""
        one = None if i is None else found[i].tables.get(criterion.metric)
        return None if one is None or not one[0][:, -1].sum() else (one[0], criterion.of(one[1]))

    order = sorted(range(len(points)), key=rank)  # equal ones stay in the order of the grid
    best = order[0]
    settings[best].ties = True
    # A p-value has to be able to stay below the level after its correction.
    exchanges = max(number, math.ceil(2 * len(wanted) / LEVEL))
    words: dict[str, Any] = {"number": number, "seed": seed, "exchanges": exchanges}
    for i, one in enumerate(settings):
        own, top, old = table(i), table(best), table(at)
        if own is not None and top is not None and i != best:
            gap = difference(top[0], own[0], own[1], number=number, seed=seed)
            one.difference = Difference(gap.mean, gap.low, gap.high, gap.p)
            one.ties = not (gap.low > 0 or gap.high < 0)
        if own is not None and old is not None and i != at:
            away = difference(own[0], old[0], own[1], **words)
            one.from_default = Difference(away.mean, away.low, away.high, away.p)
    corrected = holm([None if one.from_default is None else one.from_default.p for one in settings])
    for one, p in zip(settings, corrected, strict=True):
        one.p_holm = p
    return SweepResult(
        grid=dict(axes),
        metric=criterion.metric,
        direction=criterion.better,
        target=criterion.target,
        results=[settings[i] for i in order],
        default=None if at is None else settings[at],
        base=plain,
    )


def recorded(made: SweepResult, device: object, folder: str | Path | None) -> SweepResult:
    """Note machine, revision and time in a result, and write it into its folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    made = replace(made, machine=machine(device), git=git_revision(), created=now())
    if folder is not None:
        try:
            write_json(Path(folder) / SWEEP, made.to_dict())
        except OSError as error:
            raise ConfigError("cannot write there", where=folder, got=error.strerror or error) from None
    return made


def chosen(metric: str, direction: str, better: Better | None, target: float | None, human: bool) -> Criterion:
    """Return a criterion of a metric, with the direction that is wanted or, without one, its own.

    Args:
        metric: its name.
        direction: its own, or ``none``.
        better: what was asked for.
        target: the value of human text, if it is known yet.
        human: whether there is one.

    Raises:
        ConfigError: neither says which way is better, or the two contradict each other.
    """
    if better is None and direction == "none":
        ways = "higher, lower or human (nearest to human text)" if human else "higher or lower"
        raise ConfigError(
            "neither more nor less of this is better by itself", where="metric", got=metric, hint=f"say which: {ways}"
        )
    if better == "human" and not human:
        raise ConfigError("there is no human value of this", where="better", got=metric)
    if better is not None and better not in ("higher", "lower", "human"):
        raise ConfigError("unknown", where="better", got=better, expected="higher, lower or human")
    if better in ("higher", "lower") and direction != "none" and better != direction:
        raise ConfigError(f"{direction} is better", where=f"better: {metric}", got=better)
    way: Any = direction if better is None else better
    return Criterion(metric, way, target if way == "human" else None)


def _scores(one: Measured, number: int, seed: Any, count: int | None) -> dict[str, Score]:
    """Return all metrics of a setting with their intervals."""
    made: dict[str, Score] = {}
    for name, (rows, statistic) in one.tables.items():
        table: Array = rows
        if not table[:, -1].sum():
            made[name] = Score(None, n=0)
            continue
        found = estimate(table, statistic, number=number, seed=seed)
        value, low, high = (v if math.isfinite(v) else None for v in (found.mean, found.low, found.high))
        made[name] = Score(value, low, high, int((table[:, -1] > 0).sum()) if count is None else count)
    return {**made, **one.values}


__all__ = ["Better", "Criterion", "Measured", "chosen", "compared", "recorded"]

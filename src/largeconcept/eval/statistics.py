"""Intervals and tests over documents: what a metric's value is worth, and whether two predictors differ.

Predictions of one document are alike, so documents, not predictions, are what is resampled (the cluster bootstrap;
Davison & Hinkley 1997, section 3.8). A metric is a function of sums over documents: a mean is a sum over a count, a
perplexity the exponential of one. Two predictors are compared on the same documents: the interval of the difference
draws the same documents for both, and the p-value exchanges the two at random, document by document (approximate
randomisation; Noreen 1989, Riezler & Maxwell 2005). Several comparisons with one of them are corrected by
:func:`holm`.

Shape letters: D documents, K sums, R resamplings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from largeconcept.errors import ConfigError, DataError

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""``statistic(sums)``: (…, K) sums over documents to (…) values of a metric."""
Table = tuple[Array, Statistic]
"""(D, K) sums of documents, the last column what is divided by, and the metric as a function of such sums."""
_BLOCK = 1 << 22  # numbers of a block of resamplings held at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value over documents and its confidence interval (percentile bootstrap; 95 % unless told otherwise).

    Attributes:
        mean: the value on all documents.
        low, high: ends of the interval; NaN where there is no document.
        n: number of predictions (or items) that the value is over; 0 where it was not counted.
    """

    mean: float
    low: float
    high: float
    n: int = 0

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """One predictor minus another on the same documents.

    Attributes:
        p: two-sided p-value of the hypothesis that the two are exchangeable.
    """

    p: float = 1.0


def ratio(sums: Array) -> Array:
    """Return column 0 over column 1: the mean of values whose sums and numbers these are."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resampling may hold no value at all
        return np.asarray(sums[..., 0] / sums[..., 1])


def perplexity(sums: Array) -> Array:
    """Return exp(nats / tokens) of columns 0 and 1."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(ratio(sums)))


def draws(documents: int, number: int, seed: int | Sequence[int] = 0) -> NDArray[np.int64]:
    """Return (R, D): how often each document is in each resampling of as many documents; not to be written into."""
    return _draws(documents, number, seed if isinstance(seed, int) else tuple(seed))


@lru_cache(maxsize=4)
def _draws(documents: int, number: int, seed: int | tuple[int, ...]) -> NDArray[np.int64]:
    """All metrics of all predictors are resampled alike, so the same draws are wanted again and again."""
    made = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=number)
    made.flags.writeable = False
    return made


def per_document(values: ArrayLike, documents: ArrayLike | None = None, weights: ArrayLike | None = None) -> Array:
    """Return (D, 2): weighted sum of the values of each document, and the sum of the weights.

    Args:
        values: one for each prediction; NaN where it has none, which counts as if the prediction were not there.
        documents: of each prediction, any labels; each prediction is its own document by default.
        weights: of each prediction, 1 by default.

    Raises:
        DataError: other lengths, or a weight that is negative or not finite.
    """
    value = np.asarray(values, dtype=np.float64)
    weight = np.ones(value.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    label = np.arange(len(value)) if documents is None else np.asarray(documents)
    if value.ndim != 1 or weight.shape != value.shape or label.shape != value.shape:
        got = f"{value.shape}, {label.shape}, {weight.shape}"
        raise DataError("values, documents and weights do not fit", where="per_document", got=got, expected="(N,) each")
    if not bool(np.isfinite(weight).all()) or bool((weight < 0).any()):
        raise DataError("a weight is negative or not finite", where="per_document")
    names, index = np.unique(label, return_inverse=True)
    there = ~np.isnan(value)
    place, known = index[there], weight[there]
    columns = [np.bincount(place, weights=column, minlength=len(names)) for column in (value[there] * known, known)]
    return np.stack(columns, axis=1)


def estimate(
    sums: ArrayLike,
    statistic: Statistic = ratio,
    *,
    n: int = 0,
    number: int = 1000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
) -> Estimate:
    """Return a metric's value and its interval, by the percentile bootstrap over documents.

    Args:
        sums: (D, K) of each document; :func:`per_document` makes the (D, 2) of a mean.
        statistic: metric of sums over documents.
        n: passed on to the result.
        number: R.
        seed: of the resamplings.
        level: share of resamplings that the interval holds.

    Raises:
        DataError: not a table of sums, or no document.
        ConfigError: a setting out of range.
    """
    table = _table(sums, "sums")
    _check(number, level)
    resampled = _resampled(table, statistic, number, seed)
    return Estimate(float(statistic(table.sum(axis=0))), *interval(resampled, level), n)


def difference(
    sums: ArrayLike,
    baseline: ArrayLike,
    statistic: Statistic = ratio,
    *,
    n: int = 0,
    number: int = 1000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
    exchanges: int | None = None,
) -> Difference:
    """Return how much a predictor's metric exceeds a baseline's on the same documents, its interval, and a p-value.

    The p-value is (1 + number of exchanges with a difference at least as great) / (1 + R): it is never 0, and never
    below its nominal rate. Where all 2^D exchanges are no more than R, each is tried once, and it is exact.

    Args:
        sums: (D, K) of the predictor.
        baseline: (D, K) of the other one, the same documents in the same order.
        statistic, n, number, seed, level: see :func:`estimate`.
        exchanges: R of the p-value, ``number`` by default. No p-value is below 1 / (1 + R): where many are corrected
            for their number, R has to be several times as great as that over the level.

    Raises:
        DataError: tables that do not fit each other, or no document.
        ConfigError: a setting out of range.
    """
    left, right = _table(sums, "sums"), _table(baseline, "baseline")
    if left.shape != right.shape:
        raise DataError("not the same documents", where="baseline", got=right.shape, expected=left.shape)
    _check(number, level)
    tried = number if exchanges is None else exchanges
    _check(tried, level)
    observed = float(statistic(left.sum(axis=0)) - statistic(right.sum(axis=0)))
    resampled = _resampled(left, statistic, number, seed) - _resampled(right, statistic, number, seed)
    return Difference(observed, *interval(resampled, level), n, _p_value(left, right, statistic, tried, seed))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values of one family of tests, corrected for their number (Holm 1979).

    If those below 0.05 are taken for real, the chance that *any* of them is not is at most 0.05, however the tests hang
    together. ``None`` and NaN stand for tests that were not made, and count for nothing.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None and not np.isnan(p))
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - place)))
        found[i] = highest
    return found


def interval(resampled: Array, level: float = 0.95) -> tuple[float, float]:
    """Return the quantiles between which the share ``level`` of (R,) resampled values lies; NaN are left out."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(table: Array, statistic: Statistic, number: int, seed: int | Sequence[int]) -> Array:
    return np.asarray(statistic(draws(len(table), number, seed) @ table), dtype=np.float64)


def _p_value(left: Array, right: Array, statistic: Statistic, number: int, seed: int | Sequence[int]) -> float:
    documents, apart = len(left), left - right
    total = left.sum(axis=0) + right.sum(axis=0)
    observed = abs(float(statistic(left.sum(axis=0)) - statistic(right.sum(axis=0))))
    if np.isnan(observed):
        return 1.0
    exact = documents < 31 and 2**documents <= number
    rows, as_great = 2**documents if exact else number, 0
    generator = np.random.default_rng(seed)
    step = max(_BLOCK // documents, 1)
    for start in range(0, rows, step):
        size = min(step, rows - start)
        if exact:
            keep = np.arange(start, start + size)[:, None] >> np.arange(documents) & 1
        else:
            keep = generator.integers(0, 2, size=(size, documents))
        # Sums of the left side once it has kept these documents and taken the right side's of the others.
        mixed = right.sum(axis=0) + keep @ apart
        found = np.abs(statistic(mixed) - statistic(total - mixed))
        # Rounding must not tell apart what is equal; an exchange without a value is no evidence.
        as_great += int(((found >= observed * (1 - 1e-9) - 1e-15) | np.isnan(found)).sum())
    return as_great / rows if exact else (1 + as_great) / (1 + rows)


def _table(sums: ArrayLike, where: str) -> Array:
    table: Any = np.asarray(sums, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise DataError("not sums of documents", where=where, got=table.shape, expected="(D, K), D ≥ 1")
    if not bool(np.isfinite(table).all()):
        raise DataError("a sum is not finite", where=f"{where}, row {int((~np.isfinite(table)).any(axis=1).argmax())}")
    return np.asarray(table, dtype=np.float64)


def _check(number: int, level: float) -> None:
    if number < 1:
        raise ConfigError("out of range", where="number", got=number, expected="at least 1")
    if not 0 < level < 1:
        raise ConfigError("out of range", where="level", got=level, expected="between 0 and 1")

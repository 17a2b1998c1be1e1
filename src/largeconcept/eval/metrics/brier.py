"""BrierLM: a yardstick for models that give samples but no likelihoods (CALM, arXiv:2510.27688).

The Brier score of a forecast P for an outcome y is 2 P(y) − Σ P(x)²; like the log-likelihood it is greatest, on
average, for the true distribution alone. Two independent samples a and b estimate it without bias:

    1{a = y} + 1{b = y} − 1{a = b}

Brier-n takes as outcome the first n tokens of what follows, and BrierLM is 100 times the geometric mean of Brier-1 to
Brier-4. Models that write by likelihood and models that only draw samples are so measured alike.

Shape letters: N items.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.statistics import Array

ORDERS = 4
Tokens = Sequence[Hashable]
"""A text in tokens: ids, or words; a string would be taken for its letters and is refused."""


@dataclass(frozen=True, slots=True)
class BrierLM:
    """What :func:`brier_lm` found.

    Attributes:
        value: 100 times the geometric mean of ``scores``; 0 where one of them is not positive.
        scores: Brier-1, Brier-2, …, each between −1 and 1.
        n: number of items.
    """

    value: float
    scores: tuple[float, ...]
    n: int


def brier_lm(
    samples_a: Sequence[Tokens], samples_b: Sequence[Tokens], references: Sequence[Tokens], *, orders: int = ORDERS
) -> BrierLM:
    """Return BrierLM of a model from two samples of each of N items.

    Args:
        samples_a: what the model wrote for each item, without temperature or truncation: the distribution is judged.
        samples_b: what it wrote with other random numbers.
        references: what stands there in truth.
        orders: the longest run of tokens that is compared.

    Raises:
        DataError: no items, other numbers of items, or strings.
        ConfigError: ``orders`` below 1.
    """
    terms = brier_terms(samples_a, samples_b, references, orders=orders)
    sums = np.append(terms.sum(axis=0), len(terms))
    scores = tuple(float(score) for score in sums[:-1] / sums[-1])
    return BrierLM(float(brier_statistic(sums)), scores, len(terms))


def brier_terms(
    samples_a: Sequence[Tokens], samples_b: Sequence[Tokens], references: Sequence[Tokens], *, orders: int = ORDERS
) -> Array:
    """Return (N, orders): the two-sample estimate of Brier-1, Brier-2, … of each item.

    Note: a text that ends before n tokens is an outcome of its own, so that every item counts at every n.

    Raises:
        DataError: no items, other numbers of items, or strings.
        ConfigError: ``orders`` below 1.
    """
    if orders < 1:
        raise ConfigError("out of range", where="orders", got=orders, expected="at least 1")
    numbers = {len(samples_a), len(samples_b), len(references)}
    if len(numbers) > 1 or not references:
        raise DataError(
            "not two samples of each item", where="brier", got=sorted(numbers), expected="one number above 0"
        )
    if any(isinstance(one, str) for one in (*samples_a, *samples_b, *references)):
        raise DataError("not tokens", where="brier", got="str", expected="a list of words or ids of each text")
    terms = np.empty((len(references), orders))
    for row, texts in enumerate(zip(samples_a, samples_b, references, strict=True)):
        for n in range(1, orders + 1):
            a, b, truth = (tuple(text[:n]) for text in texts)
            terms[row, n - 1] = (a == truth) + (b == truth) - (a == b)
    return terms


def brier_statistic(sums: Array) -> Array:
    """Return BrierLM of (…, orders + 1) sums over items of :func:`brier_terms` and, last, the number of items.

    For :func:`largeconcept.eval.statistics.estimate`, whose rows are then sums over the items of a document.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = sums[..., :-1] / sums[..., -1:]
        # An estimate below 0 has no geometric mean: the model is not better than one that never writes the same twice.
        value = 100.0 * np.exp(np.log(np.maximum(scores, 0.0)).mean(axis=-1))
    return np.asarray(value)

"""BrierLM: a yardstick for models that give samples but no likelihoods (CALM, arXiv:2510.27688).

The Brier score of a forecast P for an outcome y is 2 P(y) − Σ P(x)²; like the log-likelihood it is greatest, on
average, for the true distribution alone. Independent samples x_1 … x_K, two or more, estimate it without bias: the
share of samples that are y stands for P(y), and the share of pairs of samples that are alike for Σ P(x)²,

    2/K Σ_k 1{x_k = y} − 2/(K (K − 1)) Σ_(j<k) 1{x_j = x_k}

With two samples that is 1{a = y} + 1{b = y} − 1{a = b}, the estimate of the paper; more of them scatter less.

Brier-n takes as outcome the first n tokens of what follows, and BrierLM is 100 times the geometric mean of Brier-1 to
Brier-4. Models that write by likelihood and models that only draw samples are so measured alike. Where a Brier-n is
truly near 0, its estimate is often below, and there is no geometric mean: BrierLM is then 0, and says no more than that
these items do not tell that Brier-n from 0.

Note: the paper counts tokens of its tokenizer; tokens here are whatever is given (words, in the task
``next_sentence``), so figures of other tokens do not compare.

Shape letters: K samples, N items.
"""

from __future__ import annotations

from collections import Counter
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


def brier_lm(samples: Sequence[Sequence[Tokens]], references: Sequence[Tokens], *, orders: int = ORDERS) -> BrierLM:
    """Return BrierLM of a model from two or more samples of each of N items.

    Args:
        samples: K times what the model wrote for the N items, each time with other random numbers, without temperature
            or truncation: the distribution is judged.
        references: what stands there in truth.
        orders: the longest run of tokens that is compared.

    Raises:
        DataError: no items, other numbers of items, fewer than two samples, or strings.
        ConfigError: ``orders`` below 1.
    """
    terms = brier_terms(samples, references, orders=orders)
    sums = np.append(terms.sum(axis=0), len(terms))
    scores = tuple(float(score) for score in sums[:-1] / sums[-1])
    return BrierLM(float(brier_statistic(sums)), scores, len(terms))


def brier_terms(samples: Sequence[Sequence[Tokens]], references: Sequence[Tokens], *, orders: int = ORDERS) -> Array:
    """Return (N, orders): the estimate of Brier-1, Brier-2, … of each item; see :func:`brier_lm`.

    Note: a text that ends before n tokens is an outcome of its own, so that every item counts at every n.

    Raises:
        DataError: no items, other numbers of items, fewer than two samples, or strings.
        ConfigError: ``orders`` below 1.
    """
    if orders < 1:
        raise ConfigError("out of range", where="orders", got=orders, expected="at least 1")
    if len(samples) < 2:
        raise DataError("not two samples of each item", where="brier", got=len(samples), expected="two or more")
    numbers = {len(references), *map(len, samples)}
    if len(numbers) > 1 or not references:
        raise DataError(
            "not as many samples as references", where="brier", got=sorted(numbers), expected="one number above 0"
        )
    if any(isinstance(one, str) for group in (*samples, references) for one in group):
        raise DataError("not tokens", where="brier", got="str", expected="a list of words or ids of each text")
    count = len(samples)
    terms = np.empty((len(references), orders))
    for row, (truth, *drawn) in enumerate(zip(references, *samples, strict=True)):
        for n in range(1, orders + 1):
            found = Counter(tuple(text[:n]) for text in drawn)
            alike = sum(times * (times - 1) for times in found.values())
            terms[row, n - 1] = 2 * found[tuple(truth[:n])] / count - alike / (count * (count - 1))
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

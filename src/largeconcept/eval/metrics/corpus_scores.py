"""BLEU and chrF of many sentences from counts of each, so that sentences can be drawn anew without counting again.

Both are functions of sums over sentences; with :mod:`largeconcept.eval.statistics` that gives their intervals. They
equal sacrebleu's corpus scores with its default settings (tests compare them).

Shape letters: N sentences, D documents, G groups (languages), K counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from largeconcept.codec.metrics import bleu_tokenizer
from largeconcept.errors import DataError
from largeconcept.eval.statistics import Array, Statistic

BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2.0
BLEU_COUNTS, CHRF_COUNTS = 2 + 2 * BLEU_ORDER, 3 * CHRF_ORDER


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str], lang: str = "eng_Latn") -> Array:
    """Return (N, 10): length of each sentence and of its reference, n-grams in both, n-grams of the sentence."""
    metric, rows = _bleu(bleu_tokenizer(lang)), np.zeros((len(hypotheses), BLEU_COUNTS))
    for row, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        found = metric.corpus_score([hypothesis], [[reference]])
        rows[row] = [found.sys_len, found.ref_len, *found.counts, *found.totals]
    return rows


def bleu_of(sums: Array) -> Array:
    """Return BLEU (0–100) of (…, 10) summed counts, with sacrebleu's exponential smoothing; NaN without references."""
    length, wanted = sums[..., 0], sums[..., 1]
    right, tried = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    with np.errstate(divide="ignore", invalid="ignore"):
        brevity = np.where(length < wanted, np.exp(1 - wanted / length), 1.0)
        missed = np.cumsum(right == 0, axis=-1)
        precision = np.where(right > 0, right, 0.5**missed) / tried
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    nothing = (right == 0).all(axis=-1) | (tried == 0).any(axis=-1)
    return np.asarray(np.where(wanted > 0, np.where(nothing, 0.0, score), np.nan))


def chrf_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Return (N, 18): for runs of 1 … 6 characters those of each sentence, of its reference, and of both."""
    rows = np.zeros((len(hypotheses), CHRF_COUNTS))
    for row, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        ours, theirs = "".join(hypothesis.split()), "".join(reference.split())
        for n in range(1, CHRF_ORDER + 1):
            left, right = _runs(ours, n), _runs(theirs, n)
            counts = [left.total() if right else 0, right.total(), (left & right).total()]
            rows[row, 3 * (n - 1) : 3 * n] = counts
    return rows


def chrf_of(sums: Array) -> Array:
    """Return chrF2 (0–100) of (…, 18) summed counts; NaN without references."""
    ours, theirs, both = (sums[..., i::3] for i in range(3))
    known = (ours > 0) & (theirs > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = known.sum(axis=-1)
        precision = np.where(known, both / ours, 0.0).sum(axis=-1) / orders
        recall = np.where(known, both / theirs, 0.0).sum(axis=-1) / orders
        factor = CHRF_BETA**2
        score = 100 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.asarray(np.where(theirs[..., 0] > 0, np.nan_to_num(score), np.nan))


def by_document(counts: Sequence[Array], labels: Sequence[Sequence[Hashable]]) -> Array:
    """Return (D, G K): counts summed over the sentences of each document, the groups' columns side by side.

    Args:
        counts: for each of G groups (N_g, K).
        labels: for each group the documents of its sentences; one document may be in several groups, as a text is
            in several languages.

    Raises:
        DataError: another number of labels than of sentences, or no sentence.
    """
    if [len(one) for one in counts] != [len(one) for one in labels]:
        got = f"{[len(one) for one in labels]} labels"
        raise DataError("sentences and labels differ in number", expected=[len(one) for one in counts], got=got)
    places: dict[Hashable, int] = {}
    for one in labels:
        for label in one:
            places.setdefault(label, len(places))
    if not places:
        raise DataError("no sentences")
    width = counts[0].shape[1]
    table = np.zeros((len(places), width * len(counts)))
    for group, (rows, names) in enumerate(zip(counts, labels, strict=True)):
        index = [places[name] for name in names]
        np.add.at(table[:, group * width : (group + 1) * width], index, rows)
    return table


def mean_of_groups(statistic: Statistic, groups: int) -> Statistic:
    """Return the statistic's mean over groups, of sums as :func:`by_document` lays them out; without those that have
    no value in a resampling."""

    def mean(sums: Array) -> Array:
        values = statistic(sums.reshape(*sums.shape[:-1], groups, -1))
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1))

    return mean


def _runs(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


@lru_cache(maxsize=16)
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer)

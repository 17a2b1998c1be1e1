"""What is copied, repeated and varied in a text: counts of runs of words, and chrF.

The LCM paper (arXiv:2412.08821, section 4.1) reports OVL-3 and REP-4. They are the paper's here, of words; the code
published with it counts runs of *characters*, of which the same few come again in any text, so that the figures in its
tables are greater.

A metric without anything to count is ``None``: an empty text has no repetitions, but is no varied text either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from largeconcept.errors import ConfigError
from largeconcept.eval.metrics.words import Text, joined, words


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return all runs of n tokens, in order.

    Raises:
        ConfigError: n below 1.
    """
    if n < 1:
        raise ConfigError("out of range", where="n", got=n, expected="at least 1")
    return list(zip(*(tokens[i:] for i in range(n))))


def overlap_3(prediction: Text, source: Text, lang: str | None = None) -> float | None:
    """Return OVL-3: the share of the source's distinct runs of three words that the prediction has too.

    0 shares nothing, 1 copies everything. ``None`` for a source of fewer than three words. Raises as
    :func:`~largeconcept.eval.metrics.words.words`.
    """
    there = set(ngrams(words(source, lang), 3))
    return len(there & set(ngrams(words(prediction, lang), 3))) / len(there) if there else None


def repetition_4(text: Text, lang: str | None = None) -> float | None:
    """Return REP-4: how many runs of four words a text has for each distinct one, less one.

    0 repeats nothing; there is no upper bound: 1 says everything twice, 9 ten times. ``None`` for a text of fewer than
    four words. Raises as :func:`~largeconcept.eval.metrics.words.words`.
    """
    runs = ngrams(words(text, lang), 4)
    return len(runs) / len(set(runs)) - 1 if runs else None


def seq_rep_4(text: Text, lang: str | None = None) -> float | None:
    """Return seq-rep-4: the share of a text's runs of four words that stood in it before.

    See arXiv:1908.04319, equation 8. 0 repeats nothing, and 1 is never reached: where REP-4 is r, this is r / (1 + r).
    ``None`` for a text of fewer than four words. Raises as :func:`~largeconcept.eval.metrics.words.words`.
    """
    runs = ngrams(words(text, lang), 4)
    return 1 - len(set(runs)) / len(runs) if runs else None


def distinct(texts: Iterable[Text], n: int, lang: str | None = None) -> float | None:
    """Return distinct-n: distinct runs of n words of all texts together, over their number (arXiv:1510.03055).

    It falls with the amount of text: compare predictors on the same items only. ``None`` without any run of n words.

    Raises:
        ConfigError: n below 1.
        DataError, LanguageError: as :func:`~largeconcept.eval.metrics.words.words`.
    """
    runs = [run for text in texts for run in ngrams(words(text, lang), n)]
    return len(set(runs)) / len(runs) if runs else None


def length_ratio(prediction: Text, reference: Text, lang: str | None = None) -> float | None:
    """Return how many times as many words as the reference (or the source) a text has; ``None`` where that has none.

    Both are of one language: words and characters are not compared. Raises as
    :func:`~largeconcept.eval.metrics.words.words`.
    """
    length = len(words(reference, lang))
    return len(words(prediction, lang)) / length if length else None


def chrf(prediction: Text, reference: Text, others: Sequence[Text] = ()) -> float:
    """Return chrF2 (0–100) of a text by sacrebleu: runs of up to six characters, of the best reference.

    Args:
        prediction: the text to judge.
        reference: what it should be.
        others: other references.

    Raises:
        DataError: not a text.
    """
    references = [" ".join(joined(one).split()) for one in (reference, *others)]
    return float(_chrf().sentence_score(" ".join(joined(prediction).split()), references).score)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()

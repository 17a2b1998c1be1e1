"""ROUGE (Lin 2004, https://aclanthology.org/W04-1013): words that a text shares with a reference, as F-measures.

On English the figures are those of the package ``rouge-score`` 0.1.2 without stemming, which papers report; a list of
sentences is what that package wants as lines. Other languages differ in the words only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from largeconcept.eval.metrics.ngrams import ngrams
from largeconcept.eval.metrics.words import Text, rouge_words, sentences

Array: TypeAlias = NDArray[Any]
ROUGE = ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum")
_CELLS = 1 << 24  # of tables held at once


def rouge(prediction: Text, reference: Text, lang: str | None = None, others: Sequence[Text] = ()) -> dict[str, float]:
    """Return ROUGE-1, -2, -L and -Lsum, 0–100.

    * ``rouge_1``, ``rouge_2``: words, and pairs of words, in common, each counted as often as both have it;
    * ``rouge_l``: longest common subsequence of the whole texts;
    * ``rouge_lsum``: of each sentence of the reference, the words that lie on a longest common subsequence with any
      sentence of the prediction. What a summary of several sentences is judged by.

    Where a text or its pairs of words are empty the figure is 0, also of two empty texts.

    Args:
        prediction: the text to judge, or its sentences.
        reference: what it should be, or its sentences.
        lang: of both, a code that :func:`largeconcept.languages.flores` reads. English is cut into words as by
            ``rouge-score``, what is in no language or another one as by
            :func:`~largeconcept.eval.metrics.words.words`.
        others: other references; of each figure the best one counts.

    Raises:
        DataError: not a text.
        LanguageError: ``lang`` is not a language code at all.
    """
    judged = _cut(prediction, lang)
    found = [_scores(judged, _cut(one, lang)) for one in (reference, *others)]
    return {name: max(scores[name] for scores in found) for name in ROUGE}


def _cut(text: Text, lang: str | None) -> list[list[str]]:
    """Words of each sentence."""
    return [rouge_words(sentence, lang) for sentence in sentences(text, lang)]


def _scores(prediction: list[list[str]], reference: list[list[str]]) -> dict[str, float]:
    left, right = list(chain.from_iterable(prediction)), list(chain.from_iterable(reference))
    scores = {}
    for n in (1, 2):
        a, b = Counter(ngrams(left, n)), Counter(ngrams(right, n))
        scores[f"rouge_{n}"] = _f_measure((a & b).total(), a.total(), b.total())
    scores["rouge_l"] = _f_measure(_common_length(left, right), len(left), len(right))
    scores["rouge_lsum"] = _f_measure(_common_of_sentences(prediction, reference), len(left), len(right))
    return scores


def _f_measure(common: int, predicted: int, wanted: int) -> float:
    """2 P R / (P + R) of P = common / predicted and R = common / wanted, in percent."""
    return 200.0 * common / (predicted + wanted) if common else 0.0


def _common_length(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time in one integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    everything = (1 << len(left)) - 1
    row = everything  # a zero at i: the subsequence grows at word i
    for word in right:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & everything
    return len(left) - row.bit_count()


def _common_of_sentences(prediction: list[list[str]], reference: list[list[str]]) -> int:
    """Words of the reference on common subsequences (section 3.2), each counted at most as often as both texts have it.

    Note: the paper counts a word of the prediction once for every sentence of the reference that it fits; the original
    program and ``rouge-score`` use it up, as here.
    """
    left = Counter(chain.from_iterable(prediction))
    right = Counter(chain.from_iterable(reference))
    names = {word: i for i, word in enumerate({**left, **right})}
    longest = max((len(sentence) for sentence in prediction), default=0)
    sizes = np.array([len(sentence) for sentence in prediction])
    table = np.full((len(prediction), longest), -1)
    for row, sentence in enumerate(prediction):
        table[row, : len(sentence)] = [names[word] for word in sentence]
    hits = 0
    for sentence in reference:
        for place in np.flatnonzero(_common_places(np.array([names[word] for word in sentence]), table, sizes)):
            word = sentence[place]
            if left[word] > 0 and right[word] > 0:
                hits += 1
                left[word] -= 1
                right[word] -= 1
    return hits


def _common_places(reference: Array, predictions: Array, sizes: Array) -> Array:
    """Return (R,) boolean: the places in a reference on a longest common subsequence with any of the predictions.

    Of several subsequences as long it is the one that ``rouge-score`` finds.

    Args:
        reference: (R,) words as numbers.
        predictions: (N, L), padded with -1.
        sizes: (N,) their lengths.
    """
    found = np.zeros(len(reference), dtype=bool)
    sharing = np.flatnonzero(np.isin(predictions, reference).any(axis=1))
    step = max(_CELLS // ((len(reference) + 1) * (predictions.shape[1] + 1)), 1)
    for start in range(0, len(sharing), step):
        part = sharing[start : start + step]
        words, left = predictions[part, : sizes[part].max()], sizes[part]
        lengths = np.zeros((len(reference) + 1, len(part), words.shape[1] + 1), dtype=np.int32)
        for i, word in enumerate(reference):
            above = lengths[i]
            # A cell without a match is the greater of those above and to the left: a running maximum of the row.
            cells = np.where(words == word, above[:, :-1] + 1, above[:, 1:])
            np.maximum.accumulate(cells, axis=1, out=lengths[i + 1, :, 1:])
        rows, up = np.arange(len(part)), np.full(len(part), len(reference))
        while len(rows):  # all paths back at once; a path that is at an edge is done
            met = reference[up - 1] == words[rows, left - 1]
            found[up[met] - 1] = True
            aside = ~met & (lengths[up, rows, left - 1] > lengths[up - 1, rows, left])
            up, left = up - ~aside, left - (met | aside)
            going = (up > 0) & (left > 0)
            rows, up, left = rows[going], up[going], left[going]
    return found

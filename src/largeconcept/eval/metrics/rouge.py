"""ROUGE (Lin 2004, https://aclanthology.org/W04-1013): words that a text shares with a reference, as F-measures.

On English the figures are those of the package ``rouge-score`` 0.1.2 without stemming, which papers report; a list of
sentences is what that package wants as lines. Other languages differ in the words only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from largeconcept.eval.metrics.ngrams import ngrams
from largeconcept.eval.metrics.words import Text, rouge_words, sentences

ROUGE = ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum")


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
    hits = 0
    for sentence in reference:
        union = sorted(set().union(*(_common_places(sentence, other) for other in prediction)))
        for place in union:
            word = sentence[place]
            if left[word] > 0 and right[word] > 0:
                hits += 1
                left[word] -= 1
                right[word] -= 1
    return hits


def _common_places(reference: list[str], prediction: list[str]) -> set[int]:
    """Places in the reference of one longest common subsequence: of several the one that ``rouge-score`` finds."""
    if not set(reference) & set(prediction):
        return set()
    names = {word: i for i, word in enumerate(dict.fromkeys(chain(reference, prediction)))}
    row_of = np.array([names[word] for word in prediction])
    table = np.zeros((len(reference) + 1, len(prediction) + 1), dtype=np.int64)
    for i, word in enumerate(reference):
        before = table[i]
        # A cell without a match is the greater of those above and to the left: a running maximum of the row.
        table[i + 1, 1:] = np.maximum.accumulate(np.where(row_of == names[word], before[:-1] + 1, before[1:]))
    i, j = len(reference), len(prediction)
    places = set()
    cells = table.tolist()
    while i and j:
        if reference[i - 1] == prediction[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif cells[i][j - 1] > cells[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places

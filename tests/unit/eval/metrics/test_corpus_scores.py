import numpy as np
import pytest

from largeconcept.codec.metrics import bleu, chrf
from largeconcept.errors import DataError
from largeconcept.eval.metrics.corpus_scores import (
    bleu_counts,
    bleu_of,
    by_document,
    chrf_counts,
    chrf_of,
    mean_of_groups,
)

REFERENCES = [
    "The ball rolled down the long hill and into the river.",
    "Nobody saw it, because it was dark.",
    "Yes.",
    "In 1984 there were 12,500 of them left in the whole country.",
]
HYPOTHESES = [
    "The ball rolled down the hill and into a river.",
    "Nobody saw it, because it was late and dark.",
    "No.",
    "In 1985 there were 12,500 of them in the country.",
]


@pytest.mark.parametrize("chosen", [[0], [1, 2], [0, 1, 2, 3], [3, 3, 0], [2]])
def test_sums_give_the_scores_of_sacrebleu(chosen):
    ours, theirs = [HYPOTHESES[i] for i in chosen], [REFERENCES[i] for i in chosen]
    counts = bleu_counts(HYPOTHESES, REFERENCES)[chosen].sum(axis=0)
    assert float(bleu_of(counts)) == pytest.approx(bleu(ours, theirs), abs=1e-9)
    counts = chrf_counts(HYPOTHESES, REFERENCES)[chosen].sum(axis=0)
    assert float(chrf_of(counts)) == pytest.approx(chrf(ours, theirs), abs=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs", "lang"),
    [
        (["wholly other words stand here now"], ["nothing of this is in there at all"], "eng_Latn"),
        (["one x two y three z four"], ["one a two b three c four"], "eng_Latn"),  # words alone
        ([""], ["Something."], "eng_Latn"),
        (["a"], ["a b c d e f"], "eng_Latn"),
        (["今天下雨了，我们在家。"], ["今天下雪了，我们在家里。"], "zho_Hans"),
        (["Alle kommen heute alle kommen."], ["Alle kommen heute, alle kommen heute."], "deu_Latn"),
    ],
)
def test_edges(ours, theirs, lang):
    assert float(bleu_of(bleu_counts(ours, theirs, lang)[0])) == pytest.approx(bleu(ours, theirs, lang), abs=1e-9)
    assert float(chrf_of(chrf_counts(ours, theirs)[0])) == pytest.approx(chrf(ours, theirs), abs=1e-9)


def test_many_sums_at_once():
    counts = bleu_counts(HYPOTHESES, REFERENCES)
    assert bleu_of(np.stack([counts, counts])).shape == (2, 4)
    assert np.isnan(bleu_of(np.zeros(10))) and np.isnan(chrf_of(np.zeros(18)))


def test_documents_and_groups():
    rows = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0, 20.0]])]
    table = by_document(rows, [["a", "b"], ["b"]])
    assert table.tolist() == [[1, 2, 0, 0], [3, 4, 10, 20]]
    mean = mean_of_groups(lambda sums: sums[..., 0] / sums[..., 1], 2)
    assert float(mean(table.sum(axis=0))) == pytest.approx((4 / 6 + 0.5) / 2)
    with np.errstate(invalid="ignore"):
        assert float(mean(table[0])) == pytest.approx(0.5)  # the second group has nothing here
    with pytest.raises(DataError, match="labels"):
        by_document(rows, [["a"], ["b"]])
    with pytest.raises(DataError, match="no sentences"):
        by_document([np.zeros((0, 2))], [[]])

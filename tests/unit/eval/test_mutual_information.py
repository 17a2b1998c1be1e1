"""Mutual information of predicted sentences with their context, by a judge whose nats are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest_helpers import shown

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.baselines import NearestFollower
from largeconcept.eval.next_concept import score_next_concept, through_text


def oracle(x, lengths, sample_ids):
    return x


class Judge:
    """One nat a word; half a nat for each word that stands in the context."""

    def __init__(self):
        self.prefixes = []

    def nats(self, texts, prefixes=None):
        self.prefixes.append(prefixes)
        before = [set(" ".join(lines).split()) for lines in (prefixes or [[]] * len(texts))]
        rows = [[word for line in lines for word in line.split()] for lines in texts]
        nats = [sum(0.5 if word in known else 1.0 for word in row) for row, known in zip(rows, before, strict=True)]
        return torch.tensor(nats, dtype=torch.float64), torch.tensor([len(row) for row in rows])


TEXTS = (["one two", "one three four five", "six"], ["red blue", "blue red"])


def told(codec):
    return [SimpleNamespace(concepts=codec.encode(text), sentences=text, lang="eng_Latn") for text in TEXTS]


def test_mutual_information_by_hand():
    codec = ToyCodec()
    judge = Judge()
    report = score_next_concept(
        oracle,
        told(codec),
        ConceptNormalizer.identity(codec.dim),
        baselines={"look": NearestFollower(codec.encode(["one two"]), codec.encode(["red one"]), ["red one"])},
        training_mean=codec.encode(["six"])[0],
        round_trip=through_text(codec),
        language_model=judge,
        num_bootstrap=50,
    )
    # The oracle writes the true sentences: of 4 + 1 + 2 words "one", "blue" and "red" were there before.
    value = report.scores["model"]["mutual_information"].mean
    assert value == pytest.approx(3 * 0.5 / 7)
    assert report.scores["truth"]["mutual_information"].mean == value
    assert report.differences["truth"]["mutual_information"].mean == 0
    # Copying says "one two", "one three four five" and "red blue": all eight words were there.
    assert report.scores["copy_last"]["mutual_information"].mean == pytest.approx(0.5)
    # The look-up says "red one" three times: "one" twice after the first text, "red" once after the second.
    assert report.scores["look"]["mutual_information"].mean == pytest.approx(3 * 0.5 / 6)
    assert report.scores["training_mean"]["mutual_information"].mean == 0  # "six", which came up nowhere before
    assert report.scores["model"]["round_trip_l2"].mean == pytest.approx(0)
    assert "l2" not in report.scores["truth"] and set(report.differences["truth"]) == {"mutual_information"}
    assert "mutual information" in shown(report.table())
    assert report.beats("training_mean", "mutual_information") or value <= 0


def test_contexts_are_the_ten_true_sentences_before_also_across_windows():
    codec, judge = ToyCodec(), Judge()
    long = [f"sentence {i}" for i in range(15)]
    documents = [*told(codec), SimpleNamespace(concepts=codec.encode(long), sentences=long, lang=None)]
    score_next_concept(
        oracle,
        documents,
        ConceptNormalizer.identity(codec.dim),
        round_trip=through_text(codec),
        language_model=judge,
        max_length=8,
        num_bootstrap=5,
    )
    given = {tuple(prefix) for prefixes in judge.prefixes for prefix in prefixes or []}
    assert tuple(long[4:14]) in given and tuple(long[:1]) in given and tuple(long[:9]) in given
    assert tuple(long[:8]) not in given  # the first concept of a window is not predicted
    assert max(map(len, given)) == 10


@pytest.mark.parametrize("together", [1, 4, 1000])
def test_texts_are_written_together_and_belong_to_their_documents(monkeypatch, together):
    monkeypatch.setattr("largeconcept.eval.next_concept.TOGETHER", together)
    codec, calls = ToyCodec(), []

    class Counting(ToyCodec):
        def decode(self, concepts, lang, **settings):
            calls.append((len(concepts), list(lang)))
            return super().decode(concepts, lang, **settings)

    documents = told(codec)
    documents[1].lang = "fra_Latn"
    counting = Counting()
    counting.remember([text for document in documents for text in document.sentences])
    report = score_next_concept(
        lambda x, lengths, ids: x + 0.01,
        documents,
        ConceptNormalizer.identity(codec.dim),
        baselines={"look": NearestFollower(codec.encode(["one two"]), codec.encode(["red one"]), ["red one"])},
        training_mean=codec.encode(["six"])[0],
        round_trip=through_text(counting),
        language_model=Judge(),
        num_bootstrap=5,
    )
    assert report.sums["model"]["mutual_information"].tolist() == [[0.5, 5], [1.0, 2]]
    assert report.sums["look"]["mutual_information"].tolist() == [[1.0, 4], [0.5, 2]]
    assert report.sums["model"]["round_trip_l2"][:, 1].tolist() == [2, 1]
    assert report.sums["model"]["round_trip_l2"][:, 0] == pytest.approx([0, 0], abs=1e-5)
    english, french = [(2, ["eng_Latn"] * 2), (1, ["eng_Latn"])], [(1, ["fra_Latn"])] * 2
    whole = [(3, ["eng_Latn"] * 2 + ["fra_Latn"]), (2, ["eng_Latn", "fra_Latn"])]
    assert calls == (english + french if together == 1 else whole)  # predictions, then the constant, once a language


def test_mutual_information_needs_text():
    codec = ToyCodec()
    identity = ConceptNormalizer.identity(codec.dim)
    with pytest.raises(ConfigError, match="through_text"):
        score_next_concept(oracle, told(codec), identity, language_model=Judge())
    with pytest.raises(DataError, match="sentences"):
        bare = [document.concepts for document in told(codec)]
        score_next_concept(oracle, bare, identity, language_model=Judge(), round_trip=through_text(codec))
    with pytest.raises(DataError, match="differ in number"):
        wrong = SimpleNamespace(concepts=codec.encode(["a b", "c"]), sentences=["a b"], id="w")
        score_next_concept(oracle, [wrong, wrong], identity)

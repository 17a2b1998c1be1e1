from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.data.prepare.near_duplicates import MinHash, ShingleSets, WordHasher, jaccard, shingle_sets
from largeconcept.errors import ConfigError

VOCABULARY = [f"w{i}" for i in range(2000)]


def sets_of(documents: list[list[str]], width: int = 5) -> ShingleSets:
    hasher = WordHasher()
    words = [np.array(hasher(document), np.uint64) for document in documents]
    offsets = np.cumsum([0, *map(len, words)]).astype(np.int64)
    return shingle_sets(np.concatenate([*words, np.zeros(0, np.uint64)]), offsets, width)


def plain_shingles(words: list[str], width: int = 5) -> set[tuple[str, ...]]:
    """The definition, with Python's sets."""
    if len(words) < width:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


def plain_jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    common = len(one & other)
    return common / max(len(one) + len(other) - common, 1)


def edited(words: list[str], rate: float, rng: random.Random) -> list[str]:
    return [rng.choice(VOCABULARY) if rng.random() < rate else word for word in words]


documents = st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=6)


@given(documents, documents, st.integers(1, 6))
@settings(max_examples=60)
def test_jaccard_is_that_of_the_definition(left: list[list[str]], right: list[list[str]], width: int) -> None:
    pairs = np.array([(i, j) for i in range(len(left)) for j in range(len(right))], np.int64)
    found = jaccard(sets_of(left, width), sets_of(right, width), pairs)
    one, other = ([plain_shingles(words, width) for words in texts] for texts in (left, right))
    wanted = [plain_jaccard(one[i], other[j]) for i, j in pairs.tolist()]
    assert found == pytest.approx(wanted)


@given(documents, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_order_and_company_do_not_matter(texts: list[list[str]], rng: random.Random) -> None:
    order = list(range(len(texts)))
    rng.shuffle(order)
    whole, shuffled = sets_of(texts), sets_of([texts[i] for i in order])
    alone = [sets_of([text]) for text in texts]
    minhash = MinHash(bands=4, rows=2)
    for place, i in enumerate(order):
        assert (whole[i] == shuffled[place]).all()
        assert (whole[i] == alone[i][0]).all()
        assert (minhash.signatures(whole)[i] == minhash.signatures(shuffled)[place]).all()
        assert (minhash.signatures(whole)[i] == minhash.signatures(alone[i])[0]).all()
    taken = whole.take(np.array(order, np.int64))
    assert (taken.shingles == shuffled.shingles).all()
    assert (taken.offsets == shuffled.offsets).all()


def test_candidates_against_exact_jaccard_of_all_pairs() -> None:
    """Precision and recall on 120 documents and 240 more or less edited copies of them, and as many strangers."""
    rng = random.Random(7)
    index = [[rng.choice(VOCABULARY) for _ in range(rng.randint(8, 200))] for _ in range(120)]
    queries = [edited(words, rate, rng) for words in index for rate in (rng.uniform(0, 0.06), rng.uniform(0.06, 0.3))]
    queries += [[rng.choice(VOCABULARY) for _ in range(100)] for _ in range(240)]
    plain = [plain_shingles(words) for words in index]
    exact = np.array([[plain_jaccard(query, other) for other in plain] for query in map(plain_shingles, queries)])
    minhash = MinHash()
    left, right = sets_of(queries), sets_of(index)
    ours, theirs = minhash.signatures(right), minhash.signatures(left)
    pairs = minhash.candidates(ours, theirs)
    found = np.zeros(exact.shape, bool)
    found[pairs[:, 0], pairs[:, 1]] = True
    wanted = exact >= 0.5
    assert wanted.sum() > 100
    assert (found & wanted).sum() / wanted.sum() >= 0.99  # recall of the bands
    # The estimate alone, without the exact comparison of candidates.
    estimate = (theirs[:, None] == ours[None]).mean(axis=2)
    assert abs(estimate - exact).max() < 0.2
    assert abs((estimate - exact)[wanted].mean()) < 0.02
    close = estimate >= 0.5
    assert (close & wanted).sum() / close.sum() > 0.9
    assert (close & wanted).sum() / wanted.sum() > 0.9
    # Candidates compared exactly: nothing that is not so similar, and the most similar one.
    best, similarity = minhash.find(right, left, 0.5)
    for query in range(len(queries)):
        if best[query] >= 0:
            assert similarity[query] == pytest.approx(exact[query].max())
            assert exact[query, best[query]] == pytest.approx(similarity[query])
        else:
            assert similarity[query] == 0
    assert (best >= 0).sum() >= 0.99 * wanted.any(axis=1).sum()
    # Few candidates are in vain: dissimilar documents hardly ever meet.
    assert found[exact < 0.1].mean() < 0.02


def test_how_likely_a_pair_is_found() -> None:
    minhash = MinHash(bands=2, rows=1)
    assert minhash.probability(0.5) == pytest.approx(0.75)
    assert MinHash().probability(0.5) > 0.99
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):  # two thirds of each set in common: similarity 0.5
        values = rng.integers(0, 2**64, 120, dtype=np.uint64)
        one, other = (ShingleSets(np.sort(part), np.array([0, 90])) for part in (values[:90], values[30:]))
        hits += len(minhash.candidates(minhash.signatures(one), minhash.signatures(other)))
    assert hits / 400 == pytest.approx(0.75, abs=0.08)


def test_documents_without_words_are_like_nothing() -> None:
    texts = sets_of([[], ["a"] * 9, []])
    best, similarity = MinHash().find(texts, texts, 0.1)
    assert best.tolist() == [-1, 1, -1]
    assert similarity.tolist() == [0, 1, 0]
    none = sets_of([])
    assert MinHash().find(none, texts, 0.5)[0].tolist() == [-1, -1, -1]
    assert len(MinHash().find(texts, none, 0.5)[0]) == 0


def test_documents_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    texts = sets_of([[rng.choice(VOCABULARY) for _ in range(n)] for n in (30, 0, 500, 7, 90)])
    whole = MinHash().signatures(texts)
    monkeypatch.setattr("largeconcept.data.prepare.near_duplicates._WORDS", 40)
    rng = random.Random(1)
    again = sets_of([[rng.choice(VOCABULARY) for _ in range(n)] for n in (30, 0, 500, 7, 90)])
    assert (again.shingles == texts.shingles).all()
    assert (again.offsets == texts.offsets).all()
    monkeypatch.setattr("largeconcept.data.prepare.near_duplicates._CHUNK", 50)
    assert (MinHash().signatures(texts) == whole).all()


def test_no_bands() -> None:
    with pytest.raises(ConfigError, match="bands and rows"):
        MinHash(bands=0)

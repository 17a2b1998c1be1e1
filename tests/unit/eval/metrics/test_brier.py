"""BrierLM against its closed form, and what it rewards."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from letter_tokenizer import LetterTokenizer

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.metrics.brier import brier_lm, brier_statistic, brier_terms
from largeconcept.eval.metrics.words import words
from largeconcept.eval.statistics import estimate
from largeconcept.generate.token_lm import TokenOptions, predict_next_sentences
from largeconcept.models.token_lm import TokenLM, TokenLMConfig

# Equally likely outcomes, so that listing all pairs of samples is the expectation: P(x) = 1/2, P(y) = P(z) = 1/4.
OUTCOMES = ["x", "x", "y", "z"]
P = {"x": 0.5, "y": 0.25, "z": 0.25}


def test_one_item_by_hand():
    def term(*samples, truth, orders=1):
        return brier_terms([[list(one)] for one in samples], [list(truth)], orders=orders).tolist()[0]

    assert term("ab", "ac", truth="ab", orders=2) == [1, 1]
    assert term("a", "a", truth="b") == [-1]  # sure and wrong
    assert term("a", "c", truth="b") == [0]  # unsure and wrong
    assert term("b", "c", truth="b") == [1]
    assert term("b", "b", truth="b") == [1]
    # One of four is right, one of six pairs is alike.
    assert term("b", "c", "c", "d", truth="b") == pytest.approx([2 / 4 - 1 / 6])


@pytest.mark.parametrize("truth", ["x", "y"])
@pytest.mark.parametrize("number", [2, 3])
def test_the_estimate_is_without_bias(truth, number):
    """All tuples of samples: their mean is 2 P(y) − Σ P(x)²."""
    tuples = list(product(OUTCOMES, repeat=number))
    samples = [[[one[k]] for one in tuples] for k in range(number)]
    terms = brier_terms(samples, [[truth]] * len(tuples), orders=1)
    assert terms.mean() == pytest.approx(2 * P[truth] - sum(p * p for p in P.values()))


def test_runs_of_independent_tokens_have_a_closed_form():
    """Of n independent tokens Brier-n is 2 P(y₁)…P(yₙ) − (Σ P²)ⁿ, exactly, over all pairs of pairs of tokens."""
    texts = list(product(OUTCOMES, OUTCOMES))
    pairs = list(product(texts, texts))
    found = brier_lm([[a for a, _ in pairs], [b for _, b in pairs]], [("x", "y")] * len(pairs), orders=2)
    square = 0.375
    expected = (2 * 0.5 - square, 2 * 0.125 - square**2)
    assert found.scores == pytest.approx(expected) and found.n == 256
    assert found.value == pytest.approx(100 * math.sqrt(expected[0] * expected[1]))


def drawn(generator, probability, n):
    return [[str(token) for token in row] for row in generator.choice(3, size=(n, 4), p=probability)]


def test_the_true_distribution_is_best():
    generator = np.random.default_rng(0)
    truth = [0.6, 0.3, 0.1]
    references = drawn(generator, truth, 20000)
    values = {
        name: brier_lm([drawn(generator, p, 20000), drawn(generator, p, 20000)], references)
        for name, p in {"true": truth, "flat": [1 / 3] * 3, "sure": [1, 0, 0], "other": [0.1, 0.3, 0.6]}.items()
    }
    assert values["true"].scores == pytest.approx([0.46**n for n in range(1, 5)], abs=0.02)
    assert values["true"].value == pytest.approx(100 * 0.46**2.5, rel=0.05)
    assert values["true"].value > max(values[name].value for name in ("flat", "sure", "other"))
    # Always the commonest token: 2 · 0.6ⁿ − 1, below 0 from n = 2 on, so no geometric mean.
    assert values["sure"].scores[0] == pytest.approx(0.2, abs=0.02) and values["sure"].value == 0


def test_more_samples_scatter_less():
    generator = np.random.default_rng(0)
    p = [0.5, 0.3, 0.2]
    references = drawn(generator, p, 4000)
    two, six = (brier_terms([drawn(generator, p, 4000) for _ in range(k)], references) for k in (2, 6))
    expected = [0.38**n for n in range(1, 5)]
    for terms in (two, six):
        error = terms.std(axis=0) / math.sqrt(len(terms))
        assert (abs(terms.mean(axis=0) - expected) < 4 * error).all()
    assert (six.std(axis=0) < 0.75 * two.std(axis=0)).all()


def test_a_token_model_of_known_distribution():
    """With weights of zero all tokens that may begin a sentence are equally likely; as words some are the same."""
    tokenizer = LetterTokenizer()
    model = TokenLM(TokenLMConfig(vocab_size=tokenizer.vocab_size, num_layers=1, model_dim=8, num_heads=2)).eval()
    torch.nn.init.zeros_(model.embedding.weight)
    texts = [[chr(97 + (i + j) % 26) for j in range(9)] for i in range(40)]
    begins = [token for token in range(tokenizer.vocab_size) if token > 3]
    outcomes = Counter(tuple(words(tokenizer.decode([[token]])[0])) for token in begins)
    total = sum(outcomes.values())
    square = sum((count / total) ** 2 for count in outcomes.values())
    expected = sum(2 * outcomes[tuple(words(text))] / total - square for row in texts for text in row[1:]) / (40 * 8)
    samples = []
    for seed in range(4):
        options = TokenOptions(temperature=1.0, max_tokens=1, seed=seed)
        drawn_texts = predict_next_sentences(model, tokenizer, texts, options, sample_ids=range(len(texts)))
        samples.append([words(text) for row in drawn_texts for text in row])
    terms = brier_terms(samples, [words(text) for row in texts for text in row[1:]], orders=1)
    assert abs(terms.mean() - expected) < 4 * terms.std() / math.sqrt(len(terms))
    assert terms.std() / math.sqrt(len(terms)) < 0.05 and square > 0.1  # told from 0


def test_copies_of_the_truth_and_of_nothing():
    references = [["a", "b", "c", "d", "e"], ["f"], []]
    assert brier_lm([references, references], references).value == pytest.approx(100)
    wrong = [["q"] * 5] * 3
    assert brier_lm([wrong, wrong], references).scores == (-1.0,) * 4


def test_a_text_that_ends_is_an_outcome():
    terms = brier_terms([[["a"]], [["a", "b"]]], [["a"]])
    assert terms.tolist() == [[1, 1, 1, 1]]  # the first has ended as it should, the second has not
    assert brier_terms([[["a", "b"]], [["a", "b"]]], [["a"]]).tolist() == [[1, -1, -1, -1]]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from("ab"), max_size=5)] * 3), min_size=1, max_size=8))
def test_bounds_and_symmetry(items):
    a, b, references = ([list(one) for one in column] for column in zip(*items, strict=True))
    found, swapped = brier_lm([a, b], references), brier_lm([b, a], references)
    assert found == swapped and all(-1 <= score <= 1 for score in found.scores) and 0 <= found.value <= 100
    assert brier_lm([references, references], references).value == pytest.approx(100)


def test_intervals_over_documents():
    generator = np.random.default_rng(1)
    p = [0.6, 0.3, 0.1]
    terms = brier_terms([drawn(generator, p, 4000), drawn(generator, p, 4000)], drawn(generator, p, 4000))
    rows = np.concatenate([terms, np.ones((4000, 1))], axis=1).reshape(400, 10, 5).sum(axis=1)  # ten to a document
    found = estimate(rows, brier_statistic)
    assert found.mean == pytest.approx(float(brier_statistic(rows.sum(axis=0))))
    assert found.low < 100 * 0.46**2.5 < found.high


def test_refusals():
    with pytest.raises(DataError, match="as many samples"):
        brier_lm([[["a"]], [["a"], ["b"]]], [["a"]])
    with pytest.raises(DataError, match="as many samples"):
        brier_lm([[], []], [])
    with pytest.raises(DataError, match="two samples"):
        brier_lm([[["a"]]], [["a"]])
    with pytest.raises(DataError, match="not tokens"):
        brier_lm([["abc"], ["abc"]], ["abc"])
    with pytest.raises(ConfigError, match="orders"):
        brier_lm([[["a"]], [["a"]]], [["a"]], orders=0)

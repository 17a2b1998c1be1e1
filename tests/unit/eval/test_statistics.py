"""Intervals and p-values: small cases by hand, coverage, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from largeconcept.errors import ConfigError, DataError
from largeconcept.eval.statistics import difference, draws, estimate, holm, per_document, perplexity, ratio

tables = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(0.1, 10))


def means(values):
    return per_document(values)


def test_sums_of_documents_by_hand():
    sums = per_document([1.0, 2.0, math.nan, 4.0], ["a", "b", "a", "a"], [1, 2, 5, 3])
    assert sums.tolist() == [[13.0, 4.0], [4.0, 2.0]]
    assert float(ratio(sums.sum(axis=0))) == pytest.approx(17 / 6)


def test_draws_keep_the_number_of_documents_and_follow_the_seed():
    first, again, other = draws(7, 50, 3), draws(7, 50, 3), draws(7, 50, 4)
    assert (first.sum(axis=1) == 7).all() and (first == again).all() and (first != other).any()


def test_the_interval_of_a_mean_is_that_of_its_bootstrap():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = estimate(means(values), n=400, number=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean()) and found.n == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    narrow = estimate(means(values), number=4000, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_documents_are_resampled_whole():
    """A hundred copies of a prediction in each of ten documents say no more than one of each."""
    values = np.arange(10.0)
    whole = estimate(per_document(np.repeat(values, 100), np.repeat(np.arange(10), 100)), seed=1)
    single = estimate(means(values), seed=1)
    assert (whole.low, whole.high) == pytest.approx((single.low, single.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    found = [estimate(means(generator.exponential(1.0, 60)), number=300, seed=i) for i in range(200)]
    covered = np.mean([one.low <= 1.0 <= one.high for one in found])
    assert 0.87 <= covered <= 0.99


def test_perplexity_is_of_all_tokens():
    sums = np.array([[math.log(2) * 3, 3.0], [math.log(8) * 1, 1.0]])
    assert estimate(sums, perplexity).mean == pytest.approx(2 ** ((3 + 3) / 4))


def test_exact_p_value_by_hand():
    """Three documents, each better by 1: of 8 exchanges two are as far apart."""
    found = difference(means([1.0, 2.0, 3.0]), means([0.0, 1.0, 2.0]))
    assert found.mean == pytest.approx(1.0) and found.p == pytest.approx(2 / 8)
    # 1, 1 and -1: a mean of 1/3, which every exchange reaches.
    assert difference(means([1.0, 1.0, 0.0]), means([0.0, 0.0, 1.0])).p == pytest.approx(1.0)


def test_a_drawn_p_value_agrees_with_the_exact_one():
    generator = np.random.default_rng(2)
    left, right = means(generator.normal(0.4, 1, 9)), means(generator.normal(0, 1, 9))
    exact, drawn = difference(left, right, number=512).p, difference(left, right, number=511, seed=5).p
    assert exact != drawn and abs(exact - drawn) < 0.06


def test_p_values_of_equal_predictors_are_uniform():
    generator = np.random.default_rng(1)
    found = [
        difference(means(generator.normal(size=20)), means(generator.normal(size=20)), number=199, seed=i).p
        for i in range(300)
    ]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.09
    assert 0.42 <= np.mean(np.array(found) <= 0.5) <= 0.58
    assert min(found) >= 1 / 200


def test_a_clear_difference_is_seen_and_pairing_helps():
    generator = np.random.default_rng(0)
    base = generator.normal(0, 10, 50)
    left, right = means(base + 0.5 + generator.normal(0, 0.1, 50)), means(base)
    found = difference(left, right)
    assert 0.4 < found.low < found.mean < found.high < 0.6 and found.p < 0.01
    assert estimate(left).low < estimate(right).high  # their own intervals overlap


@settings(max_examples=40, deadline=None)
@given(tables, st.integers(0, 5))
def test_differences_are_antisymmetric_and_nothing_differs_from_itself(table, seed):
    other = np.random.default_rng(seed).permutation(table)
    one = difference(table, other, number=50, seed=seed)
    two = difference(other, table, number=50, seed=seed)
    assert one.mean == pytest.approx(-two.mean) and (one.low, one.high) == pytest.approx((-two.high, -two.low))
    same = difference(table, table, number=50, seed=seed)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert 0 < one.p <= 1
    found = estimate(table, number=50, seed=seed)
    lowest, highest = ratio(table).min(), ratio(table).max()
    assert lowest - 1e-9 <= found.low <= found.high <= highest + 1e-9


def test_a_metric_that_nothing_has():
    found = estimate(per_document([math.nan, math.nan]))
    assert math.isnan(found.mean) and math.isnan(found.low)
    assert difference(per_document([math.nan]), per_document([1.0])).p == 1.0


def test_refusals():
    with pytest.raises(DataError, match="not the same documents"):
        difference(means([1.0]), means([1.0, 2.0]))
    with pytest.raises(DataError, match="sums of documents"):
        estimate(np.zeros((0, 2)))
    with pytest.raises(DataError, match=r"sums, row 1"):
        estimate([[1.0, 1.0], [math.inf, 1.0]])
    with pytest.raises(DataError, match="do not fit"):
        per_document([1.0, 2.0], ["a"])
    with pytest.raises(DataError, match="negative"):
        per_document([1.0], weights=[-1.0])
    with pytest.raises(ConfigError, match="level"):
        estimate(means([1.0]), level=1.0)
    with pytest.raises(ConfigError, match="number"):
        estimate(means([1.0]), number=0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # A greater one is not corrected below a smaller one; what was not tested is not counted.
    assert holm([0.5, None, 0.4, math.nan]) == [pytest.approx(0.8), None, pytest.approx(0.8), None]
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]


def test_exchanges_decide_how_small_a_p_value_can_be():
    own, other = means(np.arange(1.0, 41.0)), means(np.arange(40) - 40.0)
    few, many = (difference(own, other, number=50, exchanges=n).p for n in (None, 5000))
    assert few == pytest.approx(1 / 51) and many == pytest.approx(1 / 5001)


def test_resamplings_are_drawn_once_and_cannot_be_changed():
    found = draws(7, 5, 3)
    assert draws(7, 5, 3) is found and draws(7, 5, (3, 1)) is not found
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1

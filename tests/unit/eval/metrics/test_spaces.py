import numpy as np
import pytest
import torch

from largeconcept.errors import DataError
from largeconcept.eval.metrics.spaces import space_figures

DIM = 16


def sample(documents=60, each=5, scale=None, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(documents * each, DIM, generator=generator)
    x = x * (torch.ones(DIM) if scale is None else scale) + shift
    return x, [i // each for i in range(len(x))]


def test_a_gaussian_fills_its_space():
    found = space_figures(*sample())
    assert found["participation_ratio"].low < DIM < found["participation_ratio"].high
    assert found["isotropy"].mean == pytest.approx(found["participation_ratio"].mean / DIM)
    assert found["variance"].mean == pytest.approx(DIM, rel=0.1)
    assert found["norm"].mean == pytest.approx(DIM**0.5, rel=0.05)
    assert found["mean_cosine"].low < 0 < found["mean_cosine"].high


def test_known_eigenvalues():
    scale = torch.zeros(DIM)
    scale[:4] = torch.tensor([3.0, 1.0, 1.0, 1.0])
    found = space_figures(*sample(400, 5, scale), number=200)
    expected = (9 + 3) ** 2 / (81 + 3)
    assert found["participation_ratio"].mean == pytest.approx(expected, rel=0.1)
    assert found["participation_ratio"].low < expected < found["participation_ratio"].high
    assert found["variance"].mean == pytest.approx(12, rel=0.1)


def test_few_concepts_do_not_look_flat():
    """The plain quotient of 24 concepts in 16 channels is about 10, not 16."""
    plain, ours = [], []
    for seed in range(12):
        x, documents = sample(12, 2, seed=seed)
        values = torch.linalg.eigvalsh(torch.cov(x.T))
        plain.append(float(values.sum() ** 2 / values.square().sum()))
        ours.append(space_figures(x, documents, number=5)["participation_ratio"].mean)
    assert np.mean(plain) < 12 and np.mean(ours) == pytest.approx(DIM, rel=0.15)


def test_collapsed_spaces():
    point = space_figures(*sample(shift=100.0))
    assert point["mean_cosine"].mean > 0.99
    line = space_figures(*sample(scale=torch.tensor([5.0] + [0.01] * (DIM - 1))))
    assert line["participation_ratio"].mean == pytest.approx(1, abs=0.05)
    healthy = space_figures(*sample())
    assert line["isotropy"].high < healthy["isotropy"].low
    same = space_figures(torch.ones(6, DIM), [0, 0, 1, 1, 2, 2])
    assert same["variance"].mean == 0 and np.isnan(same["participation_ratio"].mean)


def test_documents_are_what_is_resampled():
    """Concepts of one document are copies of each other: as good as one."""
    x, _ = sample(40, 1)
    one = space_figures(x, list(range(40)))["variance"]
    many = space_figures(x.repeat_interleave(10, dim=0), [i // 10 for i in range(400)])["variance"]
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)
    loose = space_figures(x.repeat_interleave(10, dim=0), list(range(400)))["variance"]
    assert loose.high - loose.low < 0.6 * (one.high - one.low)


def test_many_documents_share_groups():
    found = space_figures(*sample(500, 1), number=50)
    assert found["norm"].n == 500 and found["participation_ratio"].mean == pytest.approx(DIM, rel=0.1)


def test_bad_input():
    with pytest.raises(DataError, match="two documents"):
        space_figures(torch.randn(4, 3), [1, 1, 1, 1])
    with pytest.raises(DataError, match="two documents"):
        space_figures(torch.randn(0, 3), [])
    with pytest.raises(DataError, match="shape"):
        space_figures(torch.randn(4, 3), [1, 2])
    with pytest.raises(DataError, match="finite"):
        space_figures(torch.full((2, 3), float("nan")), [1, 2])

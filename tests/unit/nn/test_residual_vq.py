"""Residual vector quantiser and its k-means: closed forms, exact recovery, the beam, files, complaints."""

import json
from importlib.util import find_spec

import pytest
import torch

from largeconcept.errors import CheckpointError, ConfigError, DataError, DependencyError
from largeconcept.nn import kmeans as kmeans_module
from largeconcept.nn.kmeans import kmeans, nearest
from largeconcept.nn.residual_vq import QuantizerConfig, ResidualVectorQuantizer

BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.skipif(find_spec("faiss") is None, reason="no faiss"))]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(number, dim=24, seed=0):
    """Vectors as concepts are: clusters, and channels that go together."""
    centers = random(12, dim, seed=99) @ random(dim, dim, seed=98) / dim**0.5
    which = torch.randint(12, (number,), generator=torch.Generator().manual_seed(seed))
    return 2 * centers[which] + random(number, 6, seed=seed + 1) @ random(6, dim, seed=97) / 2


def quantizer_of(codebooks):
    q, v, c = codebooks.shape
    return ResidualVectorQuantizer(QuantizerConfig(dim=c, num_quantizers=q, codebook_size=v), codebooks)


@pytest.fixture(scope="module")
def fitted():
    return ResidualVectorQuantizer.fit(correlated(2000), 6, 16, backend="torch")


@pytest.mark.parametrize("backend", BACKENDS)
def test_kmeans_finds_separated_clusters(backend):
    centers = 40 * random(9, 5)
    points = (centers.unsqueeze(1) + 0.1 * random(9, 30, 5, seed=3)).flatten(0, 1)
    found = kmeans(points[torch.randperm(270)], 9, seed=4, backend=backend)
    index, distance = nearest(centers, found)
    assert sorted(index.tolist()) == list(range(9))
    torch.testing.assert_close(found[index], points.view(9, 30, 5).mean(1), rtol=1e-4, atol=1e-4)
    assert distance.max() < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_cluster_is_empty_and_the_seed_decides(backend):
    x = correlated(600)
    found = kmeans(x, 200, seed=1, backend=backend)
    assert len(nearest(x, found)[0].unique()) == 200
    assert torch.equal(found, kmeans(x, 200, seed=1, backend=backend))
    assert not torch.equal(found, kmeans(x, 200, seed=2, backend=backend))


def test_lloyd_repairs_empty_clusters():
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    found = kmeans_module.lloyd(x, torch.tensor([[0.5], [500.0]]), 5)
    assert sorted(found.flatten().tolist()) == [0.5, 10.5]


def test_more_centroids_than_different_vectors():
    found = kmeans(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(6, 1), 5, backend="torch")
    assert found.isfinite().all() and nearest(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), found)[1].max() == 0


def test_only_a_part_of_many_vectors_is_used(monkeypatch):
    monkeypatch.setattr(kmeans_module, "POINTS_PER_CENTROID", 4)
    seen = []
    monkeypatch.setattr(kmeans_module, "lloyd", lambda x, start, _: seen.append(len(x)) or start)
    kmeans(random(100, 3), 5, backend="torch")
    assert set(seen) == {20}


def test_a_vector_near_the_mean_does_not_take_all_others(monkeypatch):
    """In many dimensions all vectors are nearer to their mean than to each other."""
    x = torch.cat((torch.zeros(1, 300), random(1200, 300)))
    start = x[:12]
    assert torch.bincount(nearest(x, kmeans_module.lloyd(x, start, 20))[0]).max() > 1000
    monkeypatch.setattr(kmeans_module, "spread", lambda x, number, generator: start)
    counts = torch.bincount(nearest(x, kmeans(x, 12, backend="torch"))[0])
    assert counts.max() < 300 and len(counts) == 12


def test_nearest_is_the_nearest(monkeypatch):
    monkeypatch.setattr(kmeans_module, "_SCORES", 50)  # several pieces
    x, centroids = random(31, 7), random(9, 7, seed=1)
    index, distance = nearest(x, centroids)
    expected = torch.cdist(x, centroids).square().min(dim=1)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(distance, expected.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("unseen", [False, True])
def test_every_codebook_brings_the_sum_nearer(passes, unseen):
    quantizer = ResidualVectorQuantizer.fit(correlated(2000), 6, 16, passes=passes, backend="torch")
    errors = quantizer.errors(correlated(500, seed=7) if unseen else correlated(2000))
    assert (errors.diff() < 0).all()
    assert errors[-1] < 0.1 * errors[0]


def test_passes_improve_the_codebooks():
    x = correlated(3000)
    plain = ResidualVectorQuantizer.fit(x, 4, 16, backend="torch")
    better = ResidualVectorQuantizer.fit(x, 4, 16, passes=4, backend="torch")
    beamed = ResidualVectorQuantizer.fit(x, 4, 16, passes=4, beam=4, backend="torch")
    assert better.errors(x)[-1] < plain.errors(x)[-1]
    assert beamed.errors(x, beam=4)[-1] < better.errors(x, beam=4)[-1] * 1.02
    again = ResidualVectorQuantizer.fit(x, 4, 16, passes=4, backend="torch")
    assert torch.equal(again.codebooks, better.codebooks)


def test_sums_of_codewords_are_recovered_exactly():
    codebooks = random(3, 8, 10) * torch.tensor([100.0, 10.0, 1.0]).view(3, 1, 1)
    indices = torch.randint(8, (50, 3), generator=torch.Generator().manual_seed(1))
    quantizer = quantizer_of(codebooks)
    x = quantizer.decode(indices)
    assert torch.equal(quantizer.encode(x), indices)
    torch.testing.assert_close(quantizer(x), x)


def test_fitting_on_all_sums_of_codewords_leaves_no_error():
    coarse, fine = 50 * random(6, 4), random(5, 4, seed=1)
    x = (coarse.unsqueeze(1) + fine).flatten(0, 1)
    quantizer = ResidualVectorQuantizer.fit(x, 2, 6, backend="torch")
    torch.testing.assert_close(quantizer(x), x, rtol=1e-4, atol=1e-4)


def test_fit_takes_several_batches(fitted):
    x = correlated(2000)
    again = ResidualVectorQuantizer.fit(iter(x.split(700)), 6, 16, backend="torch")
    assert torch.equal(again.codebooks, fitted.codebooks)
    assert again.config.num_samples == 2000


def test_a_beam_is_never_worse_and_often_better(fitted, monkeypatch):
    x = random(400, 24, seed=5)
    error = [(fitted(x, beam=width) - x).square().sum(-1) for width in (1, 2, 8)]
    for wider in error[1:]:
        assert (wider <= error[0] + 1e-4).all()
    assert error[2].mean() < 0.98 * error[0].mean()
    monkeypatch.setattr("largeconcept.nn.residual_vq._SCORES", 1000)  # in pieces
    torch.testing.assert_close((fitted(x, beam=8) - x).square().sum(-1), error[2])


def test_a_wide_beam_finds_the_best_of_all_sums():
    quantizer = quantizer_of(random(3, 4, 5))
    x = random(20, 5, seed=6)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    best = torch.cdist(x, quantizer.decode(every)).min(dim=1).values
    torch.testing.assert_close((quantizer(x, beam=64) - x).norm(dim=-1), best)


def test_partial_sums(fitted):
    x = correlated(12).view(3, 4, 24)
    indices = fitted.encode(x)
    assert indices.shape == (3, 4, 6) and indices.dtype == torch.int64
    parts = torch.stack([fitted.codebooks[q][indices[..., q]] for q in range(6)]).cumsum(0)
    for number in range(1, 7):
        torch.testing.assert_close(fitted.decode(indices, number), parts[number - 1])
        torch.testing.assert_close(fitted.decode(indices[..., :number]), parts[number - 1])
    assert not fitted.decode(indices, 0).any()
    each = torch.randint(0, 7, (3, 4))
    got = fitted.decode(indices, each)
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        expected = fitted.decode(indices[tuple(place)], int(each[tuple(place)]))
        torch.testing.assert_close(got[tuple(place)], expected)


def test_nothing_to_quantise(fitted):
    assert fitted.encode(torch.zeros(0, 24)).shape == (0, 6)
    assert fitted.encode(torch.zeros(0, 24), beam=3).shape == (0, 6)
    assert fitted(torch.zeros(2, 0, 24)).shape == (2, 0, 24)


def test_save_and_load(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    again = ResidualVectorQuantizer.from_pretrained(tmp_path)
    assert again.config == fitted.config and torch.equal(again.codebooks, fitted.codebooks)
    for change in ({"codebook_size": 15}, {"dim": 23}):
        (tmp_path / "config.json").write_text(json.dumps({**fitted.config.to_dict(), **change}))
        with pytest.raises(CheckpointError, match="another shape"):
            ResidualVectorQuantizer.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        ResidualVectorQuantizer.from_pretrained(tmp_path / "nothing")
    broken = quantizer_of(torch.full((2, 3, 4), float("nan")))
    broken.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="not finite"):
        ResidualVectorQuantizer.from_pretrained(tmp_path)


def test_bad_input_is_named(fitted, monkeypatch):
    x, bad = correlated(40), correlated(40)
    bad[3, 5] = float("nan")
    fit = ResidualVectorQuantizer.fit
    for call, message in (
        (
            lambda: fit([x, x[:, :5]], 2, 4),
            r"vectors, batch 1: wrong shape; expected a tensor \(N, 24\); got \(40, 5\)",
        ),
        (lambda: fit([x, [1.0]], 2, 4), "vectors, batch 1: wrong shape.*got list"),
        (lambda: fit([x, bad], 2, 4), r"vectors, batch 1\[3\]: a vector is not finite"),
        (lambda: fit(x.long(), 2, 4), "vectors: wrong type"),
        (lambda: fit([], 2, 4), "no vectors"),
        (lambda: fit(x, 2, 41), "too few vectors.*at least 41; got 40; lower codebook_size"),
        (lambda: fitted.encode(bad), r"vectors\[3\]: a vector is not finite"),
        (lambda: fitted.encode(x[:, :5]), r"wrong shape; expected \(…, 24\); got \(40, 5\)"),
        (lambda: fitted.decode(torch.zeros(3, 7, dtype=torch.long)), "wrong indices"),
        (lambda: fitted.decode(torch.zeros(3, 6)), "wrong indices"),
        (lambda: fitted.decode(torch.full((3, 6), 16)), "outside the codebook; expected 0 to 15"),
        (lambda: fitted.decode(torch.full((3, 6), -1)), "outside the codebook"),
        (lambda: quantizer_of(torch.zeros(2, 3, 4)).encode(x[:, :4]), "codebooks are empty"),
        (lambda: ResidualVectorQuantizer(QuantizerConfig(dim=4), torch.zeros(2, 3, 4)), "codebooks: wrong shape"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    for call, message in (
        (lambda: fit(x, 2, 4, passes=-1), "passes, decay: out of range"),
        (lambda: fit(x, 2, 4, iterations=-1), "iterations: out of range"),
        (lambda: fit(x, 0, 4), "num_quantizers"),
        (lambda: fitted.encode(x, beam=0), "beam: out of range"),
        (lambda: kmeans(x, 3, backend="scipy"), "unknown backend"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    monkeypatch.setattr(kmeans_module, "find_spec", lambda name: None)
    kmeans(x, 3)  # works without faiss
    with pytest.raises(DependencyError, match="largeconcept\\[quant\\]"):
        kmeans(x, 3, backend="faiss")

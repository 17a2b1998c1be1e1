import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import CheckpointError, ConfigError, DataError


def gaussian(n=4000, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shift, spread = torch.linspace(-3, 5, dim), torch.logspace(-2, 1, dim)
    return torch.randn(n, dim, generator=generator) * spread + shift


@pytest.mark.parametrize("method", ["robust", "standard"])
def test_gaussian_data_becomes_standard(method):
    data = gaussian()
    y = ConceptNormalizer.fit(data.split(77), method).normalize(data)
    assert float(y.median(dim=0).values.abs().max()) < 0.06
    assert float((y.std(dim=0) - 1).abs().max()) < 0.06


def test_robust_equals_the_closed_form():
    data = gaussian(1001)
    normalizer = ConceptNormalizer.fit([data])
    low, middle, high = torch.quantile(data, torch.tensor([0.25, 0.5, 0.75]), dim=0)
    assert torch.allclose(normalizer.center, middle)
    assert torch.allclose(normalizer.scale, 0.741301 * (high - low), rtol=1e-5)


def test_robust_ignores_outliers_and_standard_does_not():
    data = gaussian()
    data[::100] *= 1000
    clean = ConceptNormalizer.fit([gaussian()], "robust").scale
    assert torch.allclose(ConceptNormalizer.fit([data], "robust").scale, clean, rtol=0.05)
    assert bool((ConceptNormalizer.fit([data], "standard").scale > 2 * clean).all())


@pytest.mark.parametrize("method", ["robust", "standard", "none", "meta"])
@pytest.mark.parametrize("fft", [False, True])
def test_there_and_back(method, fft):
    data = gaussian()
    normalizer = ConceptNormalizer.fit(data.split(500), method, fft=fft)
    x = gaussian(64, seed=1).reshape(4, 16, 6)
    y = normalizer.normalize(x)
    assert y.shape == x.shape
    assert torch.allclose(normalizer.denormalize(y), x, atol=2e-5)
    assert torch.equal(y, x) == (method == "none" and not fft)


def test_batches_of_any_length_give_the_same():
    data = gaussian()
    for method in ("robust", "standard", "meta"):
        whole = ConceptNormalizer.fit([data], method)
        for size in (1, 333):
            parts = ConceptNormalizer.fit(iter(data[:1500].split(size)), method)
            again = ConceptNormalizer.fit([data[:0], data[:1500]], method)
            assert torch.allclose(parts.center, again.center, atol=1e-6)
            assert torch.allclose(parts.scale, again.scale, rtol=1e-5)
        assert not torch.equal(whole.center, again.center)


def test_a_sample_of_the_stream_stands_for_it():
    data = gaussian(30_000)
    data = data[data[:, 0].argsort()]  # a sorted stream: taking its head would be far off
    whole = ConceptNormalizer.fit([data])
    sampled = ConceptNormalizer.fit(data.split(1000), max_samples=2000)
    assert bool(((sampled.center - whole.center).abs() < 0.12 * whole.scale).all())
    assert torch.allclose(sampled.scale, whole.scale, rtol=0.12)
    assert sampled.config.num_samples == 30_000
    other_cut = ConceptNormalizer.fit(data.split(7001), max_samples=2000)
    assert torch.equal(sampled.center, other_cut.center) and torch.equal(sampled.scale, other_cut.scale)
    other_seed = ConceptNormalizer.fit(data.split(1000), max_samples=2000, seed=1)
    assert not torch.equal(sampled.center, other_seed.center)


def test_constant_and_sparse_channels():
    data = gaussian()
    data[:, 1] = 0.25
    data[:, 2] = 0.0
    data[::10, 2] = 3.0  # mostly one value: the quartiles coincide
    normalizer = ConceptNormalizer.fit([data])
    y = normalizer.normalize(data)
    assert float(y[:, 1].abs().max()) == 0.0
    assert float(normalizer.scale[1]) == pytest.approx(float(normalizer.scale[[0, 3, 4, 5]].median()))
    assert float(y[:, 2].abs().max()) < 4
    assert torch.allclose(normalizer.denormalize(y), data, atol=1e-5)
    assert float(ConceptNormalizer.fit([data], "meta").scale[1]) == 1.0
    everything_constant = ConceptNormalizer.fit([torch.full((5, 3), 2.0)])
    assert torch.equal(everything_constant.scale, torch.ones(3))


def test_clipping():
    data = gaussian(20_000)
    normalizer = ConceptNormalizer.fit([data], clip_proba=0.01)
    y = normalizer.normalize(data * 10)
    assert float(y.max()) == pytest.approx(2.33, abs=0.15) and float(y.min()) == pytest.approx(-2.33, abs=0.15)
    assert torch.equal(normalizer.denormalize(y.sign() * 100), normalizer.denormalize(y.sign() * 1e6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_always_float32(dtype):
    data = gaussian()
    normalizer = ConceptNormalizer.fit([data])
    before = normalizer.normalize(data)
    wrapped = torch.nn.Sequential(normalizer, torch.nn.Linear(6, 2)).to(dtype)
    assert wrapped[1].weight.dtype == dtype
    assert normalizer.center.dtype == torch.float32
    assert torch.equal(normalizer.normalize(data), before)
    assert normalizer.normalize(data.to(dtype)).dtype == torch.float32
    assert not list(normalizer.parameters())


def test_save_and_load(tmp_path):
    normalizer = ConceptNormalizer.fit([gaussian()], clip_proba=0.001, fft=True)
    normalizer.save_pretrained(tmp_path / "normalizer")
    again = ConceptNormalizer.from_pretrained(tmp_path / "normalizer")
    assert again.config == normalizer.config
    x = gaussian(5, seed=2)
    assert torch.equal(again.normalize(x), normalizer.normalize(x))
    assert torch.equal(ConceptNormalizer.identity(4).normalize(x[:, :4]), x[:, :4])


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        ConceptNormalizer.from_pretrained(tmp_path / "none")
    folder = tmp_path / "normalizer"
    ConceptNormalizer.fit([gaussian()]).save_pretrained(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        ConceptNormalizer.from_pretrained(folder)
    bad = ConceptNormalizer.identity(6)
    for value, message in ((0.0, "not positive"), (float("nan"), "not finite")):
        bad.scale[3] = value
        bad.save_pretrained(folder)
        with pytest.raises(CheckpointError, match=message):
            ConceptNormalizer.from_pretrained(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"dim": 6', '"dim": 7'))
    with pytest.raises(CheckpointError, match="shape"):
        ConceptNormalizer.from_pretrained(folder)
    (folder / "config.json").write_text(text.replace('"dim"', '"dims"'))
    with pytest.raises(ConfigError, match="dim"):
        ConceptNormalizer.from_pretrained(folder)


def test_bad_data_is_refused_with_its_place():
    data = gaussian(100)
    bad = data.clone()
    bad[7, 2] = float("nan")
    with pytest.raises(DataError, match="batch 1, row 7"):
        ConceptNormalizer.fit([data, bad])
    bad[7, 2] = float("inf")
    with pytest.raises(DataError, match="not finite"):
        ConceptNormalizer.fit([bad], "standard")
    with pytest.raises(DataError, match=r"batch 1.*\(N, 6\).*\(100, 5\)"):
        ConceptNormalizer.fit([data, data[:, :5]])
    with pytest.raises(DataError, match="shape"):
        ConceptNormalizer.fit([data[None]])
    for few in ([], [data[:0]], [data[:1]]):
        with pytest.raises(DataError, match="too few"):
            ConceptNormalizer.fit(few)
    with pytest.raises(ConfigError, match="robust"):
        ConceptNormalizer.fit([data], "robus")
    with pytest.raises(ConfigError, match="clip_proba"):
        ConceptNormalizer.fit([data], clip_proba=0.7)
    with pytest.raises(ConfigError, match="even"):
        ConceptNormalizer.fit([data[:, :5]], fft=True)
    with pytest.raises(DataError, match="dimension"):
        ConceptNormalizer.identity(4).normalize(data)
    with pytest.raises(DataError, match="dimension"):
        ConceptNormalizer.identity(4).denormalize(data)

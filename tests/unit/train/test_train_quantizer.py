"""Where a quantised model's codebooks come from in training, and what a run leaves of them."""

from __future__ import annotations

import pytest
import torch
from training_data import build_toy_dataset, toy_run

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.data.reader import ConceptDataset
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.models import load_model
from largeconcept.train import Trainer
from largeconcept.train.config import RunConfig
from largeconcept.train.quantizer import load_quantizer, sample_concepts, save_quantizer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_toy_dataset(tmp_path_factory.mktemp("toy"))


def run(data, out, steps=6, **changes):
    plain = toy_run(data, out, "mse", train__max_steps=steps, train__save_every=3, **changes)
    model = {"num_quantizers": 2, "codebook_size": 4, **plain["model"], "type": "quantized"}
    return RunConfig.from_dict({**plain, "model": model})


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    Trainer(run(data, out), progress=False).fit()
    return out


def test_codebooks_are_fitted_kept_and_saved_with_the_model(finished, data):
    quantizer, normalizer = load_quantizer(finished / "quantizer")
    model = load_model(finished / "model")
    assert torch.equal(model.quantizer.codebooks, quantizer.codebooks) and quantizer.is_fitted
    own = ConceptNormalizer.from_pretrained(finished / "normalizer")
    assert torch.equal(own.center, normalizer.center) and torch.equal(own.scale, normalizer.scale)
    concepts = sample_concepts([ConceptDataset(data, "train")], [1.0], normalizer, 10_000)
    assert len(concepts) == ConceptDataset(data, "train").num_concepts
    errors = quantizer.errors(concepts)
    assert errors[0] > errors[1] > errors[2]


def test_a_stopped_run_goes_on_with_its_codebooks_and_makes_the_same_steps(finished, data, tmp_path):
    Trainer(run(data, tmp_path / "out", steps=3), progress=False).fit()
    written = (tmp_path / "out" / "quantizer" / "model.safetensors").stat().st_mtime_ns
    Trainer(run(data, tmp_path / "out"), progress=False).fit()
    assert (tmp_path / "out" / "quantizer" / "model.safetensors").stat().st_mtime_ns == written  # not fitted again
    whole, parts = load_model(finished / "model"), load_model(tmp_path / "out" / "model")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_codebooks_from_a_folder_and_from_a_model(finished, data, tmp_path):
    quantizer, normalizer = load_quantizer(finished / "quantizer")
    quantizer.codebooks *= 1.5
    save_quantizer(quantizer, normalizer, tmp_path / "mine")
    settings = {"quantizer": str(tmp_path / "mine"), "normalizer": str(tmp_path / "mine" / "normalizer")}
    Trainer(run(data, tmp_path / "out", steps=1, **settings), progress=False).fit()
    model = load_model(tmp_path / "out" / "model")
    assert torch.equal(model.quantizer.codebooks, quantizer.codebooks)
    start = {"train__init_from": str(tmp_path / "out" / "model"), "train__seed": 3}
    Trainer(run(data, tmp_path / "next", steps=1, **start), progress=False).fit()
    assert torch.equal(load_model(tmp_path / "next" / "model").quantizer.codebooks, quantizer.codebooks)


def test_the_sample_is_random_repeatable_and_normalised(data):
    dataset = ConceptDataset(data, "train")
    normalizer = ConceptNormalizer.fit([sample_concepts([dataset], [1.0], ConceptNormalizer.identity(16), 10**6)])
    some = [sample_concepts([dataset], [1.0], normalizer, 100, seed) for seed in (0, 0, 1)]
    assert torch.equal(some[0], some[1]) and 60 < len(some[0]) < 140
    assert some[0].shape != some[2].shape or not torch.equal(some[0], some[2])
    whole = sample_concepts([dataset], [1.0], normalizer, 10**6)
    assert whole.median(dim=0).values.abs().max() < 1e-4
    both = sample_concepts([dataset, dataset], [3.0, 1.0], normalizer, 100)
    assert 95 <= len(both) <= 105


def test_mistakes_are_named(finished, data, tmp_path):
    def fit(**settings):
        Trainer(run(data, tmp_path / "out", steps=1, **settings), progress=False).fit()

    with pytest.raises(CheckpointError, match="no such folder; expected a saved quantizer"):
        fit(quantizer=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"another normalised space.*set normalizer="):
        fit(quantizer=str(finished / "quantizer"), normalizer="standard")
    settings = {"quantizer": str(finished / "quantizer")}
    with pytest.raises(ConfigError, match=r"expected \(3, 4, 16\); got \(2, 4, 16\)"):
        fit(model__num_quantizers=3, **settings)
    with pytest.raises(DataError, match="lower codebook_size"):
        fit(model__codebook_size=100_000)
    plain = toy_run(data, tmp_path / "mse", "mse", quantizer=str(finished / "quantizer"))
    with pytest.raises(ConfigError, match="this model has no codebooks"):
        Trainer(RunConfig.from_dict(plain), progress=False).fit()

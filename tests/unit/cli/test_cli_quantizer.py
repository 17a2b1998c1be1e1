"""``largeconcept quantizer fit``, and training with what it wrote."""

from training_data import build_toy_dataset

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.data.reader import ConceptDataset
from largeconcept.train.quantizer import load_quantizer, sample_concepts


def test_fit(cli, tmp_path):
    data = build_toy_dataset(tmp_path)
    out = cli("quantizer", "fit", data, "--out", tmp_path / "q", "--codebooks", 3, "--size", 8, "--passes", 1).ok()
    lines = out.splitlines()
    dataset = ConceptDataset(data, "train")
    assert lines[-1] == f"{tmp_path / 'q'}: 3 × 8 centroids from {dataset.num_concepts:,} concepts"
    quantizer, normalizer = load_quantizer(tmp_path / "q")
    errors = quantizer.errors(sample_concepts([dataset], [1.0], normalizer, 10**6))
    assert lines[-2].split() == ["3", f"{100 * float(errors[3] / errors[0]):.1f}", "%"]

    cli("normalizer", "fit", data, "--out", tmp_path / "n", "--method", "standard").ok()
    settings = ("--size", 8, "--codebooks", 2, "--normalizer", tmp_path / "n")
    cli("quantizer", "fit", data, "--out", tmp_path / "r", *settings).ok()
    own = ConceptNormalizer.from_pretrained(tmp_path / "n")
    assert (load_quantizer(tmp_path / "r")[1].scale == own.scale).all()


def test_mistakes_are_named(cli, tmp_path):
    data = build_toy_dataset(tmp_path)
    fit = ("quantizer", "fit", data, "--out", tmp_path / "q")
    cli(*fit, "--size", 100_000).error("too few vectors", "lower codebook_size")
    cli(*fit, "--normalizer", "robst").error("unknown method", "robust")
    cli("quantizer", "fit", tmp_path / "nowhere", "--out", tmp_path / "q").error("nowhere")
    assert not (tmp_path / "q").exists()

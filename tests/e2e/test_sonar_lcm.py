"""The path of a user with SONAR's weights, on small random ones in Meta's own files: convert, build, train, write.

With the released files only the paths on the command line differ.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sonar_small import small_decoder, small_encoder, small_tokenizer

from largeconcept.codec import load_codec
from largeconcept.codec.sonar.layouts import HalfWeights, write_half
from largeconcept.generate.pipeline import ConceptPipeline

CORPUS = Path(__file__).resolve().parents[2] / "examples" / "corpus"
SMALL = (
    "model.model_dim=32",
    "model.num_heads=2",
    "train.log_every=1",
    "train.tensorboard=false",
    "train.device=cpu",
    "data.max_length=32",
)
LAYERS = {
    "tiny.two_tower": ("model.num_context_layers=1", "model.num_denoiser_layers=1"),
    "tiny.through_decoder": ("model.num_layers=1",),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder as Meta publishes, of random networks as wide as the released ones, but not as deep."""
    folder = tmp_path_factory.mktemp("published")
    sizes = {"width": 1024, "num_heads": 16, "num_layers": 1}
    halves = {
        "encoder": small_encoder(**sizes, max_tokens=514),
        "decoder": small_decoder(**sizes, max_tokens=512),
    }
    for half, network in halves.items():
        weights = HalfWeights(half, "fairseq2", dict(network.state_dict()))
        torch.save(write_half(weights, "fairseq2"), folder / f"sonar_text_{half}.pt")
    small_tokenizer().save(folder / "sentencepiece.source.256000.model")
    return folder


@pytest.fixture
def data_of(cli, tmp_path):
    """Return a function that builds a dataset of the sample corpus in the space of a codec."""

    def build(codec: str | Path, documents: int | None) -> Path:
        out = tmp_path / "data"
        for split, number in (("train", documents), ("test", documents and max(4, documents // 8))):
            source = CORPUS / split / "*.jsonl"
            if number is not None:
                source = tmp_path / f"{split}.jsonl"
                files = sorted((CORPUS / split).glob("*.jsonl"))
                rows = [file.read_text(encoding="utf-8").splitlines()[i] for i in range(number) for file in files[:6]]
                source.write_text("\n".join(rows[:number]), encoding="utf-8")
            cli("data", "build", source, "--out", out, "--codec", codec, "--split", split).ok()
        return out

    return build


def run(cli, data_of, published, tmp_path, recipe: str, documents: int | None, steps: int) -> ConceptPipeline:
    sonar, model, out = tmp_path / "sonar", tmp_path / "run", tmp_path / "pipeline"
    arguments = [f"--{half}={published / f'sonar_text_{half}.pt'}" for half in ("encoder", "decoder")]
    spm = f"--spm={published / 'sentencepiece.source.256000.model'}"
    cli("convert", "sonar", *arguments, spm, "--out", sonar).ok()
    data = data_of(sonar, documents)
    space = json.loads(cli("data", "inspect", data, "--json").ok())
    assert load_codec(f"sonar:{published}").fingerprint in json.dumps(space), "the folder is the space of the files"

    settings = [*SMALL, *LAYERS[recipe], f"train.max_steps={steps}"]
    trained = json.loads(cli("train", recipe, "--data", data, "--out", model, "-q", "--json", *settings).ok())
    assert trained["steps"] == steps
    cli("export", model, out, "--codec", sonar, "--reference").ok()
    arguments = ["--lang", "spa_Latn", "-n", "2", "--device", "cpu", "-o", "stop_threshold=null", "--json"]
    written = json.loads(cli("generate", "-p", out, *arguments, "-t", "Choose Insert, then Chart. Click OK.").ok())
    assert written["lang"] == "spa_Latn"
    assert len(written["prompt_sentences"]) == 2
    assert 1 <= len(written["sentences"]) <= 2
    cli("eval", "run", out, "--data", data, "--device", "cpu", "--limit", "4").ok()
    return ConceptPipeline.from_pretrained(out, device="cpu")


@pytest.mark.parametrize("recipe", list(LAYERS))
def test_from_published_files_to_text(cli, data_of, published, tmp_path, recipe):
    pipe = run(cli, data_of, published, tmp_path, recipe, documents=24, steps=3)
    prompt = "Tim had a red ball. The ball rolled away."
    texts = {lang: pipe(prompt, max_concepts=2, seed=1, lang=lang, stop_threshold=None) for lang in ("fr", "zh", "hi")}
    first = texts["fr"].concepts
    assert first.shape == (2, 1024)
    assert bool(first.isfinite().all())
    for output in texts.values():  # one thought, three languages
        torch.testing.assert_close(output.concepts, first, atol=0, rtol=0)

    elsewhere = tmp_path / "other"
    other = load_codec(f"sonar:{published}", encoder=published / "sonar_text_encoder.pt")
    other.encoder.layer_norm.bias.data += 1e-3
    other._space = None
    other.save_pretrained(elsewhere)
    with pytest.raises(Exception, match=r"concept space|fingerprint"):
        ConceptPipeline.from_pretrained(tmp_path / "pipeline", codec=elsewhere)


@pytest.mark.slow
def test_the_whole_sample_corpus(cli, data_of, published, tmp_path):
    run(cli, data_of, published, tmp_path, "tiny.two_tower", documents=None, steps=200)

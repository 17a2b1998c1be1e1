"""SONAR's files into a folder and back into every published layout."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from sonar_small import TEXT, small_codec, small_decoder, small_encoder, small_tokenizer, small_tokenizer_model

from largeconcept import load_codec
from largeconcept.codec.sonar import files
from largeconcept.codec.sonar.layouts import HalfWeights, own_names, write_half
from largeconcept.convert.sonar import convert, export
from largeconcept.errors import CheckpointError, ConfigError
from largeconcept.io import read_torch


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(files, "_TOLD", {"SONAR's text weights"})


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(5)
    dead = {
        name: torch.randn((32, 32) if "_proj.weight" in name else (32,), generator=generator)
        for name in own_names("decoder", 2)[1]
    }
    return {
        "encoder": HalfWeights("encoder", "largeconcept", dict(small_encoder().state_dict())),
        "decoder": HalfWeights("decoder", "largeconcept", dict(small_decoder().state_dict()), dead),
    }


@pytest.fixture
def meta(tmp_path, weights):
    folder = tmp_path / "meta"
    folder.mkdir()
    for half, one in weights.items():
        torch.save(write_half(one, "fairseq2"), folder / f"sonar_text_{half}.pt")
    small_tokenizer().save(folder / "sentencepiece.source.256000.model")
    return folder


def same(one, other):
    assert sorted(one) == sorted(other)
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def test_a_folder_and_its_words(meta, tmp_path):
    config = convert(tmp_path / "own", meta, num_heads=4)
    codec, exact = load_codec(tmp_path / "own"), small_codec()
    assert torch.equal(codec.encode(TEXT, "en"), exact.encode(TEXT, "en"))
    assert codec.fingerprint == config["space"] == exact.fingerprint
    assert config == json.loads((tmp_path / "own" / "config.json").read_text())
    for half in ("encoder", "decoder"):
        source = config["sources"][half]
        data = (meta / f"sonar_text_{half}.pt").read_bytes()
        assert source == {
            "file": f"sonar_text_{half}.pt",
            "layout": "fairseq2",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        assert source["sha256"] in (tmp_path / "own" / "README.md").read_text()
    # A folder of a folder remembers the published files.
    again = convert(tmp_path / "half", tmp_path / "own", dtype="float16")
    assert again["sources"] == config["sources"] and again["space"] == config["space"]
    assert again["licence"] == "CC-BY-NC-4.0" and again["stored"]["encoder"]["dtype"] == "float16"


def test_back_as_it_was_published(meta, tmp_path, weights):
    convert(tmp_path / "own", meta, num_heads=4)
    paths = export(tmp_path / "own", tmp_path / "back")
    for half in ("encoder", "decoder"):
        same(read_torch(paths[half])["model"], read_torch(meta / f"sonar_text_{half}.pt")["model"])
    decoder = read_torch(paths["decoder"])["model"]
    assert decoder["final_proj.weight"].data_ptr() == decoder["decoder_frontend.embed.weight"].data_ptr()
    assert (tmp_path / "back" / "sentencepiece.source.256000.model").read_bytes() == small_tokenizer_model()


@pytest.mark.parametrize("layout", ["fairseq", "huggingface"])
def test_through_another_layout(meta, tmp_path, layout):
    convert(tmp_path / "own", meta, num_heads=4)
    export(tmp_path / "own", tmp_path / "theirs", layout)
    config = convert(tmp_path / "second", tmp_path / "theirs", num_heads=4)
    for file in ("encoder.safetensors", "decoder.safetensors", "dead.safetensors", "tokenizer.model"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()
    assert config["sources"]["encoder"]["layout"] == layout
    if layout == "fairseq":
        data = torch.load(tmp_path / "theirs" / "sonar_text_encoder.pt", weights_only=False)
        assert isinstance(data["embed_tokens"], torch.nn.Embedding)  # as Meta's loader expects


def test_models_for_transformers(meta, tmp_path, weights):
    export(meta, tmp_path / "hf", "huggingface", num_heads=4)
    encoder = load_file(tmp_path / "hf" / "encoder" / "model.safetensors")
    same(encoder, write_half(weights["encoder"], "huggingface"))
    decoder = load_file(tmp_path / "hf" / "decoder" / "model.safetensors")
    assert decoder["model.encoder.layer_norm.weight"].eq(1).all()
    config = json.loads((tmp_path / "hf" / "decoder" / "config.json").read_text())
    assert config["architectures"] == ["M2M100ForConditionalGeneration"] and config["encoder_layers"] == 0
    assert config["decoder_attention_heads"] == 4 and config["d_model"] == 32 and config["vocab_size"] == 526


def test_what_is_refused(meta, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(ConfigError, match="the folder holds something else"):
        convert(tmp_path / "mine", meta, num_heads=4)
    with pytest.raises(ConfigError, match="the folder holds something else"):
        convert(meta, meta, num_heads=4)
    with pytest.raises(ConfigError, match="is not a folder"):
        convert(tmp_path / "mine" / "thesis.txt", meta, num_heads=4)
    with pytest.raises(CheckpointError, match="give num_heads"):
        convert(tmp_path / "own", meta)
    with pytest.raises(CheckpointError, match="the file holds the text decoder"):
        convert(tmp_path / "own", meta, encoder=meta / "sonar_text_decoder.pt", num_heads=4)
    assert not (tmp_path / "own").exists()
    for where in ("/proc/nowhere/x", "/dev/null/x"):
        with pytest.raises(CheckpointError, match=f"{where}: cannot be written"):
            convert(where, meta, num_heads=4)
        with pytest.raises(CheckpointError, match=f"{where}: cannot be written"):
            export(meta, where, num_heads=4)
        with pytest.raises(CheckpointError, match=f"{where}: cannot be written"):
            load_codec("sonar", path=meta, num_heads=4).save_pretrained(where)
    with pytest.raises(ConfigError, match="layout"):
        export(meta, tmp_path / "x", "onnx", num_heads=4)


def test_on_the_command_line(cli, meta, tmp_path):
    encoder, decoder = meta / "sonar_text_encoder.pt", meta / "sonar_text_decoder.pt"
    spm = meta / "sentencepiece.source.256000.model"
    own = tmp_path / "own"
    base = ("convert", "sonar", "--out", own)
    result = cli(*base, "--encoder", encoder, "--decoder", decoder, "--spm", spm, "--dtype", "bfloat16", "--heads", 4)
    assert f"{own}: decoder, 2 layers of width 32, bfloat16" in result.ok()
    assert load_codec(own).fingerprint in result.out
    assert f"concept space {small_codec().fingerprint}" in cli(*base, meta, "--heads", 4).ok()
    assert (tmp_path / "back" / "sonar_text_encoder.pt").as_posix() in cli(
        "convert", "sonar-export", own, tmp_path / "back"
    ).ok()
    same(read_torch(tmp_path / "back" / "sonar_text_encoder.pt")["model"], read_torch(encoder)["model"])
    for arguments, said in (
        ((meta, "--heads", 4, "--speech", "eng"), "expected LANG=FILE"),
        ((meta, "--heads", 4, "--speech", "eng=gone.pt"), "gone.pt"),
        ((meta, "--heads", 4, "--dtype", "int8"), "unknown type of weights"),
        ((), "no weights were named"),
        ((tmp_path / "nowhere",), "no such folder"),
        (("--encoder", decoder, "--spm", spm), "holds the text decoder"),
    ):
        cli(*base, *arguments).error(said)
    cli("convert", "sonar-export", own, tmp_path / "x", "--layout", "onnx").error("unknown layout")


def test_a_broken_port_is_named(tmp_path, weights):
    """A full model's checkpoint under an encoder's name, or a truncated one, is no encoder."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "m2m_100", "encoder_attention_heads": 4}))
    small_tokenizer().save(tmp_path / "sentencepiece.bpe.model")
    tensors = write_half(weights["encoder"], "huggingface")
    del tensors["layers.1.fc2.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weights are missing; expected layers\.1\.fc2\.weight"):
        convert(tmp_path / "out", tmp_path)

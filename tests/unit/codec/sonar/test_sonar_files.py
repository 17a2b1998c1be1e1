"""Weights in every layout on disk, our own folder, and what goes wrong with files."""

import json
import sys
import types
import warnings

import pytest
import torch
from conftest_helpers import truncate_file
from safetensors.torch import save_file
from sonar_small import TEXT, small_codec, small_decoder, small_encoder, small_tokenizer
from torch import nn

from largeconcept import load_codec
from largeconcept.codec.sonar import files
from largeconcept.codec.sonar.files import announce_licence, find, open_half
from largeconcept.codec.sonar.folder import verify
from largeconcept.codec.sonar.layouts import HalfWeights, own_names, write_half
from largeconcept.codec.sonar.loading import load_sonar
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError, DependencyError
from largeconcept.io import fingerprint, read_safetensors

HEADS = {"num_heads": 4}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """The licence is not news in these tests, except where it is."""
    monkeypatch.setattr(files, "_TOLD", {"SONAR's text weights"})


def weights_of(half, seed=0):
    module = (small_encoder if half == "encoder" else small_decoder)(seed)
    generator = torch.Generator().manual_seed(5)
    dead = {
        name: torch.randn((32, 32) if "_proj.weight" in name else (32,), generator=generator)
        for name in own_names(half, 2)[1]
    }
    return HalfWeights(half, "largeconcept", dict(module.state_dict()), dead)


def hf_config(half, **more):
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return {"model_type": "m2m_100", "scale_embedding": True, "activation_function": "relu", **heads, **ids, **more}


@pytest.fixture
def meta(tmp_path):
    """A folder as Meta publishes."""
    folder = tmp_path / "meta"
    folder.mkdir()
    torch.save(write_half(weights_of("encoder"), "fairseq2"), folder / "sonar_text_encoder.pt")
    torch.save(write_half(weights_of("decoder"), "fairseq2"), folder / "sonar_text_decoder.pt")
    small_tokenizer().save(folder / "sentencepiece.source.256000.model")
    return folder


def same_as_small(codec, **close):
    exact = small_codec()
    concepts = exact.encode(TEXT, "en")
    torch.testing.assert_close(codec.encode(TEXT, "en"), concepts, **(close or {"atol": 0, "rtol": 0}))
    if not close:
        assert codec.decode(concepts[:4], "fr", max_length=9) == exact.decode(concepts[:4], "fr", max_length=9)


def load(path=None, **options):
    return load_sonar(path, **{"num_heads": 4, **options})


# -------------------------------------------------------------------- layouts on disk


def test_files_of_meta(meta):
    codec = load(meta)
    same_as_small(codec)
    assert codec.fingerprint == small_codec().fingerprint
    assert codec.encoder.config.max_tokens == 514 and codec.decoder.config.max_tokens == 512
    same_as_small(load_codec("sonar", path=meta, **HEADS))
    spm, encoder = meta / "sentencepiece.source.256000.model", meta / "sonar_text_encoder.pt"
    same_as_small(load_codec("sonar", spm=spm, encoder=encoder, decoder=meta / "sonar_text_decoder.pt", **HEADS))
    same_as_small(load(encoder=meta / "sonar_text_encoder.pt", decoder=meta))


def test_the_finetuned_decoder(meta):
    torch.save(write_half(weights_of("decoder", 3), "fairseq2"), meta / "finetuned_decoder.pt")
    first, second = load(meta), load(meta, decoder=meta / "finetuned_decoder.pt")
    assert not torch.equal(first.decoder.embed_tokens.weight, second.decoder.embed_tokens.weight)
    assert first.fingerprint == second.fingerprint
    (meta / "sonar_text_decoder.pt").unlink()
    assert torch.equal(load(meta).decoder.embed_tokens.weight, second.decoder.embed_tokens.weight)


def test_files_of_fairseq(meta):
    for half in ("encoder", "decoder"):
        data = write_half(weights_of(half), "fairseq")
        table = nn.Embedding(*data["embed_tokens"]["weight"].shape)
        table.weight = nn.Parameter(data["embed_tokens"]["weight"])
        torch.save({**data, "embed_tokens": table}, meta / f"sonar_text_{half}.pt")
    codec = load(meta)
    same_as_small(codec)
    assert codec.fingerprint == small_codec().fingerprint


@pytest.mark.parametrize("kind", ["safetensors", "bin", "shards"])
def test_models_of_hugging_face(tmp_path, kind):
    for half in ("encoder", "decoder"):
        folder = tmp_path / half
        folder.mkdir()
        tensors = {name: tensor.contiguous() for name, tensor in write_half(weights_of(half), "huggingface").items()}
        (folder / "config.json").write_text(json.dumps(hf_config(half)))
        if kind == "safetensors":
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        elif kind == "bin":
            torch.save(tensors, folder / "pytorch_model.bin")
        else:
            names = sorted(tensors)
            parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
            for file, part in parts.items():
                save_file({name: tensors[name] for name in part}, folder / file)
            index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    small_tokenizer().save(tmp_path / "encoder" / "sentencepiece.bpe.model")
    codec = load_sonar(encoder=tmp_path / "encoder", decoder=tmp_path / "decoder")
    same_as_small(codec)
    assert codec.encoder.config.max_tokens == 64 and codec.fingerprint == small_codec().fingerprint
    same_as_small(load_codec(f"sonar:{tmp_path}"))
    assert load_sonar(tmp_path / "encoder").decoder is None


def test_one_model_of_hugging_face_with_both_halves(tmp_path):
    tensors = {f"model.encoder.{k}": v for k, v in write_half(weights_of("encoder"), "huggingface").items()}
    tensors |= write_half(weights_of("decoder"), "huggingface")
    (tmp_path / "config.json").write_text(json.dumps(hf_config("decoder")))
    small_tokenizer().save(tmp_path / "sentencepiece.bpe.model")
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "model.safetensors")
    same_as_small(load_sonar(tmp_path))
    # One table for both can only be the decoder's.
    del tensors["model.encoder.embed_tokens.weight"]
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "model.safetensors")
    assert load_sonar(tmp_path).encoder is None
    shared = tensors["model.shared.weight"]
    save_file({**tensors, "model.encoder.embed_tokens.weight": shared.clone()}, tmp_path / "model.safetensors")
    assert load_sonar(tmp_path).encoder is None
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors | {"model.encoder.embed_tokens.weight": shared}, tmp_path / "pytorch_model.bin")
    assert load_sonar(tmp_path).encoder is None


@pytest.mark.parametrize(
    "key, value",
    [("pad_token_id", 0), ("scale_embedding", False), ("activation_function", "gelu"), ("model_type", "bart")],
)
def test_models_of_hugging_face_that_compute_something_else(tmp_path, key, value):
    (tmp_path / "config.json").write_text(json.dumps(hf_config("encoder", **{key: value})))
    save_file(write_half(weights_of("encoder"), "huggingface"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"config.json: {key}: not a model like SONAR's"):
        load_sonar(encoder=tmp_path, spm="unused")


def test_weights_stay_in_the_file(meta):
    """They are mapped; the four rows that change places do so in memory only."""
    before = (meta / "sonar_text_encoder.pt").read_bytes()
    opened = open_half(meta / "sonar_text_encoder.pt", "encoder", num_heads=4)
    table = opened.weights.live["embed_tokens.weight"]
    module = files.build(opened)
    assert module.embed_tokens.weight.data_ptr() == table.data_ptr() and not opened.weights.live
    fairseq = write_half(weights_of("encoder"), "fairseq")
    torch.save(fairseq, meta / "fairseq.pt")
    raw = (meta / "fairseq.pt").read_bytes()
    opened = open_half(meta / "fairseq.pt", "encoder", num_heads=4)
    assert torch.equal(opened.weights.live["embed_tokens.weight"], table)
    assert (meta / "fairseq.pt").read_bytes() == raw and (meta / "sonar_text_encoder.pt").read_bytes() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_types_of_weights(meta, dtype):
    codec = load(meta, dtype=dtype)
    assert {str(p.dtype) for p in codec.network.parameters()} == {f"torch.{dtype}"}
    assert codec.fingerprint == small_codec().fingerprint  # of the weights as published
    same_as_small(codec, **({"atol": 0.05, "rtol": 0.05} if dtype == "bfloat16" else {"atol": 0.01, "rtol": 0.01}))
    with pytest.raises(ConfigError, match=r"dtype: unknown type of weights"):
        load(meta, dtype="int8")


# -------------------------------------------------------------------- our own folder


def test_our_own_folder(meta, tmp_path):
    codec = load(meta)
    mark = codec.save_pretrained(tmp_path / "own")
    assert mark == codec.fingerprint
    back = load_codec(tmp_path / "own")
    same_as_small(back)
    assert back.fingerprint == mark and back.encoder.config == codec.encoder.config
    assert back.metadata["licence"] == "CC-BY-NC-4.0"
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert config["type"] == "sonar" and config["space"] == mark
    stored = read_safetensors(tmp_path / "own" / "encoder.safetensors")
    assert config["stored"]["encoder"]["fingerprint"] == fingerprint(stored)
    card = (tmp_path / "own" / "README.md").read_text()
    assert card.startswith("---\n") and "license: cc-by-nc-4.0" in card and "not for commercial use" in card
    verify(tmp_path / "own")
    dead = read_safetensors(tmp_path / "own" / "dead.safetensors")
    assert {name.removeprefix("decoder.") for name in dead} == set(weights_of("decoder").dead)
    # And once more from there.
    back.save_pretrained(tmp_path / "again")
    for file in ("encoder.safetensors", "decoder.safetensors", "dead.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()


def test_saving_over_itself(meta, tmp_path):
    load(meta).save_pretrained(tmp_path / "own")
    codec = load_codec(tmp_path / "own")
    codec.save_pretrained(tmp_path / "own", dtype="float16")
    same_as_small(load_codec(tmp_path / "own"), atol=0.01, rtol=0.01)
    same_as_small(codec)


def test_another_type_keeps_the_space(meta, tmp_path):
    exact, rounded = load(meta), load(meta, dtype="bfloat16")
    rounded.save_pretrained(tmp_path / "a")
    exact.save_pretrained(tmp_path / "b", dtype="bfloat16")
    one, other = load_codec(tmp_path / "a"), load_codec(tmp_path / "b")
    assert one.fingerprint == other.fingerprint == exact.fingerprint
    assert one.encoder.embed_tokens.weight.dtype == torch.bfloat16
    same_as_small(one, atol=0.05, rtol=0.05)
    stored = [json.loads((tmp_path / name / "config.json").read_text())["stored"] for name in "ab"]
    assert stored[0] == stored[1] and stored[0]["decoder"]["dtype"] == "bfloat16"
    exact.save_pretrained(tmp_path / "c")
    assert json.loads((tmp_path / "c" / "config.json").read_text())["stored"] != stored[0]


def test_half_a_folder(meta, tmp_path):
    load(meta, encoder=False).save_pretrained(tmp_path / "decoder")
    load(meta, decoder=False).save_pretrained(tmp_path / "encoder")
    writer, reader = load_codec(tmp_path / "decoder"), load_codec(tmp_path / "encoder")
    assert writer.encoder is None and reader.decoder is None and writer.space is None
    same_as_small(load_sonar(tmp_path / "encoder", decoder=tmp_path / "decoder"))
    # Without its encoder a folder still knows its space.
    load(meta).save_pretrained(tmp_path / "both")
    assert load_sonar(tmp_path / "both", encoder=False).fingerprint == reader.fingerprint


def test_a_changed_folder(meta, tmp_path):
    own = tmp_path / "own"
    load(meta).save_pretrained(own)
    small = read_safetensors(own / "decoder.safetensors")
    small["layer_norm.bias"][0] += 1
    save_file(small, own / "decoder.safetensors", {"layout": "largeconcept-sonar"})
    load_codec(own)
    with pytest.raises(CheckpointError, match=r"decoder\.safetensors: not the weights that were saved"):
        verify(own)
    model = (own / "tokenizer.model").read_bytes()
    (own / "tokenizer.model").write_bytes(model.replace(b"\x0a", b"\x0a", 1) + b"\x12\x00")
    with pytest.raises(CheckpointError, match=r"not the tokenizer that was saved"):
        load_codec(own)
    (own / "tokenizer.model").write_bytes(model)
    truncate_file(own / "encoder.safetensors", 0.5)
    with pytest.raises(CheckpointError, match=r"truncated"):
        load_codec(own)
    (own / "encoder.safetensors").unlink()
    assert load_codec(own).encoder is None
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(CheckpointError, match=r"newer version"):
        load_codec(own)
    (own / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "stored"}))
    with pytest.raises(CheckpointError, match=r"config.json: stored: damaged"):
        load_codec(own)


@pytest.mark.parametrize(
    "change",
    [
        {"sources": {"encoder": "x"}},
        {"stored": {"encoder": 3}},
        {"space": 5},
        {"encoder": None},
        {"encoder": {"width": 3}},
        {"languages": ["eng_Latn", 3]},
        {"languages": []},
        {"speech": []},
        {"format_version": None},
        {"metadata": None},
    ],
)
def test_a_damaged_config(meta, tmp_path, change):
    load(meta).save_pretrained(tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConceptLMError):
        load_codec(tmp_path / "own")


# -------------------------------------------------------------------- what goes wrong


def test_files_in_the_wrong_place(meta, tmp_path):
    with pytest.raises(CheckpointError, match=r"sonar_text_decoder.pt: the file holds the text decoder"):
        load(meta, encoder=meta / "sonar_text_decoder.pt")
    with pytest.raises(CheckpointError, match=r"sonar_text_encoder.pt: the file holds the text encoder"):
        load(meta, decoder=meta / "sonar_text_encoder.pt")
    with pytest.raises(CheckpointError, match=r"not a SentencePiece model"):
        load(meta, spm=meta / "sonar_text_encoder.pt")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of weights"):
        load(meta, encoder=meta / "sentencepiece.source.256000.model")
    with pytest.raises(CheckpointError, match=r"gone\.pt: file not found"):
        load(meta, encoder=meta / "gone.pt")
    with pytest.raises(CheckpointError, match=r"is a file, not a folder.*encoder="):
        load(meta / "sonar_text_encoder.pt")
    with pytest.raises(CheckpointError, match=r"no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no weights of SONAR in the folder"):
        load(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"no weights were named"):
        load()
    (meta / "sentencepiece.source.256000.model").unlink()
    with pytest.raises(CheckpointError, match=r"no SentencePiece file.*spm=FILE"):
        load(meta)
    (meta / "sonar_text_decoder.pt").unlink()
    with pytest.raises(CheckpointError, match=r"decoder is not in the folder"):
        load(encoder=meta, decoder=meta)


def test_damaged_files(meta):
    path = meta / "sonar_text_encoder.pt"
    truncate_file(path, 0.7)
    with pytest.raises(CheckpointError, match=r"sonar_text_encoder.pt: not a checkpoint of weights"):
        load(meta)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError):
        load(meta)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"no weights"):
        load(meta)
    data = write_half(weights_of("encoder"), "fairseq2")
    data["model"]["encoder.layers.0.ffn.inner_proj.bias"] = torch.zeros(3)
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=r"fc1\.bias: a weight has another shape; expected \(64,\); got \(3,\)"):
        load(meta)
    data["model"]["encoder.layers.0.ffn.inner_proj.bias"] = torch.zeros(64, dtype=torch.int32)
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=r"not a floating-point weight"):
        load(meta)


def test_a_table_of_another_size(meta):
    data = write_half(weights_of("decoder"), "fairseq2")
    table = data["model"]["decoder_frontend.embed.weight"][:-1].clone()
    data["model"] |= {"decoder_frontend.embed.weight": table, "final_proj.weight": table}
    torch.save(data, meta / "sonar_text_decoder.pt")
    with pytest.raises(CheckpointError, match=r"sonar_text_decoder\.pt: the table of the decoder.*526 rows.*got 525"):
        load(meta)


def test_options_that_nobody_knows(meta):
    with pytest.raises(ConfigError, match=r"unknown option.*got dtyp.*did you mean dtype"):
        load_codec("sonar", path=meta, dtyp="float32")
    with pytest.raises(ConfigError, match=r"has no options"):
        load_codec("toy", dtype="float32")
    with pytest.raises(ConfigError, match=r"only sonar has a path"):
        load_codec("toy", path=meta)
    with pytest.raises(ConfigError, match=r"two places"):
        load_codec(f"sonar:{meta}", path=meta)
    with pytest.raises(ConfigError, match=r"no weights were named"):
        load_codec("sonar")


def test_a_folder_that_is_called_sonar(meta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(meta).save_pretrained("sonar")
    load(meta).save_pretrained("other")
    for codec in (load_codec("sonar"), load_codec("sonar", path="sonar"), load_codec("sonar:sonar")):
        same_as_small(codec)
    same_as_small(load_codec("sonar", path=meta, **HEADS))
    (tmp_path / "sonar" / "config.json").write_text("broken")
    same_as_small(load_codec("sonar", path="other"))
    same_as_small(load_codec("sonar", encoder="other", decoder="other"))


# -------------------------------------------------------------------- licence and hub


def test_the_licence_is_told_once(meta, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_TOLD", set())
    with pytest.warns(UserWarning, match=r"SONAR's text weights are licensed CC-BY-NC-4\.0: not for commercial use"):
        codec = load(meta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(meta)
        codec.save_pretrained(tmp_path / "own")
        small_codec().save_pretrained(tmp_path / "mine")
        monkeypatch.setattr(files, "_TOLD", set())
        load_codec(tmp_path / "mine")  # weights of somebody's own
        announce_licence("free weights", "MIT")
    with pytest.warns(UserWarning, match=r"not for commercial use"):
        load_codec(tmp_path / "own")


def test_ids_on_the_hub(meta, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"no folder 'org/sonar'.*largeconcept\[hub\]"):
        load("org/sonar")
    asked = []
    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(meta)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    same_as_small(load("org/sonar"))
    same_as_small(load(encoder="org/encoder", decoder="org/decoder"))
    assert asked[0][0] == "org/sonar" and "org/encoder" in dict(asked)
    assert not any(pattern in ("*.pt", "*") for pattern in asked[0][1])  # not the 58 speech encoders
    monkeypatch.chdir(tmp_path)
    asked.clear()
    same_as_small(load("meta"))
    (tmp_path / "org").mkdir()
    meta.rename(tmp_path / "org" / "sonar")
    same_as_small(load("org/sonar"))
    assert asked == []


def test_what_is_found(meta):
    (meta / "spenc.v3ap.fra.pt").write_bytes(b"")
    (meta / "spenc.other.pt").write_bytes(b"")
    found = find(meta)
    assert found.speech == {"fra": meta / "spenc.v3ap.fra.pt"}
    assert found.encoder == meta / "sonar_text_encoder.pt" and found.decoder == meta / "sonar_text_decoder.pt"
    assert "fra" in load(meta).speech and "fra_Latn" in load(meta).speech


def test_a_decoder_that_a_concept_model_trained(meta, tmp_path):
    from largeconcept.objectives.through_decoder import ThroughDecoderObjective, ThroughDecoderObjectiveConfig

    codec = load(meta)
    objective = ThroughDecoderObjective(ThroughDecoderObjectiveConfig(train_decoder=True), None, codec)
    before = codec.decode(codec.encode(TEXT[:3], "en"), "fr", max_length=9)
    with torch.no_grad():
        for parameter in objective.trained_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    objective.save_codec(tmp_path / "trained")
    back = load_codec(tmp_path / "trained")
    assert back.fingerprint == small_codec().fingerprint
    assert back.metadata["licence"] == "CC-BY-NC-4.0" and "trained on" in back.metadata["decoder"]
    concepts = back.encode(TEXT[:3], "en")
    assert back.decode(concepts, "fr", max_length=9) == codec.decode(concepts, "fr", max_length=9) != before

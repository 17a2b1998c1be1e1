"""Names and row orders of four layouts."""

import re

import pytest
import torch
from sonar_small import small_decoder, small_encoder
from torch import nn

from largeconcept.codec.sonar.layouts import HalfWeights, config_of, own_names, read_half, reordered, write_half
from largeconcept.errors import CheckpointError
from largeconcept.io import read_torch

LAYOUTS = ["fairseq2", "fairseq", "huggingface"]


def whole(half, seed=0, **sizes):
    """A half with its dead tensors drawn too."""
    module = (small_encoder if half == "encoder" else small_decoder)(seed, **sizes)
    live = dict(module.state_dict())
    dead = {}
    for name in own_names(half, 2)[1]:
        wide = module.config.concept_dim if ".k_proj" in name else 32
        shape = (32, wide) if name.endswith("weight") and "norm" not in name else (32,)
        dead[name] = torch.randn(shape, generator=torch.Generator().manual_seed(len(dead)))
    return HalfWeights(half, "largeconcept", live, dead)


def flat(data):
    if "model" in data:
        return data["model"]
    return {**data["state_dict"], "table": data["embed_tokens"]["weight"]} if "state_dict" in data else data


def same(one, other):
    assert sorted(one) == sorted(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(half, layout):
    original = whole(half)
    data = write_half(original, layout)
    assert not set(flat(data)) & {"layers.0.encoder_attn.q_proj.weight"} or layout == "fairseq"
    back = read_half(data, half)
    assert (back.half, back.layout) == (half, layout)
    same(back.live, original.live)
    same(back.dead, original.dead)
    same(flat(write_half(back, layout)), flat(data))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_from_one_to_the_next_and_around(half):
    start = write_half(whole(half), "fairseq2")
    data = start
    for layout in ["huggingface", "fairseq", "huggingface", "fairseq2"]:
        data = write_half(read_half(data, half), layout)
    same(data["model"], start["model"])


def test_names_of_fairseq2():
    encoder = write_half(whole("encoder"), "fairseq2")["model"]
    assert len(encoder) == 1 + 2 + 2 * 16
    assert {"encoder_frontend.embed.weight", "layer_norm.bias", "encoder.layers.1.ffn.output_proj.bias"} <= set(encoder)
    decoder = write_half(whole("decoder"), "fairseq2")["model"]
    assert len(decoder) == 2 + 2 + 2 * 26
    assert decoder["final_proj.weight"] is decoder["decoder_frontend.embed.weight"]
    assert {"decoder.layer_norm.weight", "decoder.layers.0.encoder_decoder_attn_layer_norm.bias"} <= set(decoder)
    assert "decoder.layers.1.encoder_decoder_attn.output_proj.weight" in decoder
    assert (
        "decoder.layers.1.self_attn.output_proj.weight" in decoder and "decoder.layers.1.ffn_layer_norm.bias" in decoder
    )


def test_rows_change_places_once():
    """<pad> <unk> <s> </s> here is <s> <pad> </s> <unk> there."""
    weights = whole("decoder")
    table = weights.live["embed_tokens.weight"].clone()
    theirs = write_half(weights, "huggingface")["model.shared.weight"]
    pad, unk, start, end = table[:4]
    assert torch.equal(theirs[:4], torch.stack([start, pad, end, unk])) and torch.equal(theirs[4:], table[4:])
    assert torch.equal(weights.live["embed_tokens.weight"], table)
    # Under several names, one tensor or copies of it: still once, and only in place where that is allowed.
    for twice in (theirs, theirs.clone()):
        shared = write_half(weights, "huggingface") | {"model.shared.weight": theirs, "lm_head.weight": twice}
        shared["model.decoder.embed_tokens.weight"] = theirs
        assert torch.equal(read_half(shared, "decoder").live["embed_tokens.weight"], table)
        assert torch.equal(theirs[0], start)
    mine = read_half(shared | {"lm_head.weight": theirs}, "decoder", owned=True).live["embed_tokens.weight"]
    assert mine.data_ptr() == theirs.data_ptr() and torch.equal(mine, table)


def test_fairseq2_rows_stay():
    weights = whole("encoder")
    assert torch.equal(
        write_half(weights, "fairseq2")["model"]["encoder_frontend.embed.weight"], weights.live["embed_tokens.weight"]
    )


def test_our_layout_has_to_be_declared():
    """Its names are those of Hugging Face and its rows are not: only the declaration tells."""
    weights = whole("encoder")
    data = write_half(weights, "largeconcept")
    same(read_half(data, "encoder", layout="largeconcept").live, weights.live)
    theirs = read_half(data, "encoder").live["embed_tokens.weight"]
    assert torch.equal(theirs[0], weights.live["embed_tokens.weight"][1])


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_bare_fairseq2_dict(half):
    weights = whole(half)
    same(read_half(write_half(weights, "fairseq2")["model"], half).live, weights.live)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_fairseq_file_with_a_pickled_table(half, tmp_path):
    weights = whole(half)
    data = write_half(weights, "fairseq")
    table = nn.Embedding(*data["embed_tokens"]["weight"].shape, padding_idx=1)
    table.weight = nn.Parameter(data["embed_tokens"]["weight"])
    leftovers = {"version": torch.tensor([3.0]), "embed_positions._float_tensor": torch.zeros(1)}
    if half == "decoder":
        leftovers["embed_tokens.weight"] = table.weight
    torch.save({"state_dict": {**leftovers, **data["state_dict"]}, "embed_tokens": table}, tmp_path / "a.pt")
    back = read_half(read_torch(tmp_path / "a.pt", [nn.Embedding]), half, owned=True)
    same(back.live, weights.live)
    again = write_half(back, "fairseq")["state_dict"]
    assert again["version"] == 3 and "embed_positions._float_tensor" in again
    assert "version" not in write_half(back, "fairseq2")["model"]


def both():
    """One object of Hugging Face with both halves and untied tables."""
    encoder, decoder = whole("encoder"), whole("decoder", 1)
    data = {f"model.encoder.{name}": tensor for name, tensor in write_half(encoder, "huggingface").items()}
    theirs = write_half(decoder, "huggingface")
    data |= theirs | {"model.decoder.embed_tokens.weight": theirs["model.shared.weight"]}
    return data | {"lm_head.weight": theirs["model.shared.weight"]}, encoder, decoder


def test_both_halves_in_one_object():
    data, encoder, decoder = both()
    same(read_half(data, "encoder").live, encoder.live)
    same(read_half(data, "decoder").live, decoder.live)
    bare = {name.removeprefix("model."): tensor for name, tensor in data.items()}
    same(read_half(bare, "encoder").live, encoder.live)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_half_given_as_the_other(layout):
    for half, other in (("encoder", "decoder"), ("decoder", "encoder")):
        with pytest.raises(
            CheckpointError, match=f"my.pt: the file holds the text {half} of SONAR; expected the text {other}"
        ):
            read_half(write_half(whole(half), layout), other, where="my.pt")


def test_a_speech_encoder_given_as_text():
    data = {"model": {"encoder_frontend.post_extract_layer_norm.weight": torch.ones(160)}}
    with pytest.raises(CheckpointError, match="speech encoder"):
        read_half(data, "encoder")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_missing_and_unexpected_names(layout, half):
    for odd in ("final_layer_norm.bias", "ffn_layer_norm.bias", "layer_norm.weight", "v_proj.bias"):
        data = write_half(whole(half), layout)
        inner = data.get("model") or data.get("state_dict") or data
        found = [name for name in inner if name.endswith(odd)]
        if not found:
            continue
        del inner[found[0]]
        with pytest.raises(CheckpointError, match=rf"weights.* missing; expected {re.escape(found[0])}"):
            read_half(data, half)
    data = write_half(whole(half), layout)
    (data.get("model") or data.get("state_dict") or data)["layers.0.gate"] = torch.ones(1)
    with pytest.raises(CheckpointError, match=r"1 weights are not of SONAR's .*got layers\.0\.gate"):
        read_half(data, half)


def test_an_output_matrix_of_its_own_is_refused():
    data = write_half(whole("decoder"), "fairseq2")
    data["model"]["final_proj.weight"] = data["model"]["final_proj.weight"] + 1
    with pytest.raises(CheckpointError, match=r"final_proj\.weight: the output matrix is not the table"):
        read_half(data, "decoder")


@pytest.mark.parametrize(
    "data", [[], {}, None, {"model": {}}, {"a": 3}, {"model": {"a": "b"}}, {"epoch": torch.ones(1)}, {"model": [1]}]
)
def test_other_things(data):
    with pytest.raises(CheckpointError):
        read_half(data, "encoder", where="file")


def test_dead_tensors_that_were_not_kept():
    weights = whole("decoder", input_dim=20)
    live = HalfWeights("decoder", "largeconcept", weights.live)
    model = write_half(live, "fairseq2")["model"]
    assert {name: tensor.shape for name, tensor in model.items()} == {
        name: tensor.shape for name, tensor in write_half(weights, "fairseq2")["model"].items()
    }
    assert not model["decoder.layers.1.encoder_decoder_attn.k_proj.weight"].any()
    assert model["decoder.layers.1.encoder_decoder_attn_layer_norm.weight"].eq(1).all()


def test_shapes():
    assert config_of(whole("encoder"), "x", num_heads=4, max_tokens=64) == small_encoder().config
    decoder = small_decoder(input_dim=20)
    weights = HalfWeights("decoder", "fairseq2", dict(decoder.state_dict()))
    assert config_of(weights, "x", num_heads=4, max_tokens=64) == decoder.config
    wide = HalfWeights("encoder", "fairseq2", dict(small_encoder(width=128).state_dict()))
    assert config_of(wide, "x").num_heads == 2
    with pytest.raises(CheckpointError, match="give num_heads"):
        config_of(whole("encoder"), "x")
    with pytest.raises(CheckpointError, match="not a table"):
        reordered(torch.zeros(3, 2), (1, 3, 0, 2))

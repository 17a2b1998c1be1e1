"""Names of the published files, both ways; languages; what a wrong file gives."""

import pytest
import torch
from speech_small import small_speech_config, small_speech_encoder

from largeconcept.codec.speech.encoder import SonarSpeechEncoder
from largeconcept.codec.speech.languages import LANGUAGES, language_of_file, speech_language
from largeconcept.codec.speech.layouts import from_published, published_names, to_published
from largeconcept.errors import CheckpointError, ConfigError, LanguageError
from largeconcept.languages import flores

# One of each kind, written out by hand: ours, fairseq2's, fairseq's.
NAMES = """
feature_projection.layer_norm.weight encoder_frontend.post_extract_layer_norm.weight encoder.w2v_model.layer_norm.weight
feature_projection.projection.bias encoder_frontend.model_dim_proj.bias encoder.w2v_model.post_extract_proj.bias
encoder.layers.1.ffn1_layer_norm.weight encoder.layers.1.ffn1_layer_norm.weight encoder.w2v_model.encoder.layers.1.ffn1.layer_norm.weight
encoder.layers.1.ffn2.intermediate_dense.bias encoder.layers.1.ffn2.inner_proj.bias encoder.w2v_model.encoder.layers.1.ffn2.w_1.bias
encoder.layers.0.ffn1.output_dense.weight encoder.layers.0.ffn1.output_proj.weight encoder.w2v_model.encoder.layers.0.ffn1.w_2.weight
encoder.layers.0.self_attn_layer_norm.bias encoder.layers.0.self_attn_layer_norm.bias encoder.w2v_model.encoder.layers.0.self_attn_layer_norm.bias
encoder.layers.0.self_attn.linear_q.weight encoder.layers.0.self_attn.q_proj.weight encoder.w2v_model.encoder.layers.0.self_attn.linear_q.weight
encoder.layers.0.self_attn.linear_out.bias encoder.layers.0.self_attn.output_proj.bias encoder.w2v_model.encoder.layers.0.self_attn.linear_out.bias
encoder.layers.0.self_attn.linear_pos.weight encoder.layers.0.self_attn.sdpa.r_proj.weight encoder.w2v_model.encoder.layers.0.self_attn.linear_pos.weight
encoder.layers.0.self_attn.pos_bias_u encoder.layers.0.self_attn.sdpa.u_bias encoder.w2v_model.encoder.layers.0.self_attn.pos_bias_u
encoder.layers.0.self_attn.pos_bias_v encoder.layers.0.self_attn.sdpa.v_bias encoder.w2v_model.encoder.layers.0.self_attn.pos_bias_v
encoder.layers.0.conv_module.layer_norm.weight encoder.layers.0.conv_layer_norm.weight encoder.w2v_model.encoder.layers.0.conv_module.layer_norm.weight
encoder.layers.0.conv_module.pointwise_conv1.weight encoder.layers.0.conv.pointwise_conv1.weight encoder.w2v_model.encoder.layers.0.conv_module.pointwise_conv1.weight
encoder.layers.0.conv_module.batch_norm.running_var encoder.layers.0.conv.batch_norm.running_var encoder.w2v_model.encoder.layers.0.conv_module.batch_norm.running_var
encoder.layers.0.final_layer_norm.weight encoder.layers.0.layer_norm.weight encoder.w2v_model.encoder.layers.0.final_layer_norm.weight
encoder.layer_norm.weight layer_norm.weight encoder.w2v_model.encoder.layer_norm.weight
pooler.layers.1.self_attn.v_proj.weight encoder_pooler.decoder.layers.1.self_attn.v_proj.weight decoder.layers.1.self_attn.v_proj.weight
pooler.layers.1.self_attn.out_proj.weight encoder_pooler.decoder.layers.1.self_attn.output_proj.weight decoder.layers.1.self_attn.out_proj.weight
pooler.layers.0.encoder_attn.k_proj.bias encoder_pooler.decoder.layers.0.encoder_decoder_attn.k_proj.bias decoder.layers.0.encoder_attn.k_proj.bias
pooler.layers.0.encoder_attn.out_proj.bias encoder_pooler.decoder.layers.0.encoder_decoder_attn.output_proj.bias decoder.layers.0.encoder_attn.out_proj.bias
pooler.layers.0.encoder_attn_layer_norm.bias encoder_pooler.decoder.layers.0.encoder_decoder_attn_layer_norm.bias decoder.layers.0.encoder_attn_layer_norm.bias
pooler.layers.0.fc1.weight encoder_pooler.decoder.layers.0.ffn.inner_proj.weight decoder.layers.0.fc1.weight
pooler.layers.0.final_layer_norm.weight encoder_pooler.decoder.layers.0.ffn_layer_norm.weight decoder.layers.0.final_layer_norm.weight
pooler.projection.weight encoder_pooler.projection_out.weight decoder.embed_out
"""  # noqa: E501
DEAD = """
pooler.embed_tokens.weight encoder_pooler.decoder_frontend.embed.weight decoder.embed_tokens.weight
pooler.layers.0.self_attn.q_proj.weight encoder_pooler.decoder.layers.0.self_attn.q_proj.weight decoder.layers.0.self_attn.q_proj.weight
encoder.layers.0.conv_module.batch_norm.num_batches_tracked encoder.layers.0.conv.batch_norm.num_batches_tracked encoder.w2v_model.encoder.layers.0.conv_module.batch_norm.num_batches_tracked
"""  # noqa: E501


def published(layout, seed=0):
    """A file as Meta publishes it, with every dead tensor at random."""
    generator = torch.Generator().manual_seed(seed + 100)
    tensors = to_published(small_speech_encoder(seed).state_dict(), layout=layout)
    names = published_names(layout, 2, 2)
    for own, name in names.dead.items():
        old = tensors[name]
        if not old.is_floating_point():
            tensors[name] = torch.tensor(1234)
        elif own == "pooler.embed_tokens.weight":
            others = [i for i in range(len(old)) if i != 2]
            old[others] = torch.randn(len(others), old.shape[1], generator=generator)
        else:
            tensors[name] = torch.randn(old.shape, generator=generator)
    if layout == "fairseq":
        tensors["encoder.w2v_model.mask_emb"] = torch.randn(32, generator=generator)
        tensors["decoder.version"] = torch.tensor([3.0])
    return {"model": tensors}


@pytest.mark.parametrize(("layout", "column"), [("fairseq2", 1), ("fairseq", 2)])
def test_names(layout, column):
    names = published_names(layout, 2, 2)
    for kinds, found in ((NAMES, names.live), (DEAD, names.dead)):
        for line in kinds.strip().splitlines():
            row = line.split()
            assert found[row[0]] == row[column]
    own = set(small_speech_encoder().state_dict())
    assert set(names.live) | {"pooler.token"} == own
    assert not set(names.dead) & own
    everything = [*names.live.values(), *names.dead.values()]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("layout", ["fairseq2", "fairseq"])
def test_round_trip_is_lossless(layout):
    data = published(layout)
    weights = from_published(data)
    assert weights.layout == layout
    assert weights.config == small_speech_config()
    encoder = SonarSpeechEncoder(weights.config)
    encoder.load_state_dict(weights.live, strict=True)
    back = to_published(encoder.state_dict(), weights.dead, layout=layout)
    assert back.keys() == data["model"].keys()
    for name, tensor in data["model"].items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


def test_the_layouts_hold_the_same():
    """A file of either layout becomes the other; only leftovers of pre-training stay behind."""
    weights = from_published(published("fairseq"))
    other = from_published(to_published(weights.live, weights.dead, layout="fairseq2"))
    assert all(torch.equal(other.live[name], tensor) for name, tensor in weights.live.items())
    assert weights.dead.keys() - other.dead.keys() == {"encoder.w2v_model.mask_emb", "decoder.version"}
    assert all(torch.equal(weights.dead[name], tensor) for name, tensor in other.dead.items())


def test_dead_weights_are_dead_and_token_row_is_not():
    """What is kept apart changes no concept; the row that the pooler asks with does."""
    features = torch.randn(1, 9, 160, generator=torch.Generator().manual_seed(0))

    def concept(data):
        weights = from_published(data)
        encoder = SonarSpeechEncoder(weights.config).eval()
        encoder.load_state_dict(weights.live)
        with torch.no_grad():
            return encoder(features)

    data = published("fairseq2")
    expected = concept(data)
    table = data["model"]["encoder_pooler.decoder_frontend.embed.weight"]
    table[[0, 1, 3]] += 1
    data["model"]["encoder_pooler.decoder.layers.0.self_attn.q_proj.weight"] += 1
    assert torch.equal(concept(data), expected)
    table[2] += 1
    assert (concept(data) - expected).abs().max() > 1e-3


def test_without_dead_weights():
    """A file may lack all queries and keys of the pooler's self-attention, but not some of them."""
    data = published("fairseq2")
    dead = [name for name in data["model"] if ".self_attn.q_proj" in name or ".self_attn.k_proj" in name]
    dead = [name for name in dead if name.startswith("encoder_pooler.")]
    assert len(dead) == 8
    kept = {name: data["model"].pop(name) for name in dead}
    assert len(from_published(data).dead) == 1 + 2
    data["model"][dead[0]] = kept[dead[0]]
    with pytest.raises(CheckpointError, match=r"7 weights are missing.*self_attn"):
        from_published(data)


def test_a_bare_mapping_and_the_heads_of_the_pooler():
    weights = from_published(published("fairseq2")["model"], num_pooler_heads=2)
    assert weights.config.num_pooler_heads == 2


def broken(change):
    data = published("fairseq2")
    change(data["model"])
    return data


FFN = "encoder.layers.0.ffn1.inner_proj.weight"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "no weights"),
        ([1, 2], "no weights.*list"),
        ({"model": {"a": 1}}, "a: not a tensor"),
        ({"model": {"a": torch.zeros(1)}}, r"not a speech encoder of SONAR.*spenc\.v3ap\.fra\.pt.*such as a"),
        ({"encoder_frontend.embed.weight": torch.zeros(1)}, "not a speech encoder.*of text"),
        ({"model": {"model.encoder.embed_tokens.weight": torch.zeros(1)}}, "not a speech encoder.*of text"),
        ({"encoder_frontend.post_extract_layer_norm.weight": torch.zeros(1)}, "w2v-BERT without"),
        (broken(lambda w: w.pop(FFN)), f"1 weights are missing; expected {FFN}"),
        (broken(lambda w: w.update(more=torch.zeros(1))), "1 weights are not of a speech encoder.*more"),
        (broken(lambda w: w.update({FFN: torch.zeros(48, 31)})), f"{FFN}: a weight has another shape.*48, 32.*48, 31"),
        (broken(lambda w: w.update({FFN: torch.zeros(48, 32, dtype=torch.long)})), "another type.*floating"),
        (
            broken(lambda w: w.update({"encoder_frontend.model_dim_proj.weight": torch.zeros(32, 80)})),
            "other features.*160.*80",
        ),
        (
            broken(lambda w: w.update({"encoder_pooler.decoder_frontend.embed.weight": torch.zeros(2, 32)})),
            "another shape",
        ),
        (broken(lambda w: w.update({"encoder.layers.0.self_attn.sdpa.u_bias": torch.zeros(5, 8)})), "do not fit"),
        (broken(lambda w: w.update({"encoder.layers.0.self_attn.sdpa.u_bias": torch.zeros(5)})), "two axes"),
    ],
)
def test_wrong_files(data, message):
    with pytest.raises(CheckpointError, match=message):
        from_published(data, where="spenc.pt")


def test_a_layer_of_an_absurd_number():
    """Names are not trusted: such a file must not make as many layers."""
    data = published("fairseq2")
    data["model"]["encoder.layers.99999999.layer_norm.weight"] = torch.zeros(1)
    data["model"]["encoder.layers.9999999999999999999.layer_norm.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="weights are missing"):
        from_published(data)


def test_no_layers():
    data = published("fairseq2")
    data["model"] = {n: t for n, t in data["model"].items() if not n.startswith("encoder_pooler.decoder.layers.")}
    with pytest.raises(CheckpointError, match=r"no layers.*2 blocks, 0 layers"):
        from_published(data)


def test_unknown_layout_and_missing_weight():
    state = small_speech_encoder().state_dict()
    with pytest.raises(ConfigError, match=r"unknown layout.*huggingface"):
        to_published(state, layout="huggingface")
    del state["pooler.token"]
    with pytest.raises(CheckpointError, match=r"pooler.token"):
        to_published(state)


# ---------------------------------------------------------------- languages


def test_table_of_languages():
    assert len(LANGUAGES) == 58
    assert sum(language.licence == "MIT" for language in LANGUAGES.values()) == 21
    for code, language in LANGUAGES.items():
        assert language.code == code
        assert (".v3ap." in language.file) == (language.licence == "MIT")
        assert language_of_file(language.file) is language
        assert language.name
        assert speech_language(language.flores) is language
        assert speech_language(code) is language
        assert flores(code) == language.flores
    assert LANGUAGES["eng"].file == "spenc.eng.pt"
    assert LANGUAGES["kan"].address == "https://dl.fbaipublicfiles.com/SONAR/spenc.v5ap.kan.pt"


@pytest.mark.parametrize(
    ("tag", "code"),
    [("en", "eng"), ("ENG", "eng"), ("cmn", "cmn"), ("zh", "cmn"), ("zh-TW", "cmn"), ("yue", "yue"), ("pt-BR", "por")],
)
def test_codes_of_languages(tag, code):
    assert speech_language(tag).code == code


@pytest.mark.parametrize(("tag", "message"), [("dzo_Tibt", "no speech encoder.*Dzongkha"), ("xx", "unknown language")])
def test_unknown_languages(tag, message):
    with pytest.raises(LanguageError, match=message):
        speech_language(tag)


@pytest.mark.parametrize("name", ["model.pt", "spenc.pt", "spenc.v3ap.xxx.pt", "spenc.v3ap.fra.txt", "a.v3ap.fra.pt"])
def test_other_file_names(name):
    assert language_of_file(name) is None

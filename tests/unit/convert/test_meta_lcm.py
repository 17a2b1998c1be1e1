import json
import pickle

import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.convert import meta_lcm
from largeconcept.convert.meta_config import ARCHITECTURES, read_meta_config
from largeconcept.convert.meta_lcm import (
    from_state_dict,
    import_state_dict,
    model_config,
    read_checkpoint,
    sampler_options,
    to_meta,
    to_meta_config,
)
from largeconcept.errors import CheckpointError, ConceptLMError, ConfigError
from largeconcept.io import write_safetensors
from largeconcept.models import build_model, load_model

STACK = {"num_layers": 2, "num_attn_heads": 2, "ffn_inner_dim": 24, "use_swiglu": True, "pos_embedding_style": "rope"}
SIZES = {"model_dim": 16, "sonar_embed_dim": 8, "max_seq_len": 32}
BASE = {"model_type": "base_lcm", **SIZES, "lcm": STACK}
TOWER = {
    "model_type": "two_tower_diffusion_lcm",
    **SIZES,
    "context_encoder": STACK,
    "denoiser": {**STACK, "num_layers": 3, "pos_embedding_style": "none"},
    "noise_scheduler": {"num_diffusion_train_steps": 100},
}
CONFIGS = {"base": BASE, "tower": TOWER}


def drawn(config, normalizer=True):
    generator = torch.Generator().manual_seed(5)
    model = build_model(model_config(config))
    fitted = ConceptNormalizer.fit([torch.randn(50, 8, generator=generator)]) if normalizer else None
    weights = to_meta(model, normalizer=fitted)
    return {
        name: tensor if "sonar_normalizer" in name else torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


def same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back_is_bit_equal(name):
    config, weights = CONFIGS[name], drawn(CONFIGS[name])
    found = import_state_dict(weights, config)
    same(to_meta(found.model, found.dead, normalizer=found.normalizer), weights)
    assert not found.model.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in found.model.parameters())
    # what was read is a copy
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.zero_()
    assert all(float(tensor.abs().max()) > 0 for tensor in weights.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("wrap", ["plain", "model", "model_key", "module"])
def test_every_wrapping_is_read(name, wrap, tmp_path):
    weights = drawn(CONFIGS[name])
    data = {
        "plain": weights,
        "model": {"model": weights, "step": 3},
        "model_key": {"model_key": "lcm_model", "lcm_model": weights},
        "module": {"model": {f"module.{key}": value for key, value in weights.items()}},
    }[wrap]
    expected = from_state_dict(weights, CONFIGS[name]).state_dict()
    same(from_state_dict(data, CONFIGS[name]).state_dict(), expected)
    torch.save(data, tmp_path / "m.pt")
    same(meta_lcm.load(tmp_path / "m.pt", CONFIGS[name]).model.state_dict(), expected)


def test_old_files_and_half_precision(tmp_path):
    weights = {name: tensor.half() for name, tensor in drawn(TOWER).items()}
    torch.save({"model": weights}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found = meta_lcm.load(tmp_path / "old.pt", TOWER)
    assert found.model.denoiser.input_proj.weight.dtype == torch.float32
    assert torch.equal(found.model.denoiser.input_proj.weight, weights["denoiser.initial_proj.fc.weight"].float())
    assert found.normalizer.scale.dtype == torch.float32


def test_dead_weights_are_named_and_counted():
    weights = drawn(TOWER)
    found = import_state_dict(weights, TOWER)
    assert sorted(found.dead) == sorted(meta_lcm.dead_names(TOWER))
    assert found.dead.keys() == {
        f"denoiser.layers.{n}.self_attn.{part}_proj.{kind}"
        for n in range(3)
        for part in "qk"
        for kind in ("weight", "bias")
    }
    assert sum(tensor.numel() for tensor in found.dead.values()) == 3 * 2 * (16 * 16 + 16)
    live = sum(p.numel() for p in found.model.parameters())
    assert live + sum(t.numel() for t in found.dead.values()) + 16 == sum(t.numel() for t in weights.values())
    assert meta_lcm.dead_names(BASE) == []


def test_dead_weights_without_effect_are_drawn_where_none_are_kept():
    weights = drawn(TOWER)
    without = {name: t for name, t in weights.items() if name not in meta_lcm.dead_names(TOWER)}
    found = import_state_dict(without, TOWER)  # a file that somebody has thinned out already
    assert not found.dead
    made = to_meta(found.model, normalizer=found.normalizer)
    assert made.keys() == weights.keys()
    again = to_meta(found.model, normalizer=found.normalizer)
    same(made, again)
    query = made["denoiser.layers.0.self_attn.q_proj.weight"]
    bound = 2**-0.5 * (6 / 32) ** 0.5
    assert 0.9 * bound < float(query.abs().max()) <= bound
    assert float(made["denoiser.layers.0.self_attn.k_proj.bias"].abs().max()) == 0
    same(from_state_dict(made, TOWER).state_dict(), found.model.state_dict())
    with pytest.raises(CheckpointError, match="not a dead weight"):
        to_meta(found.model, {"denoiser.layers.9.self_attn.q_proj.bias": torch.zeros(16)})
    with pytest.raises(CheckpointError, match="another shape"):
        to_meta(found.model, {"denoiser.layers.0.self_attn.q_proj.bias": torch.zeros(17)})


def test_normalizer_of_the_checkpoint():
    weights = drawn(BASE, normalizer=False)
    assert import_state_dict(weights, BASE).normalizer is None
    center, scale = torch.randn(8), torch.rand(8) + 0.5
    prefix = "frontend.sonar_normalizer."
    buffers = {prefix + "center": center, prefix + "scale": scale}
    found = import_state_dict({**weights, **buffers}, BASE).normalizer
    x = torch.randn(4, 8)
    assert torch.allclose(found.normalize(x), (x - center) / scale)
    clipped = {**buffers, prefix + "clip_min": torch.full((8,), -1.0), prefix + "clip_max": torch.full((8,), 1.0)}
    found = import_state_dict({**weights, **clipped}, BASE).normalizer
    assert float(found.normalize(100 * x).abs().max()) == 1.0
    assert import_state_dict({**weights, **buffers}, BASE, fourier=True).normalizer.config.fft
    for broken, message in (
        ({prefix + "center": center}, "not complete"),
        ({**buffers, prefix + "scale": torch.zeros(8)}, "not positive"),
        ({**buffers, prefix + "center": torch.full((8,), torch.nan)}, "not finite"),
        ({**buffers, prefix + "scale": torch.ones(9)}, "another shape"),
    ):
        with pytest.raises(CheckpointError, match=message):
            import_state_dict({**weights, **broken}, BASE)


def change(weights, name, new=None):
    copy = dict(weights)
    old = copy.pop(name)
    if new is not None:
        copy[new] = old
    return copy


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda w: change(w, "denoiser.layers.2.modulator.fc.bias"), r"1 weights are missing.*layers\.2\.modulator"),
        (lambda w: change(w, "context_encoder.layers.1.self_attn.k_proj.weight"), "missing.*k_proj"),
        (lambda w: {**w, "denoiser.layers.3.ffn.inner_proj.bias": torch.ones(1)}, r"not of this model.*layers\.3\.ffn"),
        (lambda w: {**w, "denoiser.initial_proj.fc.bias": torch.ones(3)}, r"initial_proj.*another shape.*\(16,\).*\(3"),
        (lambda w: {**w, "denoiser.layers.0.self_attn.q_proj.bias": torch.ones(3)}, r"q_proj.*another shape"),
        (lambda w: {**w, "denoiser.initial_proj.fc.bias": torch.ones(16, dtype=torch.int64)}, "another type"),
        (lambda w: change(w, "denoiser.layers.1.self_attn.q_proj.bias"), "1 of 12 dead weights"),
        (lambda w: drawn(BASE), "another family.*two_tower.*base_lcm"),
        (lambda w: {"encoder.weight": torch.ones(2)}, "not the weights of a Large Concept Model.*encoder"),
        (lambda w: {}, "no weights"),
        (lambda w: {"step": 3}, "no weights.*step"),
        (lambda w: {**w, "lr": 0.1}, "not a tensor.*float"),
        (lambda w: [w], "no weights.*list"),
    ],
)
def test_wrong_weights_are_one_clear_error(broken, message):
    with pytest.raises(CheckpointError, match=message):
        from_state_dict(broken(drawn(TOWER)), TOWER)


def change_in(config, *path, **fields):
    copy = json.loads(json.dumps(config))
    node = copy
    for key in path:
        node = node.setdefault(key, {})
    node.update(fields)
    return copy


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (change_in(TOWER, modeldim=3), r"modeldim: unknown key.*model_dim"),
        (change_in(TOWER, "denoiser", num_layer=3), r"denoiser\.num_layer: unknown key.*num_layers"),
        (change_in(BASE, "lcm", enable_qk_layernorm=True), "enable_qk_layernorm"),
        (change_in(BASE, "lcm", norm_order_style="post"), "norm_order_style"),
        (change_in(BASE, "frontend", scale_embeddings=True), "scale_embeddings"),
        (change_in(BASE, "lcm", use_swiglu=False, ffn_inner_activation_name="gelu"), "activation.*gelu"),
        (change_in(BASE, model_output_dim=5), "another dimension"),
        (change_in(TOWER, "denoiser", num_attn_heads=4), r"denoiser\.num_attn_heads.*same style"),
        (change_in(TOWER, "denoiser", pos_embedding_style="rope"), "pos_embedding_style"),
        (change_in(TOWER, "denoiser", timestep_embed_dim=8), "as wide as the model"),
        (change_in(TOWER, model_type="quant_lcm"), "unknown family.*quant_lcm"),
        ({"model_dim": 3}, "model_type.*toy_base_lcm"),
        ({"model_arch": "two_tower_1_6B"}, "unknown architecture.*two_tower_diffusion_lcm_1_6B"),
        ("lcm", "unknown architecture"),
    ],
)
def test_wrong_configurations_are_one_clear_error(config, message):
    with pytest.raises(ConfigError, match=message):
        from_state_dict(drawn(TOWER), config)


def test_architectures():
    sizes = {name: sum(p.numel() for p in _on_meta(name).parameters()) for name in ARCHITECTURES}
    dead = lambda layers, dim: layers * 2 * (dim**2 + dim)  # noqa: E731
    assert sizes == {
        "toy_base_lcm": 29_388_800,
        "base_lcm_1_6B": 1_649_185_792,
        "toy_two_tower_diffusion_lcm": 84_235_264 - dead(2, 1024),
        "two_tower_diffusion_lcm_1_6B": 1_645_538_304 - dead(13, 2048),
        "two_tower_diffusion_lcm_7B": 6_930_781_696 - dead(14, 4096),
    }
    changed = model_config({"model_arch": "two_tower_diffusion_lcm_1_6B", "denoiser": {"num_layers": 8}})
    assert (changed.num_denoiser_layers, changed.num_context_layers, changed.norm) == (8, 5, "rms")


def _on_meta(name):
    with torch.device("meta"):
        return build_model(model_config(name))


@pytest.mark.parametrize("config", [*CONFIGS.values(), *ARCHITECTURES])
def test_our_configuration_gives_metas_again(config):
    ours = model_config(config)
    assert model_config(to_meta_config(ours)) == ours
    assert model_config(to_meta_config(ours).to_dict()) == ours


def test_settings_of_initialisation_do_not_matter():
    changed = change_in(BASE, "lcm", ffn_inner_activation_name=None, attention_output_init_fn=None)
    changed = change_in(changed, "frontend", pre_linear_init_fn=None, embedding_std=3.0, dropout_p=0.3)
    changed = change_in(changed, "postnet", linear_init_fn=None, layer_normalization_style=None, dropout_p=0.2)
    assert model_config(changed) == model_config(BASE)


def test_sampler_settings():
    assert sampler_options(BASE) == {}
    assert sampler_options(TOWER) == {"timestep_spacing": "meta"}
    clipped = change_in(TOWER, "noise_scheduler", clip_sample=True, clip_sample_range=2.5, timestep_spacing="leading")
    assert sampler_options(clipped) == {"timestep_spacing": "leading", "clip_sample": 2.5}
    squeezed = change_in(TOWER, "noise_scheduler", thresholding=True)
    assert sampler_options(squeezed)["threshold_ratio"] == 0.995


class Foreign:
    pass


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("missing.pt", None),
        ("text.pt", lambda path: path.write_text("hello")),
        ("empty.pt", lambda path: path.write_bytes(b"")),
        ("object.pt", lambda path: torch.save({"model": Foreign()}, path)),
        ("pickle.pt", lambda path: path.write_bytes(pickle.dumps({"model": Foreign()}))),
        ("number.pt", lambda path: torch.save(3, path)),
        ("text.safetensors", lambda path: path.write_text("hello")),
        ("missing.safetensors", None),
        ("folder.pt", lambda path: path.mkdir()),
        ("cut.pt", lambda path: (torch.save(drawn(BASE), path), path.write_bytes(path.read_bytes()[:2000]))),
    ],
)
def test_what_is_no_checkpoint_is_one_clear_error(name, write, tmp_path):
    if write is not None:
        write(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_the_verbs_go_there_and_back(cli, name, ending, tmp_path):
    weights = drawn(CONFIGS[name])
    path, config = tmp_path / f"theirs{ending}", tmp_path / "c.json"
    if ending == ".pt":
        torch.save({"model": weights}, path)
    else:
        write_safetensors(path, weights)
    config.write_text(json.dumps(CONFIGS[name]))
    out = cli("convert", "meta-lcm", path, "--config", config, "--out", tmp_path / "ours").ok()
    assert f"{sum(p.numel() for p in load_model(tmp_path / 'ours' / 'model').parameters()):,} parameters" in out
    assert (tmp_path / "ours" / "dead.safetensors").is_file() == (name == "tower")
    normalizer = ConceptNormalizer.from_pretrained(tmp_path / "ours" / "normalizer")
    assert normalizer.dim == 8
    result = cli("convert", "meta-lcm-export", tmp_path / "ours", tmp_path / f"back{ending}")
    result.ok()
    assert "drawn" not in result.err
    same(read_checkpoint(tmp_path / f"back{ending}"), weights)
    assert model_config(read_meta_config(tmp_path / "back.json")) == model_config(CONFIGS[name])
    if name == "tower":
        (tmp_path / "ours" / "dead.safetensors").unlink()
        (tmp_path / "ours" / "meta-config.json").unlink()
        result = cli("convert", "meta-lcm-export", tmp_path / "ours", tmp_path / f"back{ending}")
        result.ok()
        assert "12 dead weights were drawn" in result.err and "layers.2.self_attn.k_proj.weight" in result.err
        assert model_config(read_meta_config(tmp_path / "back.json")) == model_config(TOWER)


def test_mistakes_at_the_command_line_are_one_line(cli, tmp_path):
    weights, config = tmp_path / "w.safetensors", tmp_path / "c.yaml"
    write_safetensors(weights, drawn(BASE))
    config.write_text("model_type: two_tower_diffusion_lcm\nmodel_dim: 16\n")
    for arguments, message in (
        (("meta-lcm", weights, "--config", config, "--out", tmp_path / "o"), "another family"),
        (("meta-lcm", weights, "--config", tmp_path / "no.json", "--out", tmp_path / "o"), "toy_base_lcm"),
        (("meta-lcm", tmp_path / "no.pt", "--config", "toy_base_lcm", "--out", tmp_path / "o"), "file not found"),
        (("meta-lcm-export", tmp_path / "no", tmp_path / "x.pt"), "no such folder"),
        (("meta-lcm-export", tmp_path, tmp_path / "x.bin"), "ends in .pt"),
    ):
        result = cli("convert", *arguments)
        assert result.status == 2 and result.err.count("\n") == 1 and message in result.err
    assert not (tmp_path / "o").exists()


def test_other_models_cannot_be_written():
    with pytest.raises(ConceptLMError, match=r"Meta's code has no such model.*Linear"):
        to_meta(torch.nn.Linear(2, 2))

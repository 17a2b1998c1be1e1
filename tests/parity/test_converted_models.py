"""Converted models of every style against the models written out plainly, and those against the golden numbers."""

import pytest
import torch
from golden_models import FOLDER, INDEX, TOLERANCE, arrays
from plain_reference import PlainModel

from largeconcept.convert.meta_lcm import from_state_dict, meta_config, model_config, to_meta
from largeconcept.io import read_safetensors
from largeconcept.models import build_model

RECIPE = {
    "use_swiglu": True,
    "layer_normalization_style": "rms",
    "pos_embedding_style": "rope",
    "final_dropout_p": 0.0,
    "mha_output_proj_bias": True,
}
STYLES = {
    "recipe": RECIPE,
    "toy": {},
    "layer norm without bias, sinusoids off": {"layer_normalization_style": "fp32", "pos_embedding_style": "none"},
    "plain layer norm, swiglu, other theta": {**RECIPE, "layer_normalization_style": "unit", "rope_theta": 500.0},
}


def configuration(family, style):
    stack = {"num_layers": 2, "num_attn_heads": 4, "ffn_inner_dim": 96, **STYLES[style]}
    sizes = {"model_type": family, "model_dim": 32, "sonar_embed_dim": 16, "max_seq_len": 40}
    if family == "base_lcm":
        return {**sizes, "lcm": stack}
    denoiser = {**stack, "num_layers": 3, "pos_embedding_style": "none"}
    noise = {"num_diffusion_train_steps": 100}
    return {**sizes, "context_encoder": stack, "denoiser": denoiser, "noise_scheduler": noise}


def random_weights(config):
    """All drawn: a fresh two-tower ignores its context, since its modulators start at zero."""
    weights = to_meta(build_model(model_config(config)))
    generator = torch.Generator().manual_seed(3)
    return {name: 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_the_plain_base_model_gives_the_golden_numbers():
    name = "base_lcm_default.safetensors"
    plain = PlainModel(read_safetensors(FOLDER / name), INDEX[name]["config"])
    io = arrays("base_lcm_default_io.npz")
    torch.testing.assert_close(plain.mse(io["x"]), io["forward/full"], **TOLERANCE)


def test_the_plain_two_tower_gives_the_golden_numbers():
    name = "two_tower_default.safetensors"
    plain = PlainModel(read_safetensors(FOLDER / name), INDEX[name]["config"])
    io = arrays("two_tower_default_io.npz")
    torch.testing.assert_close(plain.contextualize(io["normalized_x"]), io["encode/full"], **TOLERANCE)
    got = plain.two_tower(io["normalized_x"], io["noisy"], io["timesteps"])
    torch.testing.assert_close(got, io["forward/full"], **TOLERANCE)


@pytest.mark.parametrize("style", STYLES)
def test_base_model(style):
    config = configuration("base_lcm", style)
    weights = random_weights(config)
    x = torch.randn(3, 11, 16, generator=torch.Generator().manual_seed(1))
    model = from_state_dict(weights, config)
    assert not model.training
    expected = PlainModel(weights, meta_config(config).to_dict()).mse(x)
    torch.testing.assert_close(model(x), expected, **TOLERANCE)
    torch.testing.assert_close(model(x, lengths=torch.tensor([11, 4, 1])), expected, **TOLERANCE)


@pytest.mark.parametrize("style", STYLES)
def test_two_tower(style):
    config = configuration("two_tower_diffusion_lcm", style)
    weights = random_weights(config)
    generator = torch.Generator().manual_seed(1)
    x, noisy = torch.randn(2, 3, 11, 16, generator=generator)
    timesteps = torch.randint(0, 100, (3, 11), generator=generator)
    model = from_state_dict(weights, config)
    assert not model.training
    plain = PlainModel(weights, meta_config(config).to_dict())
    lengths = torch.tensor([11, 4, 1])
    torch.testing.assert_close(model.contextualize(x, lengths=lengths), plain.contextualize(x), **TOLERANCE)
    expected = plain.two_tower(x, noisy, timesteps)
    torch.testing.assert_close(model(x, noisy, timesteps), expected, **TOLERANCE)
    torch.testing.assert_close(model(x, noisy, timesteps, lengths=lengths), expected, **TOLERANCE)
    assert (expected[:, 5] - plain.two_tower(x.flip(1), noisy, timesteps)[:, 5]).abs().max() > 0.01

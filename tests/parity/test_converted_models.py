"""Converted models of every style against the models written out plainly, and those against the golden numbers."""

import pytest
import torch
from golden_models import FOLDER, INDEX, TOLERANCE, arrays
from plain_reference import PlainModel

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.convert.meta_lcm import from_state_dict, meta_config, model_config, to_meta
from largeconcept.generate.loop import GenerationOptions, predict_teacher_forced
from largeconcept.io import read_safetensors
from largeconcept.models import build_model
from largeconcept.objectives.diffusion import DiffusionConfig, DiffusionObjective
from largeconcept.types import ConceptBatch

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


@pytest.mark.parametrize("style", STYLES)
def test_loss_and_generation(style):
    """The objective's loss and a whole run of the sampler, from the plain model's predictions."""
    config = configuration("two_tower_diffusion_lcm", style)
    weights = {name: 0.5 * tensor for name, tensor in random_weights(config).items()}
    generator = torch.Generator().manual_seed(7)
    x, eps = torch.randn(2, 2, 6, 16, generator=generator)
    timesteps = torch.randint(0, 100, (2, 6), generator=generator)
    model, plain = from_state_dict(weights, config), PlainModel(weights, meta_config(config).to_dict())
    cumprod = model.schedule.alphas_cumprod
    a = cumprod[timesteps].unsqueeze(-1)
    error = (plain.two_tower(x, a.sqrt() * x + (1 - a).sqrt() * eps, timesteps) - x).square().sum()
    objective = DiffusionObjective(DiffusionConfig(conditioning_dropout=0.0), ConceptNormalizer.identity(16))
    batch = ConceptBatch(x, torch.tensor([6, 6]), torch.arange(2))
    found = objective.loss(model, batch, timesteps, eps).sum
    torch.testing.assert_close(found, error, **TOLERANCE)

    x_t = eps
    for t in range(99, -1, -10):  # ten steps of DDIM, written out
        clean = plain.two_tower(x, x_t, torch.full((2, 6), t))
        noise = (x_t - cumprod[t].sqrt() * clean) / (1 - cumprod[t]).sqrt()
        before = cumprod[t - 10] if t >= 10 else torch.tensor(1.0)
        x_t = before.sqrt() * clean + (1 - before).sqrt() * noise
    options = GenerationOptions(num_inference_steps=10, guidance_scale=1.0, initial_noise_scale=1.0)
    draw = lambda stream, rows, positions: torch.stack([eps[r, p] for r, p in zip(rows, positions, strict=True)])  # noqa: E731
    got = predict_teacher_forced(model, x, None, options, noise=draw)
    torch.testing.assert_close(got, x_t, rtol=3e-4, atol=3e-4)

"""The two-tower model with the reference implementation's weights gives its numbers, in training form and cached."""

import pytest
import torch
from golden_models import INDEX, TOLERANCE, arrays, two_tower

IO = arrays("two_tower_default_io.npz")
LENGTHS = IO["seq_lens"].tolist()


@pytest.fixture(scope="module")
def model():
    return two_tower()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_contextualizer(model):
    torch.testing.assert_close(model.contextualize(IO["normalized_x"]), IO["encode/full"], **TOLERANCE)


def test_contextualizer_with_padding(model):
    got = model.contextualize(IO["normalized_x"], IO["seq_lens"])
    for b, n in enumerate(LENGTHS):
        torch.testing.assert_close(got[b, :n], IO["encode/padded"][b, :n], **TOLERANCE)


def test_timestep_embedding(model):
    torch.testing.assert_close(model.denoiser.embed_time(torch.arange(100)), IO["timestep_embedding"], **TOLERANCE)


@pytest.mark.parametrize("repeat", [1, 5])
def test_training_forward(model, repeat):
    """Five copies have more rows than timesteps, so the modulators are gathered; one copy has fewer."""
    x, noisy, timesteps = (IO[k].repeat_interleave(repeat, 0) for k in ("normalized_x", "noisy", "timesteps"))
    assert (timesteps.numel() > 100) == (repeat == 5)
    got = model(x, noisy, timesteps)
    torch.testing.assert_close(got, IO["forward/full"].repeat_interleave(repeat, 0), **TOLERANCE)


def test_training_forward_with_padding(model):
    x, noisy = IO["normalized_x"].clone(), IO["noisy"].clone()
    for b, n in enumerate(LENGTHS):
        x[b, n:], noisy[b, n:] = 50.0, -50.0
    got = model(x, noisy, IO["timesteps"], IO["seq_lens"])
    for b, n in enumerate(LENGTHS):
        torch.testing.assert_close(got[b, :n], IO["forward/padded"][b, :n], **TOLERANCE)


def test_rows_without_context(model):
    unconditional = torch.zeros(IO["timesteps"].shape, dtype=torch.bool)
    unconditional[:, IO["forward/cf_0.5_dropped_rows"]] = True
    got = model(IO["normalized_x"], IO["noisy"], IO["timesteps"], unconditional=unconditional)
    torch.testing.assert_close(got, IO["forward/cf_0.5"], **TOLERANCE)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("steps", [(50,), (99, 50, 0)])
def test_denoising_with_and_without_context(model, fold, steps):
    """One noisy concept given the first six of a document, as in generation: cached and planned."""
    assert (IO["denoise/timestep"] == 50).all()
    cache = model.prefill(IO["normalized_x"][:, :6])
    plan = model.denoiser.plan(steps, fold=fold)
    context = cache.cross_context()
    got = model.denoiser.step(plan, steps.index(50), IO["denoise/latents"], context, guided=True)
    torch.testing.assert_close(got[0], IO["denoise/inference"], **TOLERANCE)
    torch.testing.assert_close(got[1], IO["denoise/unconditional"], **TOLERANCE)
    unguided = model.denoiser.step(plan, steps.index(50), IO["denoise/latents"], context)
    torch.testing.assert_close(unguided, IO["denoise/inference"], **TOLERANCE)


def test_supervised(model):
    """The source and the targets before it are a target's context; sources have different lengths."""
    sources, rows = IO["forward/supervised_source_lengths"], IO["forward/supervised"].shape[1]
    got = model(IO["normalized_x"], IO["noisy"][:, :rows], IO["timesteps"][:, :rows], source_lengths=sources)
    torch.testing.assert_close(got, IO["forward/supervised"], **TOLERANCE)


def test_parameters_are_the_same_but_for_dead_ones(model):
    dim, layers = model.config.model_dim, model.config.num_denoiser_layers
    expected = INDEX["two_tower_default.safetensors"]["num_parameters"] - layers * 2 * (dim * dim + dim)
    normalizer = 2 * model.config.concept_dim
    assert sum(p.numel() for p in model.parameters()) in (expected, expected - normalizer)

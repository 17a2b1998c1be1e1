"""Fitting, normalising and denormalising against the reference implementation, and its percent bug shown to be one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from largeconcept.codec.normalizer import ConceptNormalizer, NormalizerConfig

ARRAYS = np.load(Path(__file__).parent / "golden" / "normalizer.npz")
DATA = torch.from_numpy(ARRAYS["fit_data"])
OURS = {"gaussian_robust": "meta", "standard": "standard"}
SUFFIXES = ["", "_clip", "_fft", "_fft_clip"]


def close(ours, name):
    golden = torch.from_numpy(ARRAYS[name])
    assert ours.dtype == torch.float32 and ours.shape == golden.shape
    assert float((ours - golden).abs().max()) <= 1e-5 * float(golden.abs().max())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("method", sorted(OURS))
def test_fit(method, suffix):
    fitted = ConceptNormalizer.fit(
        DATA.split(300), OURS[method], clip_proba=0.01 if "clip" in suffix else None, fft="fft" in suffix
    )
    for name, buffer in fitted.named_buffers():
        close(buffer, f"{method}{suffix}/{name}")
    assert ("clip_min" in dict(fitted.named_buffers())) == ("clip" in suffix)
    x = torch.from_numpy(ARRAYS["x"])
    close(fitted.normalize(x), f"{method}{suffix}/normalized")
    close(fitted.denormalize(fitted.normalize(x)), f"{method}{suffix}/denormalized_again")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("method", ["robust", "gaussian_robust", "standard"])
def test_use_of_given_statistics(method, suffix):
    get = lambda name: torch.from_numpy(ARRAYS[f"{method}{suffix}/{name}"])  # noqa: E731
    clip = "clip" in suffix
    config = NormalizerConfig(dim=32, clip_proba=0.01 if clip else None, fft="fft" in suffix)
    normalizer = ConceptNormalizer(
        config, get("center"), get("scale"), (get("clip_min"), get("clip_max")) if clip else None
    )
    x = torch.from_numpy(ARRAYS["x"])
    close(normalizer.normalize(x), f"{method}{suffix}/normalized")
    close(normalizer.denormalize(get("normalized")), f"{method}{suffix}/denormalized_again")


def test_the_documented_scale_is_our_robust_and_the_reference_default_is_not():
    fitted = ConceptNormalizer.fit(DATA.split(128), "robust")
    close(fitted.center, "gaussian_robust_percent_25_75/center")
    close(fitted.scale, "gaussian_robust_percent_25_75/scale")
    ratio = torch.from_numpy(ARRAYS["gaussian_robust/scale"]) / fitted.scale
    assert float(ratio.max()) > 2

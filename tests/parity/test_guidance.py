"""Guidance with and without rescaling against the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from largeconcept.diffusion.guidance import guide

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "index.json").read_text())["guidance.npz"]["cases"]
ARRAYS = np.load(GOLDEN / "guidance.npz")


@pytest.mark.parametrize("index", range(len(CASES)))
def test_guided_noise(index):
    cond, uncond = torch.from_numpy(ARRAYS["predicted_noise"]).chunk(2)
    golden = torch.from_numpy(ARRAYS[f"case{index:02d}"])
    ours = guide(cond, uncond, **CASES[index])
    assert float((ours - golden).abs().max()) <= 1e-5 * float(golden.abs().max())

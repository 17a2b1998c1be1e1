"""Learning rates of 121 updates against golden numbers of the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest

from largeconcept.train.schedule import LRConfig, lr_factor

GOLDEN = np.load(Path(__file__).parent / "golden" / "lr_schedules.npz")
SETTINGS = json.loads(str(GOLDEN["__meta__"][()]))["configs"]
OURS = {
    "cosine": {"type": "cosine", "after_end": "restart"},
    "cosine_nowarm": {"type": "cosine", "after_end": "restart"},
    "myle": {"type": "inverse_sqrt"},
    "wsd": {"type": "wsd", "decay_fraction": 0.5, "decay_shape": "exponential"},
    "polynomial": {"type": "polynomial", "power": 200},
    "noop": {"type": "constant"},
}


@pytest.mark.parametrize("name", OURS)
def test_every_update_has_the_reference_rate(name):
    given = SETTINGS[name]
    config = LRConfig(
        warmup_steps=given["warmup_steps"],
        start_ratio=given["start_lr"] / given["lr"],
        final_ratio=given["final_lr"] / given["lr"],
        **OURS[name],
    )
    rates = [given["lr"] * lr_factor(config, t, given.get("max_steps", 100)) for t in range(121)]
    np.testing.assert_allclose(rates, GOLDEN[name], rtol=1e-5, atol=0)
    assert len(GOLDEN[name]) == 121

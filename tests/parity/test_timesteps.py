"""Inference timesteps against the lists of the reference implementation, its integer quirk included."""

from pathlib import Path

import numpy as np
import pytest

from largeconcept.diffusion.schedules import inference_timesteps

GOLDEN = np.load(Path(__file__).parent / "golden" / "timesteps.npz")


@pytest.mark.parametrize("key", [key for key in GOLDEN.files if key.count("/") == 2])
def test_lists_equal_the_reference(key):
    total, spacing, steps = key.split("/")
    ours = inference_timesteps(int(total[1:]), int(steps[1:]), spacing)
    assert ours == GOLDEN[key].tolist()
    if spacing == "trailing":
        assert inference_timesteps(int(total[1:]), int(steps[1:]), "meta") == ours


def test_forty_of_a_hundred_is_fifty_as_in_the_reference_and_forty_as_asked_for():
    assert len(inference_timesteps(100, 40, "meta")) == 50
    assert len(inference_timesteps(100, 40)) == 40

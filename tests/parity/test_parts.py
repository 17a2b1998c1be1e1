"""Small parts against numbers drawn from the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from largeconcept.nn.masks import num_dropped_rows, shifted_causal_mask
from largeconcept.nn.mlp import Mlp, glu_width
from largeconcept.nn.norms import Norm
from largeconcept.nn.positions import sine_positions
from largeconcept.nn.rope import apply_rope, rope_table
from largeconcept.nn.timestep import timestep_sinusoids

FOLDER = Path(__file__).parent / "golden"
GOLDEN = {name: torch.from_numpy(array) for name, array in np.load(FOLDER / "parts.npz").items() if "__" not in name}
INDEX = json.loads((FOLDER / "index.json").read_text())["parts.npz"]


def close(got, name):
    torch.testing.assert_close(got, GOLDEN[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "start", "theta"),
    [("output", 0, 10_000.0), ("output_start5", 5, 10_000.0), ("output_theta500", 0, 500.0)],
)
def test_rope(name, start, theta):
    x = GOLDEN["rope/input"]  # (B, H, S, K)
    table = rope_table(torch.arange(start, start + x.shape[2]), x.shape[3], theta)
    close(apply_rope(x, *table), f"rope/{name}")


def test_sinusoids():
    table = GOLDEN["sine/table"]
    close(sine_positions(torch.arange(table.shape[0]), table.shape[1]), "sine/table")
    close(timestep_sinusoids(torch.arange(100)), "timestep/sinusoidal_256")


@pytest.mark.parametrize(
    ("style", "name"), [("rms", "rms"), ("layer", "standard"), ("layer_weight", "fp32"), ("layer_plain", "unit")]
)
def test_norms(style, name):
    norm = Norm(32, style)
    parts = {key: GOLDEN[f"norm/{name}/{key}"] for key in ("weight", "bias") if f"norm/{name}/{key}" in GOLDEN}
    norm.load_state_dict(parts)
    close(norm(GOLDEN["norm/input"]).detach(), f"norm/{name}/output")


def test_masks():
    assert torch.equal(shifted_causal_mask(5, 6).float(), GOLDEN["mask/unsupervised"])
    supervised = GOLDEN["mask/supervised_src_2_4"]
    assert torch.equal(shifted_causal_mask(3, 8, torch.tensor([2, 4])).float(), supervised)


def test_gated_widths():
    for dim, width in INDEX["glu_inner_dims_for_4x"].items():
        assert glu_width(4 * int(dim)) == width
        assert Mlp(8, 4 * int(dim)).output_proj.in_features == width


def test_dropped_row_counts():
    for rows, count in INDEX["cf_dropped_rows_at_p015"].items():
        assert num_dropped_rows(int(rows), 0.15) == count

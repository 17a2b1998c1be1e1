"""The Base-LCM with the reference implementation's weights gives its numbers: forward and prediction."""

import pytest
import torch
from golden_models import INDEX, TOLERANCE, arrays, base_lcm

IO = arrays("base_lcm_default_io.npz")


@pytest.fixture(scope="module")
def model():
    return base_lcm()


def test_forward(model):
    with torch.no_grad():
        torch.testing.assert_close(model(IO["x"]), IO["forward/full"], **TOLERANCE)


def test_forward_with_padding(model):
    with torch.no_grad():
        for garbage in (0.0, 100.0):
            x, lengths = IO["x"].clone(), IO["seq_lens"]
            for row, n in zip(x, lengths.tolist(), strict=True):
                row[n:] = garbage
            got = model(x, lengths)
            for b, n in enumerate(lengths.tolist()):
                torch.testing.assert_close(got[b, :n], IO["forward/padded"][b, :n], **TOLERANCE)


def test_prediction_with_and_without_sampling(model):
    with torch.no_grad():
        plain = model(IO["x"])
    torch.testing.assert_close(plain, IO["predict/no_sampling"], **TOLERANCE)
    torch.testing.assert_close(plain + 0.7 * IO["predict/noise"], IO["predict/temperature_0.7"], **TOLERANCE)


def test_no_parameter_is_lost(model):
    expected = INDEX["base_lcm_default.safetensors"]["num_parameters"]
    assert sum(p.numel() for p in model.parameters()) == expected

from __future__ import annotations

import torch

from largeconcept.int8 import dequantize_rows, quantize_rows


def test_rows_move_by_at_most_half_a_step() -> None:
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(7, 33) * torch.logspace(-3, 3, 7)[:, None],
        "b": torch.randn(5),
        "c": torch.randn(3, 2, 4),
    }
    tensors["a"][2] = 0
    stored = quantize_rows(tensors)
    assert stored["a"].dtype == torch.int8 and stored["b"].dtype == torch.float32
    back = dequantize_rows(stored)
    assert back.keys() == tensors.keys() and back["c"].shape == (3, 2, 4)
    step = tensors["a"].abs().amax(1, keepdim=True) / 127
    assert ((back["a"] - tensors["a"]).abs() <= step / 2 * 1.001).all()
    assert torch.equal(back["b"], tensors["b"])
    assert torch.equal(back["a"][2], torch.zeros(33))
    passed = {"x": torch.arange(4, dtype=torch.int8)}
    assert torch.equal(dequantize_rows(passed)["x"], passed["x"])


def test_matrices_that_rounding_would_hurt_stay_halves() -> None:
    torch.manual_seed(0)
    spiky = torch.randn(8, 512) * 0.02
    spiky[:, 0] = 1.0  # one large entry a row leaves few steps to the others
    stored = quantize_rows({"even": torch.randn(8, 64), "spiky": spiky}, max_error=0.02)
    assert stored["even"].dtype == torch.int8 and stored["spiky"].dtype == torch.float16
    assert "spiky::scale" not in stored
    assert torch.allclose(dequantize_rows(stored)["spiky"].float(), spiky, rtol=1e-3, atol=1e-6)
    assert quantize_rows({"spiky": spiky})["spiky"].dtype == torch.int8

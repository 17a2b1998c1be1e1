"""Copying attention: what it copies, that it looks back only, and that reading step by step is reading at once."""

from __future__ import annotations

import pytest
import torch

from largeconcept.models import MSEConceptModel, MSEConfig
from largeconcept.nn.copying import CopyAttention

SMALL = {"concept_dim": 12, "model_dim": 16, "num_heads": 2, "num_layers": 2, "dropout": 0.0}


def model(heads: int = 2) -> MSEConceptModel:
    torch.manual_seed(0)
    return MSEConceptModel(MSEConfig.from_dict({**SMALL, "copy_heads": heads})).eval()


def test_a_sure_head_with_an_open_gate_copies_a_concept_whole() -> None:
    torch.manual_seed(0)
    copying, x, hidden = CopyAttention(12, 4, 1), torch.randn(2, 5, 12), torch.zeros(2, 5, 4)
    hidden[:, 1, 0] = 1.0  # the only one with a key
    with torch.no_grad():
        for part in (copying.query_proj, copying.key_proj, copying.gate_proj):
            part.weight.zero_()
            part.bias.zero_()
        copying.query_proj.bias[0] = 400.0
        copying.key_proj.weight[0, 0] = 4.0
        copying.gate_proj.bias.fill_(40.0)
        out = copying(hidden, x)
    assert torch.allclose(out[:, 1:], x[:, 1:2].expand(-1, 4, -1), atol=1e-5)
    assert torch.allclose(out[:, 0], x[:, 0], atol=1e-5)
    with torch.no_grad():
        copying.gate_proj.bias.fill_(-40.0)
        assert float(copying(hidden, x).abs().max()) < 1e-6


def test_it_looks_back_only() -> None:
    made, x = model(), torch.randn(1, 6, 12)
    changed = x.clone()
    changed[:, 4:] += 1
    assert torch.equal(made(x)[:, :4], made(changed)[:, :4])
    assert not torch.allclose(made(x)[:, 4:], made(changed)[:, 4:])


@torch.no_grad()
def test_steps_equal_the_whole_whatever_the_lengths() -> None:
    made, x = model(3), torch.randn(4, 7, 12)
    lengths = [2, 4, 1, 4]
    whole = made(x)
    cache = made.prefill(x[:, :4], lengths, capacity=4)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(cache.state[row], whole[row, length - 1], atol=1e-5, rtol=1e-5)
    keep = [3, 0, 1]
    cache.select(keep)
    cache.join(made.prefill(x[2:3, :4], [4], capacity=9))
    rows, places = [*keep, 2], [4, 2, 4, 4]
    for _ in range(3):
        made.extend(cache, torch.stack([x[row, place] for row, place in zip(rows, places)]))
        for at, (row, place) in enumerate(zip(rows, places)):
            torch.testing.assert_close(cache.state[at], whole[row, place], atol=1e-5, rtol=1e-5)
        places = [place + 1 for place in places]


def test_all_of_it_learns_and_none_is_there_without_heads() -> None:
    made = model()
    made(torch.randn(2, 5, 12)).square().sum().backward()
    for name, parameter in made.named_parameters():
        if name != "copying.key_proj.bias":  # adds the same to all scores of a query
            assert parameter.grad is not None and bool(parameter.grad.any()), name
    assert model(0).copying is None
    assert not any("copying" in name for name in model(0).state_dict())


@pytest.mark.parametrize("heads", [0, 2])
def test_padding_is_not_copied(heads: int) -> None:
    made, x = model(heads), torch.randn(2, 5, 12)
    padded = x.clone()
    padded[1, 3:] = 99.0
    assert torch.equal(made(x)[1, :3], made(padded)[1, :3])

import pytest
import torch
from torch import nn

from largeconcept.train.ema import EMA


def test_closed_form_of_a_moving_weight():
    model = nn.Linear(3, 2)
    start = model.weight.detach().clone()
    ema = EMA(model, decay=0.9, warmup=False)
    for step in range(1, 21):
        with torch.no_grad():
            model.weight.copy_(start + step)
        ema.update()
    # a_n = Σ (1-d) d^(n-k) (s + k) + d^n s = s + n - d (1 - d^n) / (1 - d)
    expected = start + 20 - 0.9 * (1 - 0.9**20) / 0.1
    torch.testing.assert_close(ema.state_dict()["weight"], expected, rtol=1e-5, atol=1e-5)


def test_warmup_forgets_the_random_start():
    model = nn.Linear(4, 4)
    ema = EMA(model, decay=0.999)
    assert ema.decay_at(0) == pytest.approx(0.1) and ema.decay_at(10**6) == 0.999
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(50):
        ema.update()
    assert float((ema.state_dict()["weight"] - 1).abs().max()) < 1e-3


def test_applied_swaps_and_restores_even_after_an_error():
    model = nn.Linear(2, 2)
    ema = EMA(model, decay=0.5, warmup=False)
    average = ema.state_dict()["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    own = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        assert torch.equal(model.weight, average) and not torch.equal(average, own)
        raise RuntimeError("inside")
    assert torch.equal(model.weight, own)


def test_averages_are_float32_and_skip_frozen_weights():
    model = nn.Sequential(nn.Linear(2, 2).to(torch.bfloat16), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    state = EMA(model, 0.9).state_dict()
    assert set(state) == {"0.weight", "0.bias"} and {t.dtype for t in state.values()} == {torch.float32}

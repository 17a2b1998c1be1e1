import pytest
import torch

from largeconcept.errors import ConfigError
from largeconcept.train import precision


def test_auto_follows_the_hardware(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert precision.resolve_precision("auto", "cpu") == "bf16"
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert precision.resolve_precision("auto", "cpu") == "fp32"
    assert precision.resolve_precision("bf16", "cpu") == "bf16"


def test_cpu_capability_comes_from_the_instruction_set(monkeypatch):
    for amx, avx, expected in [(False, False, False), (True, False, True), (False, True, True)]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx, raising=False)
        precision._cpu_has_bf16.cache_clear()
        assert precision.has_bf16("cpu") is expected
    precision._cpu_has_bf16.cache_clear()
    assert precision.has_bf16("meta") is False


def test_bf16_computes_in_bf16_and_leaves_weights_and_gradients_alone():
    layer = torch.nn.Linear(4, 4)
    with precision.autocast("bf16", "cpu"):
        out = layer(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    with precision.autocast("fp32", "cpu"):
        assert layer(torch.randn(2, 4)).dtype == torch.float32
    with pytest.raises(ConfigError, match="unknown precision"):
        precision.autocast("auto", "cpu")


def test_measure_matmul_gives_rates():
    rates = precision.measure_matmul("cpu", size=64, rounds=2)
    assert set(rates) == {"fp32", "bf16"} and min(rates.values()) > 0

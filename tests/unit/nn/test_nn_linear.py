"""The quick paths of a linear layer against torch's own product."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from largeconcept.nn.linear import Linear, PackedLinear, few_rows_linear
from largeconcept.nn.norms import ModulatedNorm, normalize


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 16, 32, 33])
@pytest.mark.parametrize("bias", [True, False])
def test_every_number_of_rows_gives_the_same_product(rows, bias):
    layer, x = Linear(96, 80, bias=bias), torch.randn(rows, 1, 96)
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.no_grad():
        assert torch.allclose(layer(x).double(), expected, atol=1e-5)
        assert torch.equal(layer(x), layer(x)), "the same call gives the same numbers"
        assert torch.allclose(few_rows_linear(x, layer.weight, layer.bias).double(), expected, atol=1e-5)
    assert torch.allclose(layer(x).double(), expected, atol=1e-5)  # with autograd


def test_changed_weights_are_seen():
    layer, x = Linear(64, 64), torch.randn(4, 64)
    with torch.no_grad():
        layer(x)
        assert layer._fast is not None and layer._fast[1]._packed is not None, "the weights were never rearranged"
        layer.weight.mul_(2.0)
        assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5)
        layer(x)
        layer.load_state_dict({"weight": torch.eye(64), "bias": torch.zeros(64)})
        assert torch.allclose(layer(x), x, atol=1e-5)
        layer.weight = torch.nn.Parameter(-torch.eye(64))
        assert torch.allclose(layer(x), -x, atol=1e-5)


def test_copies_do_without_the_rearranged_weights():
    layer, x = Linear(64, 64), torch.randn(4, 64)
    with torch.no_grad():
        layer(x)
        again = copy.deepcopy(layer)
        assert "_fast" not in again.__dict__
        assert torch.equal(again(x), F.linear(x, layer.weight, layer.bias))


def test_gradients_autocast_and_other_types_take_the_usual_path():
    layer, x = Linear(64, 64), torch.randn(2, 64)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        assert PackedLinear(layer.weight.double(), layer.bias.double())(x.double()).dtype == torch.float64


@pytest.mark.parametrize("style", ["rms", "layer"])
def test_modulated_norms_equal_the_plain_one(style):
    x, weights, biases = 3.0 + torch.randn(5, 1, 48), torch.randn(2, 48), torch.randn(2, 48)
    for norm, weight, bias in zip(ModulatedNorm.table(style, weights, biases), weights, biases, strict=True):
        expected = normalize(x, style, weight, bias)
        assert torch.allclose(norm(x), expected, atol=1e-5)
        with torch.no_grad():
            assert torch.allclose(norm(x), expected, atol=1e-5)
            assert torch.allclose(norm(1e-6 * x), normalize(1e-6 * x, style, weight, bias), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (3,), (0,), ()])
def test_gradients_equal_torchs_own(bias, shape):
    layer = Linear(24, 40, bias=bias)
    x, way = torch.randn(*shape, 24, requires_grad=True), torch.randn(*shape, 40)
    parameters = [x, *layer.parameters()]
    y = layer(x)
    assert type(y.grad_fn).__name__ == "_OneDnnLinearBackward", "torch's own path was taken"
    expected = F.linear(x, layer.weight, layer.bias)
    assert torch.allclose(y, expected, atol=1e-5)
    ours = torch.autograd.grad((y * way).sum(), parameters)
    for mine, theirs in zip(ours, torch.autograd.grad((expected * way).sum(), parameters), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_gradients_of_what_needs_none_are_not_made():
    layer, x = Linear(8, 8), torch.randn(4, 8)
    layer.weight.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert layer.weight.grad is None and x.grad is not None and layer.bias.grad is not None

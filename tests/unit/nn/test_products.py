import pytest
import torch
import torch.nn.functional as F

from largeconcept.nn import products
from largeconcept.nn.linear import has_onednn
from largeconcept.nn.products import PackedProduct, is_quick, product

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")


def draw(rows: int, bias: bool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(rows)
    sizes = ((rows, 48), (70, 48), (70,))
    x, weight, b = (torch.randn(size, generator=generator).to(dtype) for size in sizes)
    return x, weight, b if bias else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 40])
@torch.no_grad()
def test_the_product_of_torch(
    rows: int, activation: products.Activation, bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "CHUNK", 48 * 16)  # the weight in five parts
    x, weight, b = draw(rows, bias, dtype)
    expected = F.linear(x, weight, b)
    if activation == "relu":
        expected = expected.relu()
    # Two ways of rounding bfloat16 may be a unit of it apart.
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-5)
    for found in (product(x, weight, b, activation), PackedProduct(weight, b)(x, activation)):
        assert found.dtype == dtype
        assert found.shape == (rows, 70)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@needs_onednn
def test_when_it_applies() -> None:
    weight = torch.randn(4, 4)
    with torch.no_grad():
        assert is_quick(weight)
        assert not is_quick(weight.double())
        assert not is_quick(weight.half())
        assert not is_quick(weight.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_quick(weight)
    assert not is_quick(weight)


def test_gradients_pass() -> None:
    x, weight, bias = (part.requires_grad_() for part in (torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)))
    out = product(x, weight, bias, "relu")
    expected = torch.autograd.grad(F.linear(x, weight, bias).relu().sum(), (x, weight, bias))
    for found, right in zip(torch.autograd.grad(out.sum(), (x, weight, bias)), expected, strict=True):
        torch.testing.assert_close(found, right)

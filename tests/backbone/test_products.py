"""Products in the device's best arithmetic give what PyTorch's own layers give."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from unibrain.backbone import products
from unibrain.backbone.products import (
    Conv2d,
    GroupNorm,
    LayerNorm,
    Linear,
    PointwiseConv,
    linear,
    state_dtype,
    use_fast_products,
)
from unibrain.errors import InputError


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Widen everything, some rows of the weights at a time, and note what is multiplied."""
    monkeypatch.setattr(products, "WIDEN_FROM_ROWS", 1)
    monkeypatch.setattr(products, "CHUNK", 40)
    monkeypatch.setattr(products, "arithmetic", lambda _: (False, ""))
    seen: list[torch.dtype] = []

    def note(function: Any) -> Any:
        def call(x: Any, *rest: Any, **options: Any) -> Any:
            seen.append(x.dtype)
            return function(x, *rest, **options)

        return call

    for name in ("linear", "conv2d"):
        monkeypatch.setattr(functional, name, note(getattr(functional, name)))
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        # 5, 5 and 3 rows of the weights at a time; 16, 16 and 5 channels.
        (lambda: Linear(8, 13), (6, 8)),
        (lambda: Linear(8, 13, bias=False), (2, 3, 8)),
        (lambda: Conv2d(3, 37, 3, padding=1), (2, 3, 6, 8)),
        (lambda: Conv2d(3, 37, 3, padding=1, stride=2), (2, 3, 6, 8)),
        (lambda: Conv2d(3, 37, 3, bias=False), (2, 3, 6, 8)),
    ],
)
def test_widened_products(widened: list[torch.dtype], dtype: torch.dtype, make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    layer = make().to(dtype).requires_grad_(False)
    x = torch.randn(shape).to(dtype)
    found = layer(x)
    assert widened == [torch.float32] * 3
    assert found.dtype == dtype
    exact = copy.deepcopy(layer).double()
    exact.__class__ = type(layer).__bases__[0]  # PyTorch's own
    torch.testing.assert_close(found.double(), exact(x.double()), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_in_float32_over_narrow_weights(
    widened: list[torch.dtype], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    assert state_dtype(dtype, torch.device("cpu")) == torch.float32
    assert state_dtype(dtype, torch.device("cuda")) == dtype
    layers = {Linear(8, 8): (6, 8), Conv2d(8, 8, 3): (2, 8, 5, 5), GroupNorm(4, 8): (2, 8, 5), LayerNorm(8): (3, 8)}
    for rows in (1, 10**9):
        # Once widened, once small: then the product itself is narrow.
        monkeypatch.setattr(products, "WIDEN_FROM_ROWS", rows)
        for layer, shape in layers.items():
            narrow = layer.to(dtype).requires_grad_(False)
            x = torch.randn(shape)
            found, exact = narrow(x), copy.deepcopy(narrow).double()(x.double())
            tolerance = 2e-5 if rows == 1 or "Norm" in type(layer).__name__ else 0.05
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)
    monkeypatch.setattr(products, "arithmetic", lambda _: (True, ""))
    assert state_dtype(dtype, torch.device("cpu")) == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "stride": 2}, {"padding": (2, 0), "dilation": 2, "bias": False}]
)
def test_large_weights_of_convolutions_are_brought_into_order_once(
    dtype: torch.dtype, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "ORDER_FROM", 0)
    torch.manual_seed(2)
    layer = Conv2d(4, 256, (3, 2), **options).to(dtype)
    x, more = torch.randn(3, 4, 7, 8).to(dtype), torch.randn(9, 4, 9, 6).to(dtype)
    weight, bias = layer.weight.detach().double(), None if layer.bias is None else layer.bias.double()
    layer(x).sum().backward()
    assert layer.weight.grad is not None, "training keeps its gradients"
    tolerance = 4 * torch.finfo(dtype).eps
    with torch.inference_mode():
        for rows in (x, more, x):
            exact = functional.conv2d(rows.double(), weight, bias, layer.stride, layer.padding, layer.dilation)
            found = layer(rows)
            assert found.dtype == dtype
            assert layer.weight.is_mkldnn == products.orders_weights(dtype)
            torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 4, products.FEW_ROWS, products.FEW_ROWS + 1])
@pytest.mark.parametrize("chunk", [1, products.CHUNK])
def test_products_of_few_rows_and_many(
    dtype: torch.dtype, rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "unit", lambda _: "amx_bf16")
    monkeypatch.setattr(products, "CHUNK", chunk)
    torch.manual_seed(5)
    x, weight, bias = torch.randn(rows, 24).to(dtype), torch.randn(7, 24).to(dtype), torch.randn(7).to(dtype)
    tolerance = 4 * torch.finfo(dtype).eps
    for given in (x, x[None], x.T.contiguous().T[:, None]):
        for added in (bias, None):
            exact = given.double() @ weight.double().T + (0 if added is None else added.double())
            with torch.inference_mode():
                found = linear(given, weight, added)
            assert found.shape == exact.shape
            assert found.is_contiguous()
            torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=24 * torch.finfo(dtype).eps)


def test_a_1x1_convolution_is_a_linear_map() -> None:
    torch.manual_seed(4)
    layer = PointwiseConv(6, 5).requires_grad_(False)
    assert layer.weight.shape == (5, 6, 1, 1)
    x = torch.randn(2, 6, 3, 4)
    found = layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(found, functional.conv2d(x, layer.weight, layer.bias), atol=1e-6, rtol=0)


def test_small_products_and_float32_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "arithmetic", lambda _: (False, ""))
    seen: list[torch.dtype] = []
    real = functional.linear
    monkeypatch.setattr(functional, "linear", lambda x, *rest: seen.append(x.dtype) or real(x, *rest))
    weight = torch.ones(3, 4)
    linear(torch.ones(products.WIDEN_FROM_ROWS - 1, 4, dtype=torch.bfloat16), weight.bfloat16())
    linear(torch.ones(products.WIDEN_FROM_ROWS, 4, dtype=torch.bfloat16), weight.bfloat16())
    linear(torch.ones(products.WIDEN_FROM_ROWS, 4), weight)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    monkeypatch.setattr(products, "arithmetic", lambda _: (True, ""))
    linear(torch.ones(products.WIDEN_FROM_ROWS, 4, dtype=torch.bfloat16), weight.bfloat16())
    assert seen[-1] == torch.bfloat16, "with matrix units, 16 bits are faster"


def test_layers_of_a_library_are_taken_over_and_others_not() -> None:
    class Special(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1), Special(2, 2), nn.LayerNorm(2))
    keys = list(module.state_dict())
    use_fast_products(module)
    assert [type(layer) for layer in module] == [Linear, Conv2d, Special, nn.LayerNorm]
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize(
    ("setting", "features", "native", "named"),
    [
        ("", {"avx512_bf16": True}, True, "avx512_bf16"),
        ("", {"amx_bf16": True, "avx512_bf16": True}, True, "amx_bf16"),
        ("", {"avx512_f": True, "avx512_bf16": False}, False, "avx512_bf16"),
        ("widened", {"avx512_bf16": True}, False, "widened"),
        ("native", {}, True, "native"),
    ],
)
def test_the_processor_decides_and_a_setting_overrides_it(
    monkeypatch: pytest.MonkeyPatch, setting: str, features: dict[str, bool], native: bool, named: str
) -> None:
    monkeypatch.setenv("UNIBRAIN_PRODUCTS", setting)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(products, "unit", products.unit.__wrapped__)
    found, why = products.arithmetic.__wrapped__(torch.bfloat16)
    assert found == native
    assert named in why
    monkeypatch.setenv("UNIBRAIN_PRODUCTS", "fast")
    with pytest.raises(InputError, match="fast"):
        products.arithmetic.__wrapped__(torch.bfloat16)

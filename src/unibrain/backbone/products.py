"""Matrix products and convolutions, each in the arithmetic that the device does fastest.

Processors that multiply 16-bit numbers themselves (AMX, AVX-512 with bf16 or fp16) do so. Others multiply float32 about
twice as fast. There, weights stay in 16 bits in memory, and a large product widens them while it runs, a few megabytes
at a time; the flows keep their states in float32, which saves converting them back and forth. A small product is bound
by reading its weights, so it is computed in 16 bits. ``UNIBRAIN_PRODUCTS`` (native or widened) overrides the choice.
"""

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.errors import InputError

WIDEN_FROM_ROWS = 96
"""Rows (positions times batch) from which a product is widened; measured, see docs/performance.md."""

CHUNK = 2**22
"""Weights that are widened at a time: 16 MiB, which fit into the processor's cache and are allocated fast."""

ORDER_UP_TO_ROWS = 1024
"""Rows (positions times batch) up to which bringing weights into order is much of a convolution's time; measured."""

UNITS = {torch.bfloat16: ("amx_bf16", "avx512_bf16"), torch.float16: ("amx_fp16", "avx512_fp16")}
"""What a processor has if it multiplies 16-bit numbers itself, by PyTorch's names, fastest first."""


@cache
def can_order(weights: torch.dtype) -> bool:
    """Whether oneDNN brings weights of a convolution of this type into its order on this processor."""
    if weights not in UNITS or not torch.backends.mkldnn.is_available():
        return False
    checks: Any = torch.ops.mkldnn
    if not hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight") or not hasattr(checks, "_convolution_pointwise"):
        return False
    name = "_is_mkldnn_bf16_supported" if weights == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    return bool(hasattr(checks, name) and getattr(checks, name)())


@cache
def arithmetic(weights: torch.dtype) -> tuple[bool, str]:
    """Whether a processor multiplies weights of 16 bits as they are, and why."""
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    unit = next((name for name in UNITS[weights] if features.get(name)), None)
    reason = f"the processor has {unit}" if unit else f"the processor has no {' or '.join(UNITS[weights])}"
    wanted = os.environ.get("UNIBRAIN_PRODUCTS", "")
    if wanted not in ("", "native", "widened"):
        raise InputError(f"UNIBRAIN_PRODUCTS is {wanted!r}. Set native or widened, or leave it out.")
    return (wanted == "native", f"UNIBRAIN_PRODUCTS is {wanted}") if wanted else (unit is not None, reason)


def state_dtype(weights: torch.dtype, device: torch.device) -> torch.dtype:
    """Type of the states of a network whose weights have 16 bits: float32 where that is what is multiplied anyway."""
    narrow = device.type == "cpu" and weights in UNITS
    return torch.float32 if narrow and not arithmetic(weights)[0] else weights


def _widens(x: Tensor, weight: Tensor, rows: int) -> bool:
    # In training, widening costs more than it saves: gradients would be widened and narrowed again as well.
    return not weight.requires_grad and rows >= WIDEN_FROM_ROWS and state_dtype(weight.dtype, x.device) != weight.dtype


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map [..., width_in] by a weight of [width_out, width_in]; the result has the dtype of `x`."""
    width_out, width_in = weight.shape
    if not _widens(x, weight, x.numel() // width_in):
        if x.dtype == torch.float32 == weight.dtype and bias is not None and x.device.type == "cpu":
            # Given the bias, PyTorch first copies it into every row of the result, which takes as long as the product.
            return functional.linear(x, weight).add_(bias)
        if x.dtype == weight.dtype:
            return functional.linear(x, weight, bias)
        return functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
    wide, wide_bias = x.float(), None if bias is None else bias.float()
    step = max(1, CHUNK // width_in)
    if step >= width_out:
        return functional.linear(wide, weight.float(), wide_bias).to(x.dtype)
    out = x.new_empty((*x.shape[:-1], width_out))
    for first in range(0, width_out, step):
        rows = slice(first, first + step)
        out[..., rows] = functional.linear(wide, weight[rows].float(), None if wide_bias is None else wide_bias[rows])
    return out


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, in the precision of the state."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...]."""
        return functional.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm`, in the precision of the state."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., width]."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width_in] to [..., width_out]."""
        return linear(x, self.weight, self.bias)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, computed as the linear map that it is; weights keep a convolution's shape."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., channels_in] to [..., channels_out]: channels are last here."""
        return linear(x, self.weight.flatten(1), self.bias)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, in the arithmetic that is fastest, on a processor with weights in the order that it wants.

    oneDNN brings weights into an order of its own at every call, which takes up to half of the time where pictures are
    small and weights large. In 16 bits and without gradients that is done once, and again if weights or sizes change.
    It is a second copy of these weights; the first stays in the file that it was mapped from, if it was. In float32 the
    result would be less exact.
    """

    _ordered: tuple[tuple[Any, ...], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be copied and is made again."""
        return {**self.__dict__, "_ordered": None}

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H', W']."""
        stride = self.stride[0] * self.stride[1]
        rows = len(x) * x.shape[2] * x.shape[3] // stride
        if self.groups != 1 or not _widens(x, self.weight, rows):
            return self._narrow(x.to(self.weight.dtype), rows).to(x.dtype)
        wide, parts = x.float(), []
        step = max(16, CHUNK // self.weight[0].numel())
        for first in range(0, self.out_channels, step):
            chosen = slice(first, first + step)
            bias = None if self.bias is None else self.bias[chosen].float()
            parts.append(self._conv_forward(wide, self.weight[chosen].float(), bias).to(x.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _narrow(self, x: Tensor, rows: int) -> Tensor:
        """The convolution in the dtype of the weights."""
        weight = self.weight
        usual = x.device.type != "cpu" or torch.is_grad_enabled() or weight.is_inference()
        if usual or not can_order(weight.dtype) or rows > ORDER_UP_TO_ROWS:
            return super().forward(x)
        how = self.padding, self.stride, self.dilation, self.groups
        key = weight.data_ptr(), weight._version, weight.dtype, x.shape[2:]
        if self._ordered is None or self._ordered[0] != key:
            order: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self._ordered = key, order(weight.to_mkldnn(), *how, list(x.shape))
        convolve: Any = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self._ordered[1], self.bias, *how, "none", [], "")  # type: ignore[no-any-return]


def use_fast_products(module: nn.Module) -> None:
    """Let the plain linear maps and convolutions in a library's network run as `Linear` and `Conv2d` do."""
    swaps: dict[Any, Any] = {nn.Linear: Linear, nn.Conv2d: Conv2d}
    for child in module.modules():
        if type(child) in swaps:
            child.__class__ = swaps[type(child)]

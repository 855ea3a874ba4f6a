"""Matrix products and convolutions, each in the arithmetic that the device does fastest.

Processors that multiply 16-bit numbers themselves (AMX, AVX-512 with bf16 or fp16) do so. Others multiply float32 about
twice as fast. There, weights stay in 16 bits in memory, and a large product widens them while it runs, a few megabytes
at a time; the flows keep their states in float32, which saves converting them back and forth. A small product is bound
by reading its weights, so it is computed in 16 bits. ``UNIBRAIN_PRODUCTS`` (native or widened) overrides the choice.
"""

import math
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

FEW_ROWS = 128
"""Rows up to which AMX multiplies faster with the weights as the left factor, and oneDNN multiplies float32 faster than
PyTorch's BLAS, by weights that the cache does not hold (`CHUNK`); measured."""

ONEDNN_FROM_ROWS = {"AVX2": 2, "AVX512": 4}
"""Rows from which oneDNN does so, by what the processor has; measured for AVX-512, and for AVX2 with both libraries
limited to it on a processor that has more."""

ORDER_FROM = 2**21
"""Weights of a convolution from which they are kept in oneDNN's order; measured."""

UNITS = {torch.bfloat16: ("amx_bf16", "avx512_bf16"), torch.float16: ("amx_fp16", "avx512_fp16")}
"""What a processor has if it multiplies 16-bit numbers itself, by PyTorch's names, fastest first."""


@cache
def onednn_from_rows() -> float:
    """Rows from which large weights in float32 go to oneDNN; infinite where that is not known to be faster."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return ONEDNN_FROM_ROWS.get(torch.backends.cpu.get_cpu_capability(), math.inf) if there else math.inf


@cache
def unit(weights: torch.dtype) -> str | None:
    """The fastest unit of this processor that multiplies 16 bits of this type itself."""
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return next((name for name in UNITS.get(weights, ()) if features.get(name)), None)


@cache
def orders_weights(weights: torch.dtype) -> bool:
    """Whether oneDNN convolves with weights of this type in an order of its own on this processor."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return there and (weights == torch.float32 or (unit(weights) is not None and arithmetic(weights)[0]))


@cache
def arithmetic(weights: torch.dtype) -> tuple[bool, str]:
    """Whether a processor multiplies weights of 16 bits as they are, and why."""
    found = unit(weights)
    reason = f"the processor has {found or 'no ' + ' or '.join(UNITS[weights])}"
    wanted = os.environ.get("UNIBRAIN_PRODUCTS", "")
    if wanted not in ("", "native", "widened"):
        raise InputError(f"UNIBRAIN_PRODUCTS is {wanted!r}. Set native or widened, or leave it out.")
    return (wanted == "native", f"UNIBRAIN_PRODUCTS is {wanted}") if wanted else (found is not None, reason)


def state_dtype(weights: torch.dtype, device: torch.device) -> torch.dtype:
    """Type of the states of a network whose weights have 16 bits: float32 where that is what is multiplied anyway."""
    narrow = device.type == "cpu" and weights in UNITS
    return torch.float32 if narrow and not arithmetic(weights)[0] else weights


def _widens(x: Tensor, weight: Tensor, rows: int) -> bool:
    # In training, widening costs more than it saves: gradients would be widened and narrowed again as well.
    return not weight.requires_grad and rows >= WIDEN_FROM_ROWS and state_dtype(weight.dtype, x.device) != weight.dtype


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` of one dtype, by the code that is fastest on this processor."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return functional.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    if x.dtype == torch.float32:
        if weight.numel() >= CHUNK and onednn_from_rows() <= rows <= FEW_ROWS:
            product: Any = torch.ops.mkldnn._linear_pointwise
            return product(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
        # Given the bias, PyTorch first copies it into every row of the result.
        return functional.linear(x, weight) if bias is None else functional.linear(x, weight).add_(bias)
    if rows <= FEW_ROWS and (unit(x.dtype) or "").startswith("amx"):
        columns = x.reshape(-1, x.shape[-1]).T
        rows_last = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)
        return rows_last.T.contiguous().view(*x.shape[:-1], -1)
    return functional.linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map [..., width_in] by a weight of [width_out, width_in]; the result has the dtype of `x`."""
    width_out, width_in = weight.shape
    if not _widens(x, weight, x.numel() // width_in):
        if x.dtype == weight.dtype:
            return _multiply(x, weight, bias)
        return _multiply(x.to(weight.dtype), weight, bias).to(x.dtype)
    wide, wide_bias = x.float(), None if bias is None else bias.float()
    step = max(1, CHUNK // width_in)
    if step >= width_out:
        return _multiply(wide, weight.float(), wide_bias).to(x.dtype)
    out = x.new_empty((*x.shape[:-1], width_out))
    for first in range(0, width_out, step):
        rows = slice(first, first + step)
        out[..., rows] = _multiply(wide, weight[rows].float(), None if wide_bias is None else wide_bias[rows])
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
    """`torch.nn.Conv2d`, in the arithmetic that is fastest.

    On a processor, oneDNN brings weights into an order of its own at every call. Where pictures are small and weights
    large that takes up to two thirds of the time, so such weights are brought into this order once, and stay in it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H', W']."""
        stride = self.stride[0] * self.stride[1]
        rows = len(x) * x.shape[2] * x.shape[3] // stride
        weight = self._in_order()
        if weight.is_mkldnn:
            where = self.padding, self.stride, self.dilation, self.groups
            convolve: Any = torch.ops.mkldnn._convolution_pointwise
            return convolve(x.to(weight.dtype), weight, self.bias, *where, "none", [], "").to(x.dtype)  # type: ignore[no-any-return]
        if self.groups != 1 or not _widens(x, weight, rows):
            return super().forward(x.to(weight.dtype)).to(x.dtype)
        wide, parts = x.float(), []
        step = max(16, CHUNK // self.weight[0].numel())
        for first in range(0, self.out_channels, step):
            chosen = slice(first, first + step)
            bias = None if self.bias is None else self.bias[chosen].float()
            parts.append(self._conv_forward(wide, self.weight[chosen].float(), bias).to(x.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _in_order(self) -> Tensor:
        """The weights; in oneDNN's order from the first call on, where that is faster.

        Nothing of a call decides over it, so results do not depend on what was convolved before.
        """
        weight = self.weight
        large = weight.numel() >= ORDER_FROM and not weight.is_mkldnn
        large &= self.kernel_size != (1, 1)  # measured: these are slower in that order
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        frozen = weight.device.type == "cpu" and not torch.is_grad_enabled()
        if large and plain and frozen and orders_weights(weight.dtype):
            order: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            where = self.padding, self.stride, self.dilation, self.groups
            ordered = order(weight.to_mkldnn(), *where, [1, weight.shape[1] * self.groups, 8, 8])
            self.weight = nn.Parameter(ordered, requires_grad=False)
        return self.weight


def use_fast_products(module: nn.Module) -> None:
    """Let the plain linear maps and convolutions in a library's network run as `Linear` and `Conv2d` do."""
    swaps: dict[Any, Any] = {nn.Linear: Linear, nn.Conv2d: Conv2d}
    for child in module.modules():
        if type(child) in swaps:
            child.__class__ = swaps[type(child)]

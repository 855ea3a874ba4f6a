"""Matrix products and convolutions, each in the arithmetic that the device does fastest.

Processors without matrix units for bfloat16 (AMX) multiply float32 about twice as fast. There, weights stay in 16 bits
in memory, and a large product widens them while it runs, a few megabytes at a time; the flows keep their states in
float32, which saves converting them back and forth. A small product is bound by reading its weights, so it is computed
in 16 bits.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDEN_FROM_ROWS = 96
"""Rows (positions times batch) from which a product is widened; measured, see docs/performance.md."""

CHUNK = 2**22
"""Weights that are widened at a time: 16 MiB, which fit into the processor's cache and are allocated fast."""


@cache
def _has_matrix_units() -> bool:
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe is not None and probe())


def state_dtype(weights: torch.dtype, device: torch.device) -> torch.dtype:
    """Type of the states of a network whose weights have 16 bits: float32 where that is what is multiplied anyway."""
    narrow = device.type == "cpu" and weights in (torch.bfloat16, torch.float16)
    return torch.float32 if narrow and not _has_matrix_units() else weights


def _widens(x: Tensor, weight: Tensor, rows: int) -> bool:
    # In training, widening costs more than it saves: gradients would be widened and narrowed again as well.
    return not weight.requires_grad and rows >= WIDEN_FROM_ROWS and state_dtype(weight.dtype, x.device) != weight.dtype


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map [..., width_in] by a weight of [width_out, width_in]; the result has the dtype of `x`."""
    width_out, width_in = weight.shape
    if not _widens(x, weight, x.numel() // width_in):
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
    """`torch.nn.Conv2d`, in the arithmetic that is fastest."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H', W']."""
        stride = self.stride[0] * self.stride[1]
        rows = len(x) * x.shape[2] * x.shape[3] // stride
        if self.groups != 1 or not _widens(x, self.weight, rows):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)
        wide, parts = x.float(), []
        step = max(16, CHUNK // self.weight[0].numel())
        for first in range(0, self.out_channels, step):
            chosen = slice(first, first + step)
            bias = None if self.bias is None else self.bias[chosen].float()
            parts.append(self._conv_forward(wide, self.weight[chosen].float(), bias).to(x.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def use_fast_products(module: nn.Module) -> None:
    """Let the plain linear maps and convolutions in a library's network run as `Linear` and `Conv2d` do."""
    swaps: dict[Any, Any] = {nn.Linear: Linear, nn.Conv2d: Conv2d}
    for child in module.modules():
        if type(child) in swaps:
            child.__class__ = swaps[type(child)]

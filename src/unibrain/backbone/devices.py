"""Which device the networks run on, and in which precision."""

from typing import Literal

import torch
from torch.nn import functional

from unibrain.backbone.memory import total_memory
from unibrain.errors import InputError

__all__ = ["DTYPES", "Precision", "choose_device", "choose_dtype", "precision_of", "unusable"]

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Name of a precision to PyTorch's type."""

_ALWAYS_FP32 = 2 * 2**30
"""Bytes of float32 weights up to which saving memory is not worth another result."""


def choose_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Parameters
    ----------
    device : str
        ``"auto"`` takes CUDA, then Apple's MPS, then the processor; or a name that PyTorch knows.

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device} cannot be used ({str(error).splitlines()[0]}), expected auto, cpu, cuda or mps: "
            "choose one that this machine has"
        ) from None
    return chosen


def unusable(dtype: torch.dtype, device: torch.device) -> str | None:
    """Say why networks cannot run in `dtype` on `device`; None if they can."""
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
        return "the graphics card has no bfloat16"
    try:
        x = torch.ones(1, 32, 2, 2, dtype=dtype, device=device)
        weight = torch.ones(32, 32, dtype=dtype, device=device)
        y = functional.group_norm(functional.conv2d(x, weight[:, :, None, None]), 32)
        tokens = functional.linear(y.flatten(2).transpose(1, 2), weight)[:, None]
        functional.scaled_dot_product_attention(tokens, tokens, functional.gelu(tokens)).sum().item()
    except (RuntimeError, TypeError) as error:
        return str(error).splitlines()[0]
    return None


def choose_dtype(dtype: str, device: torch.device, parameters: int, stored: torch.dtype) -> torch.dtype:
    """Turn a precision's name into a type that the device can compute in.

    Parameters
    ----------
    dtype : {"auto", "fp32", "bf16", "fp16"}
        ``"auto"`` takes float32 for a small model. For a large one it takes, on a processor, float32 if the weights
        fill less than half of the machine's memory, and bfloat16 if not; elsewhere the 16-bit type of the files if
        the device has it. It looks at what the machine has, not at what happens to be free, so that a run that is
        continued goes on in the same precision.
    device : torch.device
    parameters : int
        How many numbers are loaded.
    stored : torch.dtype
        What the files hold.

    Returns
    -------
    torch.dtype

    Raises
    ------
    InputError
        If there is no such precision, or not on this device.
    """
    if dtype == "auto":
        memory = total_memory(device)
        if 4 * parameters <= _ALWAYS_FP32:
            return torch.float32
        if device.type == "cpu":
            fits = memory is None or 8 * parameters <= memory
            return torch.float32 if fits or unusable(torch.bfloat16, device) else torch.bfloat16
        halves = [stored] if stored in (torch.float16, torch.bfloat16) else []
        usable = (half for half in (*halves, torch.bfloat16, torch.float16) if not unusable(half, device))
        return next(usable, torch.float32)
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}, expected auto, fp32, bf16 or fp16: choose one of them")
    reason = unusable(DTYPES[dtype], device)
    if reason is not None:
        others = [name for name, kind in DTYPES.items() if name != dtype and not unusable(kind, device)]
        raise InputError(
            f"there is no {dtype} on the device {device} ({reason}), expected a type that it computes in: choose "
            f"{' or '.join(others) or 'another device'}"
        )
    return DTYPES[dtype]


def precision_of(dtype: torch.dtype) -> Precision:
    """Name of a type: ``"fp32"``, ``"bf16"`` or ``"fp16"``."""
    names: dict[torch.dtype, Precision] = {
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.float16: "fp16",
    }
    return names[dtype]

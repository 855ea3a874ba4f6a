"""Loading without a second copy: networks are built without memory, and take their weights from the mapped file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unibrain.backbone.storage import check_weights, open_part

__all__ = ["Stored", "build_empty", "look_into", "take_weights"]

_WINDOW = 256 * 2**20
"""Bytes of a file that are mapped at a time while its weights are converted."""

_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class _NoMemory(TorchFunctionMode):
    """Give every tensor that is to be filled later the meta device.

    Buffers with content of their own (positions, masks) are made by other functions, and come out right.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_empty(build: Callable[[], Any]) -> Any:
    """Build a network whose parameters take no memory until `take_weights` gives it some.

    Parameters
    ----------
    build : callable
        Returns a `torch.nn.Module`.

    Returns
    -------
    torch.nn.Module
    """
    with _NoMemory():
        return build()


@dataclass(frozen=True)
class Stored:
    """What a weight file holds, as its header says.

    Attributes
    ----------
    shapes : mapping of str to tuple of int
    dtype : torch.dtype
        That of most of the numbers.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype

    def numbers(self, left_out: tuple[str, ...] = ()) -> int:
        """How many numbers there are, without the keys of some prefixes."""
        return sum(torch.Size(shape).numel() for key, shape in self.shapes.items() if not key.startswith(left_out))


def look_into(folder: Path, part: str) -> Stored:
    """Read the header of a weight file.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    counts: dict[str, int] = {}
    shapes = {}
    with open_part(folder, part) as file:
        for key in file.keys():  # noqa: SIM118 - no mapping
            entry = file.get_slice(key)
            shapes[key] = tuple(entry.get_shape())
            kind = entry.get_dtype()
            counts[kind] = counts.get(kind, 0) + torch.Size(shapes[key]).numel()
    most = max((kind for kind in counts if kind in _SIZES), key=lambda kind: counts[kind], default="F32")
    return Stored(shapes, _TYPES[most])


def take_weights(
    module: nn.Module,
    folder: Path,
    part: str,
    dtype: torch.dtype,
    device: torch.device,
    left_out: tuple[str, ...] = (),
) -> None:
    """Give an empty network the weights of a file, tensor by tensor.

    On a processor, in the precision of the file, the weights *are* the mapped file: nothing is copied, and what is
    never used is never read. Otherwise one tensor is converted or moved at a time.

    Parameters
    ----------
    module : torch.nn.Module
        From `build_empty`; ready for use afterwards, on `device`.
    folder : Path
    part : str
        Name of the weight file without its suffix.
    dtype : torch.dtype
        Of floating-point weights.
    device : torch.device
    left_out : tuple of str
        Prefixes of keys in the file that the module was built without.

    Raises
    ------
    InputError
        If the file is missing or damaged, a key is missing or unknown, or a shape differs.
    """
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    found = {key: shape for key, shape in look_into(folder, part).shapes.items() if not key.startswith(left_out)}
    where = f"{folder / part}.safetensors"
    check_weights({key: tuple(value.shape) for key, value in own.items()}, found, where)
    taken: dict[int, Tensor] = {}
    keys = list(own)
    while keys:
        keys = _take_some(module, folder, part, own, keys, taken, dtype, device)
    for name, buffer in module.named_buffers():
        if buffer.device != device:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, buffer.to(device))
    module.eval().requires_grad_(False)


def _take_some(
    module: nn.Module,
    folder: Path,
    part: str,
    own: Mapping[str, Tensor],
    keys: list[str],
    taken: dict[int, Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> list[str]:
    """Take weights until `_WINDOW` bytes were converted; the file is then mapped anew, which lets go of its pages."""
    converted = 0
    with open_part(folder, part) as file:
        for place, key in enumerate(keys):
            if converted > _WINDOW:
                return keys[place:]
            # Tied weights are one tensor in the module, and stay one.
            value = taken.get(id(own[key]))
            if value is None:
                stored = file.get_tensor(key)
                wanted = dtype if stored.is_floating_point() else stored.dtype
                value = stored.to(device=device, dtype=wanted)
                if value is not stored:
                    converted += stored.numel() * stored.element_size()
                del stored
                if isinstance(own[key], nn.Parameter):
                    value = nn.Parameter(value, requires_grad=False)
                taken[id(own[key])] = value
            parent, _, leaf = key.rpartition(".")
            setattr(module.get_submodule(parent), leaf, value)
    return []

"""Writing safetensors tensor by tensor, so that a part is never in memory as a whole."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from unibrain.errors import InputError
from unibrain.weights.layouts import Entry
from unibrain.weights.manifest import FileRecord
from unibrain.workspace.progress import track

__all__ = ["bytes_needed", "stored_dtype", "write_safetensors"]

_CHUNK = 1 << 22  # numbers; the largest matrices of the flows have 52 million

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The type in which a tensor is written: `dtype`, or its own if that is None."""
    if dtype is not None:
        return dtype
    # Smaller types than 16 bits (and larger than 64) have no use here, but a file may hold them.
    return tensor.dtype if tensor.dtype in _NAMES else torch.float32


def bytes_needed(tensors: Mapping[str, Entry], dtype: torch.dtype | None) -> int:
    """Size of the tensors on disk, without the header.

    Parameters
    ----------
    tensors : mapping of str to Entry
    dtype : torch.dtype or None
        None keeps each tensor's own.
    """
    return sum(entry.tensor.numel() * stored_dtype(entry.tensor, dtype).itemsize for entry in tensors.values())


def write_safetensors(
    path: Path, tensors: Mapping[str, Entry], dtype: torch.dtype | None, description: str
) -> FileRecord:
    """Write a file in the safetensors format.

    The format is a header in JSON, preceded by its length (8 bytes, little-endian), and the tensors' bytes one after
    another; see https://github.com/huggingface/safetensors. Equal tensors give equal files.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to Entry
        Floating-point.
    dtype : torch.dtype or None
        To round to; None keeps each tensor's own.
    description : str
        For the progress bar.

    Returns
    -------
    FileRecord
        Size and SHA-256, taken while writing.

    Raises
    ------
    InputError
        If a tensor holds NaN or infinity, or numbers too large for `dtype`.
    """
    types = {key: stored_dtype(entry.tensor, dtype) for key, entry in tensors.items()}
    # Wide types first, as the format's own library orders them: then every tensor is aligned.
    order = sorted(tensors, key=lambda key: (-types[key].itemsize, key))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in order:
        shape = tuple(tensors[key].tensor.shape)
        size = math.prod(shape) * types[key].itemsize
        header[key] = {"dtype": _NAMES[types[key]], "shape": shape, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        start = len(text).to_bytes(8, "little") + text
        file.write(start)
        digest.update(start)
        for key in track(order, description, unit="tensors"):
            _write_tensor(file, digest, tensors[key], types[key])
    return FileRecord(len(start) + offset, digest.hexdigest())


def _write_tensor(file: BinaryIO, digest: "hashlib._Hash", entry: Entry, dtype: torch.dtype) -> None:
    for chunk in entry.tensor.reshape(-1).split(_CHUNK):
        rounded = chunk.to(dtype)
        if not bool(rounded.isfinite().all()):
            if bool(chunk.isfinite().all()):
                found, remedy = f"numbers too large for {dtype}".replace("torch.", ""), "convert to bf16 or fp32"
            else:
                found, remedy = "NaN or infinity", "the file is damaged, get it again"
            raise InputError(f"{entry.file}: {entry.key} holds {found}, expected finite weights: {remedy}")
        data = rounded.contiguous().view(torch.uint8).numpy().data
        file.write(data)
        digest.update(data)

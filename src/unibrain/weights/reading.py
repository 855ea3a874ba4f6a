"""Reading published weight files, which may be pickles, without letting them execute anything."""

import errno
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from unibrain.errors import InputError

_NO_DOWNLOADS = {b"version https://git-lfs": "a Git LFS pointer, not the weights", b"<": "a web page, not weights"}
_CALL = re.compile(r"GLOBAL ([\w.]+)")
_WRAPPINGS = ("state_dict", "model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Open a file of weights: safetensors, or what `torch.save` writes.

    Safetensors and the zip format of `torch.save` are mapped into memory and read only where a tensor is used. A state
    dict inside another dictionary (``{"state_dict": ...}``) is found; entries that are no dense tensors are left out.

    Raises
    ------
    InputError
        If the content is damaged, is no file of weights, or would execute code when read by the usual means. What the
        system refuses (no such file, no permission) is raised as it is.
    """
    with path.open("rb") as file:
        head = file.read(64)
    for start, what in _NO_DOWNLOADS.items():
        if head.startswith(start):
            raise InputError(f"{path}: this is {what}. Download the file itself.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols and TorchScript, which are refused below
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                content: object = load_file(path)
            else:
                zipped = head.startswith(b"PK\x03\x04")
                if zipped:
                    _check_sizes(path)
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (InputError, ImportError):
        raise
    except Exception as error:  # damaged pickles raise nearly anything: KeyError, IndexError, EOFError, RuntimeError
        raise _explained(path, error) from error
    weights = _tensors(content)
    if not weights:
        raise InputError(f"{path}: it holds no named tensors (a state dict). Give the published file.")
    return weights


def _check_sizes(path: Path) -> None:
    """Refuse archives that unpack to more than they are; `torch.save` never compresses."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path}: an archive of compressed files, which torch.save never writes. It was not unpacked.")


def _explained(path: Path, error: Exception) -> Exception:
    """Tell damage from what the system refuses, a lack of memory, and code."""
    message = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in message or getattr(error, "errno", 0) == errno.ENOMEM:
        return InputError(f"{path}: not enough memory to read it, or it claims more than it holds. Check its size.")
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if call := _CALL.search(message):
        return InputError(
            f"{path}: refused, because reading it would execute code ({call[1]}). Get the published file."
        )
    reason = (message.splitlines() or [""])[0].split(". ")[0][:120] or type(error).__name__
    return InputError(f"{path}: truncated, damaged, or no file of plain weights ({reason}). Download it again.")


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    weights = {
        key: value.detach()
        for key, value in content.items()
        if isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
    }
    return weights or next((inner for name in _WRAPPINGS if (inner := _tensors(content.get(name)))), {})

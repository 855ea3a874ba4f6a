"""Reading published weight files, which may be pickles, without letting them execute anything."""

import pickletools
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from unibrain.errors import InputError

__all__ = ["read_weights"]

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CODE_OPCODES = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE"}
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "module")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Open a file of weights: safetensors, or what `torch.save` writes.

    Safetensors and the zip format of `torch.save` are mapped into memory and read only when a tensor is used; the
    format before PyTorch 1.6 cannot be mapped and is read whole.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to Tensor
        The state dict, also where the file wraps it (``{"state_dict": ...}``). Entries that are no dense tensors are
        left out.

    Raises
    ------
    InputError
        If the file is not there, is truncated or damaged, is no file of weights, or would execute code when read by
        the usual means. Nothing of it is executed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a file of weights: check the path") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected a file of weights: check the path"
        ) from None
    _refuse_what_is_no_download(path, head)
    content = _read_safetensors(path) if _is_safetensors(path, head) else _read_torch(path, head)
    weights = _unwrapped(content)
    if not weights:
        found = f"a {type(content).__name__}" if not isinstance(content, dict) else "a dictionary without tensors"
        raise InputError(f"{path}: holds {found}, expected named tensors (a state dict): get the published file")
    return weights


def _refuse_what_is_no_download(path: Path, head: bytes) -> None:
    found = None
    if not head:
        found = "is empty"
    elif head.startswith(b"version https://git-lfs"):
        found = "is a Git LFS pointer, not the weights themselves"
    elif head.lstrip()[:1] == b"<":
        found = "is a web page, not weights"
    if found:
        raise InputError(f"{path}: {found}, expected a file of weights: download the file itself again")


def _is_safetensors(path: Path, head: bytes) -> bool:
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}), expected weights: download the file again"
        ) from None


def _read_torch(path: Path, head: bytes) -> object:
    zipped = head.startswith(b"PK\x03\x04")
    try:
        with warnings.catch_warnings():
            # What it warns of (other pickle protocols, TorchScript) is refused below, with a sentence.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # damaged pickles raise nearly anything: KeyError, IndexError, EOFError, RuntimeError
        message = str(error)
        code = _code_in(path, message, zipped)
        if code:
            raise InputError(
                f"{path}: refused, because reading it would execute code ({code}), expected a file of tensors only: "
                "get the published file from its publisher, or safetensors"
            ) from None
        if isinstance(error, MemoryError) or "allocate memory" in message:
            raise InputError(
                f"{path}: not enough memory to read it ({path.stat().st_size / 1e9:.1f} GB, and its old format must be "
                "read at once), expected as much free memory: convert on a larger machine"
            ) from None
        reason = (message.splitlines() or [type(error).__name__])[0].split(". ")[0][:120]
        if "Weights only load failed" in message or isinstance(error, KeyError | IndexError | EOFError):
            reason = "no file that torch.save wrote"
        raise InputError(
            f"{path}: truncated, damaged, or no file of weights ({reason}), expected what torch.save or safetensors "
            "write: download the file again"
        ) from None


def _code_in(path: Path, message: str, zipped: bool) -> str | None:
    """Name what a refused file would call, or None where it was refused for other reasons."""
    if "TorchScript" in message:
        return "a TorchScript program"
    if named := _GLOBAL.search(message):
        return named[1]
    if zipped or "Weights only load failed" not in message:
        return None
    # A plain pickle: walk through its opcodes, which executes none of them.
    found = ""
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in _CODE_OPCODES:
                    found = found or (str(argument).replace(" ", ".") if argument else "a pickled call")
    except Exception:  # garbage that only begins like a pickle
        return None
    return found or None


def _unwrapped(content: object) -> dict[str, Tensor]:
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
    if not weights:
        for name in _WRAPPINGS:
            if inner := _unwrapped(content.get(name)):
                return inner
    return weights

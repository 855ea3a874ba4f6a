"""How much memory there is, and a refusal in one sentence when it will not do."""

import os
from pathlib import Path

import torch

from unibrain.errors import InputError

__all__ = ["free_memory", "require_memory", "total_memory"]

_MARGIN = 1.1
"""Weights are not all: states, contexts and the libraries need room too."""


def _first_number(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _meminfo(field: str, path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 if found else None


def _container(folder: Path = Path("/sys/fs/cgroup")) -> tuple[int | None, int]:
    """Limit of the container, None if there is none, and what is used in it, without what can be dropped."""
    limit, used = _first_number(folder / "memory.max"), _first_number(folder / "memory.current") or 0
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    except (OSError, ValueError):
        pass
    return limit, max(0, used)


def total_memory(device: torch.device) -> int | None:
    """Memory of a device in bytes; None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limit, _ = _container()
    physical = _meminfo("MemTotal")
    if physical is None and hasattr(os, "sysconf"):
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known = [size for size in (physical, limit) if size is not None]
    return min(known) if known else None


def free_memory(device: torch.device) -> int | None:
    """Memory of a device in bytes that is free for new work; None if the system does not say."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limit, used = _container()
    known = [_meminfo("MemAvailable"), None if limit is None else max(0, limit - used)]
    sizes = [size for size in known if size is not None]
    return min(sizes) if sizes else None


def require_memory(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuse to load what does not fit.

    Parameters
    ----------
    needed : int
        Bytes of weights.
    device : torch.device
    what : str
        What is to be loaded, for the message.
    remedy : str
        What to do instead.

    Raises
    ------
    InputError
        If less than `needed` and a margin is free on `device`.
    """
    free = free_memory(device)
    if free is not None and needed * _MARGIN > free:
        raise InputError(
            f"{what} needs {needed * _MARGIN / 2**30:.1f} GiB of memory on the device {device}, found "
            f"{free / 2**30:.1f} GiB free: {remedy}"
        )

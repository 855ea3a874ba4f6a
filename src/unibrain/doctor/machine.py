"""The machine: processor, graphics cards, memory, and room on the disks where weights lie."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unibrain.doctor.diagnosis import Finding, Section

__all__ = ["OFFICIAL_PARAMETERS", "devices", "disk", "hub_cache", "machine", "memory", "memory_bytes"]

OFFICIAL_PARAMETERS = 3.319e9
"""Parameters of the published model: flows 2,566 M, CLIP 428 M, Optimus 242 M, AutoKL 84 M."""

_OFFICIAL_BF16 = 2 * OFFICIAL_PARAMETERS
_OFFICIAL_FP32 = 4 * OFFICIAL_PARAMETERS
# Peak over the weights' own size while loading and decoding, and what the system needs beside it.
_HEADROOM = 1.15
_SYSTEM = 2e9
_SMALL = 2e9
_SPARE = 1e9


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.platform()}"
    return Finding("python", "ok", found, "", {"python": platform.python_version(), "platform": platform.platform()})


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[Finding]:
    """Processor and graphics cards, as PyTorch sees them."""
    cores = _processors()
    findings = [Finding("processor", "ok", f"{cores} cores, {platform.machine()}", "", {"cores": cores})]
    try:
        import torch
    except ImportError as error:
        said = " ".join(str(error).split())
        return [
            *findings,
            Finding("graphics card", "problem", f"PyTorch cannot be imported ({said})", "pip install torch"),
        ]
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if cards:
        for index in range(cards):
            card = torch.cuda.get_device_properties(index)
            details = {"device": f"cuda:{index}", "name": card.name, "bytes": card.total_memory}
            found = f"cuda:{index}: {card.name}, {_gb(card.total_memory)}"
            findings.append(Finding("graphics card", "ok", found, "", details))
    elif torch.backends.mps.is_available():
        findings.append(Finding("graphics card", "ok", "mps: Apple's, sharing the memory", "", {"device": "mps"}))
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda
        why = (
            f"this PyTorch is built for CUDA {built} and cannot use it"
            if built
            else "this PyTorch is built without CUDA"
        )
        remedy = "install PyTorch for your CUDA version (pytorch.org, Get Started), or go on with the processor"
        findings.append(Finding("graphics card", "note", f"NVIDIA's driver is there, but {why}", remedy))
    else:
        remedy = "nothing to do for the small backbone; the official one takes minutes per picture without one"
        findings.append(Finding("graphics card", "note", "none found, the processor is used", remedy))
    return findings


def _limits() -> list[int]:
    """What a container may use, where the kernel tells (control groups, version 2 and 1)."""
    found = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found


def memory_bytes() -> tuple[int, int | None]:
    """Memory that this process may use, and how much of it is free now (None where the system does not tell)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    total = min([total, *_limits()])
    return total, None if free is None else min(free, total)


def memory(total: int, free: int | None) -> Finding:
    """Say what fits into the memory.

    Parameters
    ----------
    total, free : int
        Bytes; `free` may be None.

    Returns
    -------
    Finding
    """
    found = _gb(total) + ("" if free is None else f", {_gb(free)} of it free now")
    details: dict[str, Any] = {"total": total, "free": free}
    room = total if free is None else free
    if room < _SMALL:
        return Finding("memory", "problem", found, f"close other programs: a run needs {_gb(_SMALL)}", details)
    fp32, bf16 = (_HEADROOM * weights + _SYSTEM for weights in (_OFFICIAL_FP32, _OFFICIAL_BF16))
    if total >= fp32:
        return Finding("memory", "ok", f"{found}; enough for the official weights in fp32", "", details)
    if total >= bf16:
        return Finding("memory", "ok", f"{found}; enough for the official weights in bf16 (--dtype bf16)", "", details)
    remedy = f"enough for the small backbone; the official weights need {_gb(bf16)} in bf16"
    return Finding("memory", "note", found, remedy, details)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def disk(name: str, folder: Path, needed: float, what: str) -> Finding:
    """Look at the room on the disk of a folder, which need not exist yet.

    Parameters
    ----------
    name : str
        Of the finding.
    folder : Path
    needed : float
        Bytes that `what` takes.
    what : str

    Returns
    -------
    Finding
    """
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        return Finding(
            name, "problem", f"{folder}: {said}", "check the path and its permissions", {"folder": str(folder)}
        )
    found = f"{_gb(free)} free at {folder}"
    details = {"folder": str(folder), "free": free, "needed": needed}
    if free < _SPARE:
        return Finding(name, "problem", found, "free some space: runs would stop with a full disk", details)
    if free < needed:
        remedy = f"enough for the small backbone; {what} takes about {_gb(needed)}"
        return Finding(name, "note", found, remedy, details)
    return Finding(name, "ok", found, "", details)


def _disks() -> Sequence[Finding]:
    from unibrain.backbone.storage import backbones_home

    converted = disk("disk of backbones", backbones_home(), _OFFICIAL_FP32, "the converted official model")
    downloads = disk("disk of downloads", hub_cache(), _OFFICIAL_FP32, "the download of the official model")
    return converted, downloads


def hub_cache() -> Path:
    """Where the Hugging Face hub's own library keeps its downloads."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    return Path(HF_HUB_CACHE)


def machine() -> Section:
    """Look at the machine."""
    return Section("Machine", (_python(), *devices(), memory(*memory_bytes()), *_disks()))

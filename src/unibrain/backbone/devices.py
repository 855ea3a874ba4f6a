"""Where the networks run: devices and precisions, memory, batches that fit, and parts that take turns."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.config import BackboneConfig
from unibrain.errors import InputError
from unibrain.workspace.progress import remark

T = TypeVar("T")

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_ALWAYS_FP32 = 2 * 2**30
"""Bytes of float32 weights up to which saving memory is not worth another result."""

_MARGIN = 1.1
"""Weights are not all: states, contexts and the libraries need room too."""


def choose_device(device: str) -> torch.device:
    """Turn a name into a device that is there; ``"auto"`` takes CUDA, then Apple's MPS, then the processor."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}). Choose auto, cpu, cuda or mps."
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

    ``"auto"`` takes float32 for a small model. For a large one it takes, on a processor, float32 if the weights fill
    less than half of the machine's memory, and bfloat16 if not; elsewhere the 16-bit type of the files if the device
    has it. It looks at what the machine has, not at what happens to be free, so that a run that is continued goes on in
    the same precision.
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
    chosen = next((kind for name, kind in DTYPES.items() if name == dtype), None)
    if chosen is None:
        raise InputError(f"dtype is {dtype!r}. Choose auto, {', '.join(DTYPES)}.")
    reason = unusable(chosen, device)
    if reason is not None:
        others = [name for name, kind in DTYPES.items() if kind != chosen and not unusable(kind, device)]
        raise InputError(
            f"there is no {dtype} on the device {device} ({reason}). Choose {' or '.join(others) or 'another device'}."
        )
    return chosen


def precision_of(dtype: torch.dtype) -> Precision:
    """Name of a type: ``"fp32"``, ``"bf16"`` or ``"fp16"``."""
    return next(name for name, kind in DTYPES.items() if kind == dtype)


# Memory.


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
    """Refuse to load `needed` bytes of weights that do not fit on `device`."""
    free = free_memory(device)
    if free is not None and needed * _MARGIN > free:
        raise InputError(
            f"{what} needs {needed * _MARGIN / 2**30:.1f} GiB of memory on the device {device}, and "
            f"{free / 2**30:.1f} GiB are free. {remedy}"
        )


# Batches.

Task = Literal["autokl", "optimus", "clip", "image flow", "text flow"]

MOST = 64
"""Larger batches gain nothing."""

_SHARE = 0.6
"""Part of the memory that a batch may fill."""

_POSITIONS = 2**15
"""Positions of the image latent, both halves of the guidance counted, that keep a processor busy."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is short; on processors and on Apple's it has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


class Batches:
    """Work through rows in batches that fit: `fixed` rows, by default a guess, halved when that was too much.

    The guess depends on the machine, not on what happens to be free, so that a run that is continued makes the same
    batches: `weights` are the bytes of the whole network, and what is left of the device's memory is shared out.
    """

    def __init__(
        self, config: BackboneConfig, device: torch.device, itemsize: int, weights: int = 0, fixed: int | None = None
    ) -> None:
        if fixed is not None and fixed < 1:
            raise InputError(f"batch_size is {fixed}. Choose at least 1, or leave it out.")
        self._config, self._device, self._itemsize, self._weights = config, device, itemsize, weights
        self._fixed = fixed
        self._found: dict[str, int] = {}
        self._halved: set[str] = set()

    def size(self, task: Task) -> int:
        """Rows of the next batch of a task, at least 1."""
        if task not in self._found:
            self._found[task] = self._fixed or self._guess(task)
        return self._found[task]

    def _guess(self, task: Task) -> int:
        memory = total_memory(self._device)
        most = MOST
        side = self._config.autokl.latent_size
        if self._device.type == "cpu" and task in ("autokl", "image flow"):
            most = max(1, min(MOST, _POSITIONS // (2 * side * side)))
        if memory is None:
            return most
        return max(1, min(most, int((memory - self._weights) * _SHARE) // self._bytes(task)))

    def _bytes(self, task: Task) -> int:
        """Memory of one row at the widest place, about: what the layers there hold at once."""
        config = self._config
        flows, clip = config.flows, config.clip
        if task == "autokl":
            numbers = 12 * config.autokl.image_size**2 * config.autokl.widths[0]
        elif task == "image flow":
            numbers = 2 * 30 * config.autokl.latent_size**2 * flows.model_channels
        elif task == "text flow":
            numbers = 400 * flows.second_dim * flows.model_channels * max(flows.channel_mult)
        elif task == "clip":
            vision = clip.vision
            tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
            numbers = 40 * tokens * vision["hidden_size"]
        else:
            numbers = 16 * config.optimus.gpt2["vocab_size"]
        if "flow" in task:
            # Keys and values of both contexts at every context position.
            tokens = 77 + (clip.vision["image_size"] // clip.vision["patch_size"]) ** 2 + 1
            numbers += 32 * tokens * flows.model_channels * max(flows.channel_mult)
        return numbers * self._itemsize

    def run(self, task: Task, count: int, work: Callable[[slice], T]) -> list[T]:
        """Call `work` with slices that cover `count` rows in order; a batch that does not fit is halved and done again.

        What is found out about memory is kept by task. `work` must give the same whenever it has the same rows.
        """
        results: list[T] = []
        first = 0
        if task in self._halved:
            self._remark(task)
        while first < count:
            size = self.size(task)
            try:
                results.append(work(slice(first, min(first + size, count))))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise InputError(
                        f"not enough memory on the device {self._device} for one row through the {task} "
                        f"({str(error).splitlines()[0] if str(error) else 'out of memory'}). Choose dtype bf16, "
                        "offload, or another device."
                    ) from None
            else:
                first += size
                continue
            # Outside of the handler: there, the exception would still hold the memory of the failed batch.
            self._found[task] = max(1, min(size, count - first) // 2)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._halved.add(task)
            self._remark(task)
        return results

    def _remark(self, task: Task) -> None:
        remark(f"memory is short: {self._found[task]} at a time through the {task}, which may round otherwise")


# Parts.


class Parts:
    """The networks of a backbone by name, each loaded when it is first used.

    With `offload` the loaders put them on the processor, and at most one network is on the device at a time: it is
    brought there when it is used, and leaves when another one is. Its weights stay in the processor's memory, so
    leaving costs nothing.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], nn.Module]], device: torch.device, offload: bool = False
    ) -> None:
        self.device, self.offload = device, offload
        self._loaders = dict(loaders)
        self._modules: dict[str, nn.Module] = {}
        self._here: nn.Module | None = None
        self._homes: list[tuple[dict[str, Any], str, Tensor]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._loaders

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the parts that were used."""
        return tuple(name for name in self._loaders if name in self._modules)

    def get(self, name: str) -> Any:
        """Return a part, wherever it is; it is loaded if it was not yet."""
        if name not in self._loaders:
            raise InputError(f"the backbone was made without {name}, so it cannot do this. Take one that has it.")
        if name not in self._modules:
            # A loader may add to a network that is on the device.
            self._send_home()
            self._modules[name] = self._loaders[name]()
        return self._modules[name]

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """Have a part on the device."""
        module = self.get(name)
        if self.offload and self._here is not module:
            self._send_home()
            self._bring(module)
        yield module

    def _bring(self, module: nn.Module) -> None:
        homes: list[tuple[dict[str, Any], str, Tensor]] = []
        moved: dict[int, Tensor] = {}
        for child in module.modules():
            holders: tuple[dict[str, Any], ...] = (child._parameters, child._buffers)
            for entries in holders:
                for key, value in entries.items():
                    if value is None or value.is_meta:
                        continue
                    if id(value) not in moved:
                        there = value.detach().to(self.device, non_blocking=True)
                        is_weight = isinstance(value, nn.Parameter)
                        moved[id(value)] = nn.Parameter(there, requires_grad=False) if is_weight else there
                    homes.append((entries, key, value))
        # All are there: only now is anything changed, so that a failure leaves the part as it was.
        for entries, key, value in homes:
            entries[key] = moved[id(value)]
        self._homes, self._here = homes, module

    def _send_home(self) -> None:
        for entries, key, value in self._homes:
            entries[key] = value
        self._homes, self._here = [], None

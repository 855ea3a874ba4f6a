"""Batches whose size is found by itself: guessed from free memory, halved when that was too much."""

from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.memory import free_memory
from unibrain.errors import InputError
from unibrain.workspace.progress import say

__all__ = ["Batches", "Task", "is_out_of_memory"]

T = TypeVar("T")

Task = Literal["autokl", "optimus", "clip", "image flow", "text flow"]

MOST = 64
"""Larger batches gain nothing."""

_SHARE = 0.6
"""Part of the free memory that a batch may fill."""

_POSITIONS = 2**15
"""Positions of the image latent, both halves of the guidance counted, that keep a processor busy."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is short; on processors and on Apple's it has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


class Batches:
    """Work through rows in batches.

    Parameters
    ----------
    config : BackboneConfig
    device : torch.device
    itemsize : int
        Bytes of a number in the networks.
    fixed : int, optional
        Largest batch; found by itself if left out.
    """

    def __init__(self, config: BackboneConfig, device: torch.device, itemsize: int, fixed: int | None = None) -> None:
        if fixed is not None and fixed < 1:
            raise InputError(f"batch_size is {fixed}, expected at least 1: choose another, or leave it out")
        self._config, self._device, self._itemsize, self._fixed = config, device, itemsize, fixed
        self._found: dict[str, int] = {}

    def size(self, task: Task) -> int:
        """Rows of the next batch of a task, at least 1."""
        if task not in self._found:
            self._found[task] = self._fixed or self._guess(task)
        return self._found[task]

    def _guess(self, task: Task) -> int:
        free = free_memory(self._device)
        most = MOST
        side = self._config.autokl.latent_size
        if self._device.type == "cpu" and task in ("autokl", "image flow"):
            most = max(1, min(MOST, _POSITIONS // (2 * side * side)))
        if free is None:
            return most
        return max(1, min(most, int(free * _SHARE) // self._bytes(task)))

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
        """Call `work` with slices that cover `count` rows; a batch that does not fit is halved and done again.

        Parameters
        ----------
        task : str
            What is found out about memory is kept by task.
        count : int
        work : callable
            Must give the same whenever it is called with the same rows.

        Returns
        -------
        list
            What `work` returned, in order.

        Raises
        ------
        InputError
            If not even one row fits.
        """
        results: list[T] = []
        first = 0
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
                        f"({str(error).splitlines()[0] if str(error) else 'out of memory'}), expected room for it: "
                        "choose dtype bf16, offload, or another device"
                    ) from None
            else:
                first += size
                continue
            # Outside of the handler: there, the exception would still hold the memory of the failed batch.
            self._found[task] = max(1, min(size, count - first) // 2)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            say(f"memory is short: {self._found[task]} at a time through the {task}")
        return results

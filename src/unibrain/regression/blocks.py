"""What fitting and predicting need of the targets, block by block of columns: by this process, or shared by several.

A block is the same whoever does it, and so is its result. Shared, the operators are written down for all, a result is a
file, and what is there is not computed again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents import StoredLatents, open_latents
from unibrain.regression.ridge import choose_backend
from unibrain.regression.targets import (
    Operators,
    Targets,
    TrainingTargets,
    block_product,
    block_width,
    blocks_for,
    mean_square,
    training_targets,
    variance,
)
from unibrain.workspace.files import atomic_path

_ROWS = "rows.npy"


def _squares(product: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Mean squared prediction and variance of the targets, of shape (2, columns)."""
    centred, mean = product[:-1], product[-1]
    predicted = mean_square(centred) if len(centred) else np.zeros(len(mean))
    return np.stack([predicted, variance(values, mean)])


MEASURES: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "predictions": lambda product, _: product,
    "squares": _squares,
    "nothing": lambda product, _: np.zeros((2, product.shape[1])),
}
"""Name to what is made of the product of a block and its targets: an array with a column for each of the block."""


@dataclass(frozen=True)
class SharedBlocks:
    """Blocks of columns that several processes may do, see `keep_block`.

    Attributes
    ----------
    folder : pathlib.Path
        Operators and results.
    latents : str
        Folder or address of the latents that are multiplied.
    measure : str
        Key of `MEASURES`.
    device : str
        As in `BrainDecoder`.
    blocks : tuple of (str, slice)
        Latent and columns.
    """

    folder: Path
    latents: str
    measure: str
    device: str
    blocks: tuple[tuple[str, slice], ...]


@dataclass(frozen=True)
class Sharing:
    """How blocks are shared: a folder that all processes see, and what has them done there."""

    folder: Path
    share: Callable[[SharedBlocks], None]


def each_block(
    measure: str,
    operators: Iterable[tuple[str, Operators]],
    targets: TrainingTargets,
    memory: float,
    device: str,
    sharing: Sharing | None = None,
) -> Iterator[tuple[str, slice, NDArray[Any]]]:
    """Name, columns and result of one block after the other; `operators` are asked for as they are needed.

    Targets in memory are never shared.
    """
    if sharing is None or targets.stored is None:
        for name, some in operators:
            latent = targets[name]
            for block, values in latent.read(blocks_for(some, latent, memory)):
                yield name, block, MEASURES[measure](block_product(some, latent, block, values), values)
        return
    blocks = []
    for name, some in operators:
        some.save(_operators(sharing.folder, name))
        blocks += [(name, block) for block in blocks_for(some, targets[name], memory)]
    with atomic_path(sharing.folder / _ROWS) as temporary:
        np.save(temporary, targets.stored.row_numbers, allow_pickle=False)
    shared = SharedBlocks(sharing.folder, targets.stored.folder, measure, device, tuple(blocks))
    sharing.share(shared)
    for name, block in blocks:
        yield name, block, _result(sharing.folder, measure, targets[name], block, device)


def count_blocks(stored: StoredLatents, rows: int, memory: float) -> int:
    """How many blocks predicting so many rows takes, if each latent has one penalty."""
    targets, found = training_targets(stored), 0
    for latent in targets.values():
        taken = (rows + 1) * len(targets.ids) * latent.compute.itemsize
        found += len(latent.slices(block_width(latent, rows + 1, memory, taken)))
    return found


def keep_block(folder: Path, latents: str, measure: str, device: str, name: str, block: slice) -> None:
    """Do one of some `SharedBlocks`, and keep its result, unless it is there."""
    targets = _targets(latents, folder, (folder / _ROWS).stat().st_mtime_ns)
    _result(folder, measure, targets[name], block, device)


def _result(folder: Path, measure: str, targets: Targets, block: slice, device: str) -> NDArray[Any]:
    """Result of a block: read if it is there, else computed and kept."""
    file = folder / f"{targets.name}-{block.start}-{block.stop}.npy"
    try:
        found: NDArray[Any] = np.load(file, allow_pickle=False)
        if found.shape[1:] == (block.stop - block.start,):
            return found
    except (OSError, ValueError, EOFError):  # not there, or damaged
        pass
    path = _operators(folder, targets.name)
    operators = _load_operators(path, path.stat().st_mtime_ns, device)
    ((_, values),) = targets.read([block])
    found = MEASURES[measure](block_product(operators, targets, block, values), values)
    with atomic_path(file) as temporary:
        np.save(temporary, found, allow_pickle=False)
    return found


def _operators(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


@lru_cache(maxsize=1)
def _load_operators(path: Path, written: int, device: str) -> Operators:
    return Operators.load(path, choose_backend(device))


@lru_cache(maxsize=1)
def _targets(latents: str, folder: Path, written: int) -> TrainingTargets:
    """The targets whose rows were written down; a process opens them once."""
    return training_targets(open_latents(latents, verify=False).at(np.load(folder / _ROWS, allow_pickle=False)))

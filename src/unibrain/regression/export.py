"""Primal weights of chosen targets, for maps of which voxels matter; nothing else ever forms them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import choose_backend, column_blocks
from unibrain.regression.targets import Operators, Targets, block_width
from unibrain.workspace.files import atomic_path

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder


def export_weights(
    decoder: "BrainDecoder",
    latent: str,
    targets: slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.int64] | None = None,
    voxels: slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.int64] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> NDArray[Any]:
    """Ridge weights ``Xc' (K + alpha I)^-1 Yc``, block by block of targets.

    They are those of the regression before rescaling (`decoder.gain_` multiplies them), in units of the latent per unit
    of a scan. In banded ridge they are those of the voxels as they are.

    Parameters
    ----------
    decoder : BrainDecoder
        Fitted.
    latent : str
        Name of the targets.
    targets, voxels : slice, sequence of int, or ndarray of bool or int64, optional
        Which dimensions of the flattened latent and which voxels, as indices or a mask; all by default.
    path : path-like, optional
        Write an ``.npy`` file of that name, so that no more than a block is in memory.

    Returns
    -------
    ndarray of shape (voxels, targets)
        In the targets' precision, float32 or float64; a read-only memory map if `path` is given.

    Raises
    ------
    InputError
        If latent, targets or voxels are not there, or the disk is full.
    """
    if latent not in decoder.targets_:
        raise InputError(f"latent is {latent!r}. Choose one of {', '.join(decoder.targets_)}.")
    reader = decoder.targets_[latent]
    columns = _numbers(targets, reader.shape[1], "targets")
    rows = _numbers(voxels, decoder.n_features_in_, "voxels")
    shape = (len(rows), len(columns))
    if path is None:
        weights: NDArray[Any] = np.empty(shape, dtype=reader.compute)
        _fill(weights, decoder, reader, rows, columns)
        return weights
    with atomic_path(path) as temporary:
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=reader.compute, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # Room first: writing to a memory map of a file on a full disk would end in a signal.
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _fill(mapped, decoder, reader, rows, columns)
        mapped.flush()
    return np.asanyarray(np.load(Path(path), mmap_mode="r", allow_pickle=False))


def _fill(
    weights: NDArray[Any], decoder: "BrainDecoder", reader: Targets, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> None:
    system = next(system for system in decoder.systems_ if reader.name in system.names)
    backend, n, alpha = choose_backend(decoder.device), reader.shape[0], decoder.alphas_[reader.name]
    memory, needed = decoder.memory * 1e9, [float(value) for value in np.unique(alpha)]
    # Some voxels at a time, so that their operators take no more than a quarter of the memory.
    step = max(1, int(memory / 4 / (8 * n * (len(needed) + 1))))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        scans = np.empty((len(part), n))
        for block in column_blocks(n, len(part)):
            scans[block] = decoder.betas_[:, part[block]].T
        scans -= decoder.betas_mean_[part, None]
        if system.weights is not None:
            scans *= system.weights[part, None]
        operators = Operators(system.solver.operators(scans, needed), alpha, reader.compute, backend)
        width = block_width(reader, operators.rows, memory, operators.bytes)
        for start in range(0, len(columns), width):
            chosen = columns[start : start + width]
            block, values = _read(reader, chosen)
            if not np.isfinite(values).all():
                reader.refuse(block, values)
            product = operators.multiply(chosen, values)
            weights[first : first + len(part), start : start + len(chosen)] = product[:-1]


def _read(reader: Targets, chosen: NDArray[np.int64]) -> tuple[slice, NDArray[Any]]:
    """Some columns: neighbours at once, others one by one."""
    block = slice(int(chosen.min()), int(chosen.max()) + 1)
    if np.array_equal(chosen, np.arange(block.start, block.stop)):
        return block, np.ascontiguousarray(reader[:, block], dtype=reader.compute)
    values = np.empty((reader.shape[0], len(chosen)), dtype=reader.compute)
    for place, column in enumerate(chosen):
        values[:, place] = reader[:, int(column) : int(column) + 1][:, 0]
    return block, values


def _numbers(chosen: Any, count: int, what: str) -> NDArray[np.int64]:
    try:
        numbers = np.arange(count)[slice(None) if chosen is None else chosen]
    except IndexError as error:
        raise InputError(f"{what}: {error}. There are {count}.") from error
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"{what} is {chosen!r}, which chooses none in a row of {count}. Give indices or a mask.")
    return numbers

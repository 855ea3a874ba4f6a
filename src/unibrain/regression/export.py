"""Primal weights of chosen targets, for maps of which voxels matter; nothing else ever forms them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES
from unibrain.regression.backend import choose_backend
from unibrain.regression.kernels import column_blocks
from unibrain.regression.stream import Operators
from unibrain.regression.targets import block_width, targets_of
from unibrain.workspace.files import atomic_path

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

__all__ = ["export_weights"]


def export_weights(
    decoder: "BrainDecoder",
    latent: str,
    targets: slice | Sequence[int] | NDArray[np.int64] | None = None,
    voxels: NDArray[np.bool_] | NDArray[np.int64] | None = None,
    regions: Mapping[str, NDArray[np.bool_]] | None = None,
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
        One of `LATENT_NAMES`.
    targets : slice or sequence of int, optional
        Dimensions of the flattened latent; all by default.
    voxels : ndarray of bool or of int64, optional
        Which voxels, as a mask or numbers; all by default.
    regions : mapping of str to ndarray of shape (voxels,), bool, optional
        Voxels of any of these regions, instead of `voxels`.
    path : path-like, optional
        Write an ``.npy`` file of that name, so that no more than a block is in memory.

    Returns
    -------
    ndarray of shape (voxels, targets)
        In the targets' precision, float32 or float64; a read-only memory map if `path` is given.

    Raises
    ------
    InputError
        If latent, targets or voxels are not there, both `voxels` and `regions` are given, or the disk is full.
    """
    if latent not in LATENT_NAMES:
        raise InputError(f"latent is {latent!r}, expected one of {', '.join(LATENT_NAMES)}: choose one of them")
    reader = targets_of(decoder.latents_)[latent]
    columns = _numbers(targets, reader.shape[1], "targets")
    if regions is not None:
        if voxels is not None:
            raise InputError("both voxels and regions are given, expected one of them: leave one out")
        if not regions:
            raise InputError("regions is empty, expected at least one: leave it out for all voxels")
        voxels = np.logical_or.reduce(list(regions.values()))
    rows = _numbers(voxels, decoder.n_features_in_, "voxels")
    shape, dtype = (len(rows), len(columns)), reader.compute
    if path is None:
        weights: NDArray[Any] = np.empty(shape, dtype=dtype)
        _fill(weights, decoder, latent, rows, columns)
        return weights
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        start, size = file.tell(), int(np.prod(shape)) * dtype.itemsize
        if hasattr(os, "posix_fallocate") and size:
            # Room first: writing to a memory map of a file on a full disk would end in a signal.
            os.posix_fallocate(file.fileno(), start, size)
        else:
            file.truncate(start + size)
        file.flush()
        if size:
            mapped = np.memmap(temporary, dtype=dtype, mode="r+", offset=start, shape=shape)
            _fill(mapped, decoder, latent, rows, columns)
            mapped.flush()
    return np.asanyarray(np.load(Path(path), mmap_mode="r", allow_pickle=False))


def _fill(
    weights: NDArray[Any],
    decoder: "BrainDecoder",
    latent: str,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> None:
    backend, reader = choose_backend(decoder.device), targets_of(decoder.latents_)[latent]
    system = next(system for system in decoder.systems_ if latent in system.latents)
    n, alpha = reader.shape[0], decoder.alphas_[latent]
    memory = decoder.memory * 1e9
    # Some voxels at a time, so that their operators take no more than a quarter of the memory.
    needed = np.unique(alpha)
    step = max(1, int(memory / 4 / (8 * n * (len(needed) + 1))))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        scans = np.empty((len(part), n))
        for block in column_blocks(n, len(part)):
            scans[block] = decoder.betas_[:, part[block]].T
        scans -= decoder.betas_mean_[part, None]
        if system.weights is not None:
            scans *= system.weights[part, None]
        by_alpha = system.solver.operators(scans, [float(value) for value in needed])
        operators = Operators(by_alpha, alpha, reader.compute, backend)
        width = block_width(reader, operators.rows, memory, operators.bytes)
        for start in range(0, len(columns), width):
            chosen = columns[start : start + width]
            block, values = _read(reader, chosen)
            if not np.isfinite(values).all():
                reader.refuse(block, values)
            product = operators.multiply_columns(chosen, values)
            weights[first : first + len(part), start : start + len(chosen)] = product[:-1]


def _read(reader: Any, chosen: NDArray[np.int64]) -> tuple[slice, NDArray[Any]]:
    """Some columns: neighbours at once, others one by one."""
    block = slice(int(chosen[0]), int(chosen[-1]) + 1)
    if np.array_equal(chosen, np.arange(block.start, block.stop)):
        return block, np.ascontiguousarray(reader[:, block], dtype=reader.compute)
    values = np.empty((reader.shape[0], len(chosen)), dtype=reader.compute)
    for place, column in enumerate(chosen):
        values[:, place] = reader[:, int(column) : int(column) + 1][:, 0]
    return slice(int(chosen.min()), int(chosen.max()) + 1), values


def _numbers(chosen: Any, count: int, what: str) -> NDArray[np.int64]:
    if chosen is None:
        return np.arange(count)
    if isinstance(chosen, slice):
        return np.arange(count)[chosen]
    array = np.asarray(chosen)
    if array.dtype == np.bool_:
        if array.shape != (count,):
            raise InputError(
                f"the mask of {what} has shape {array.shape}, expected ({count},): use that of this decoder"
            )
        return np.flatnonzero(array)
    numbers = array.astype(np.int64).reshape(-1)
    wrong = numbers[(numbers < 0) | (numbers >= count)]
    if len(wrong):
        raise InputError(f"{what} names {wrong[0]}, expected 0 to {count - 1}: correct it")
    return numbers

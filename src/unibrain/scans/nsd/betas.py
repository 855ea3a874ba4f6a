"""Single-trial betas, one session at a time, in one order whatever the file format."""

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.files import require_file, whole_file
from unibrain.scans.nsd.layout import NsdLayout
from unibrain.scans.numbers import as_ranges

__all__ = ["FILE_FORMATS", "choose_format", "present_sessions", "read_session"]

FILE_FORMATS = ("hdf5", "nifti")
"""In the order of preference: one chunk per voxel makes a masked read of the HDF5 the quicker one."""

_BYTES_AT_ONCE = 16 * 2**20


def _formats(file_format: str) -> tuple[str, ...]:
    if file_format not in ("auto", *FILE_FORMATS):
        raise InputError(f"file_format is {file_format!r}, expected 'auto', 'nifti' or 'hdf5': choose one of them")
    return FILE_FORMATS if file_format == "auto" else (file_format,)


def present_sessions(layout: NsdLayout, sessions: tuple[int, ...], file_format: str = "auto") -> tuple[int, ...]:
    """Name the sessions whose betas are there, in the format that has most of them.

    Parameters
    ----------
    layout : NsdLayout
    sessions : tuple of int
        Those that were run.
    file_format : {"auto", "nifti", "hdf5"}

    Returns
    -------
    tuple of int
        1-based.

    Raises
    ------
    InputError
        If the format is unknown.
    """
    there = [
        tuple(session for session in sessions if layout.betas(session, candidate).is_file())
        for candidate in _formats(file_format)
    ]
    return max(there, key=len)


def choose_format(layout: NsdLayout, sessions: tuple[int, ...], file_format: str) -> str:
    """Decide which files to read.

    Parameters
    ----------
    layout : NsdLayout
    sessions : tuple of int
    file_format : {"auto", "nifti", "hdf5"}
        ``"auto"`` takes the first format of `FILE_FORMATS` that is there for every session.

    Returns
    -------
    str
        ``"nifti"`` or ``"hdf5"``.

    Raises
    ------
    InputError
        If the format is unknown, or the betas of a session are missing.
    """
    absent = {
        candidate: [session for session in sessions if not layout.betas(session, candidate).is_file()]
        for candidate in _formats(file_format)
    }
    for candidate, missing in absent.items():
        if not missing:
            return candidate
    candidate, missing = min(absent.items(), key=lambda item: len(item[1]))
    there = sorted(set(sessions) - set(missing))
    raise InputError(
        f"{layout.betas(missing[0], candidate)}: found no such file ({len(missing)} of {len(sessions)} sessions lack "
        f"theirs as {' or '.join(absent)}; there are sessions {as_ranges(there) or 'none'}), expected the betas of "
        "every session that is read: download them, or name the sessions to read"
    )


def read_session(
    layout: NsdLayout,
    mask: NDArray[np.bool_],
    session: int,
    trials: int,
    file_format: str,
    check_finite: bool = True,
) -> NDArray[np.generic]:
    """Read one session's betas inside a mask, going through the file once.

    The NIfTI is X, Y, Z, trials and the HDF5 is trials, Z, Y, X: both come back with voxels in C order of X, Y, Z.

    Parameters
    ----------
    layout : NsdLayout
    mask : ndarray of shape (X, Y, Z), bool
    session : int
        1-based.
    trials : int
        How many trials the session has according to ``responses.tsv``.
    file_format : {"nifti", "hdf5"}
    check_finite : bool
        False leaves NaN and infinite values to the caller.

    Returns
    -------
    ndarray of shape (voxels, trials)
        As stored: int16, percent signal change x 300.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another shape, or holds NaN or infinite values inside the mask.
    """
    path = require_file(layout.betas(session, file_format), f"the betas of session {session}")
    betas = (_read_hdf5 if file_format == "hdf5" else _read_nifti)(path, mask, trials)
    if check_finite and np.issubdtype(betas.dtype, np.floating):
        wrong = ~np.isfinite(betas).all(axis=1)
        if wrong.any():
            raise InputError(
                f"{path}: found NaN or infinite values in {int(wrong.sum())} of {len(betas)} voxels, "
                "expected finite betas inside the mask: choose a mask without those voxels, or download it again"
            )
    return betas


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...], axes: str) -> None:
    if found == expected:
        return
    if found == expected[::-1]:
        raise InputError(
            f"{path}: found betas of shape {found}, whose axes are in the other order, expected {expected} ({axes}): "
            "write it with its axes reversed, as NSD does, or use the file that NSD publishes"
        )
    raise InputError(
        f"{path}: found betas of shape {found}, expected {expected} ({axes}; grid as in the mask, trials as in "
        "responses.tsv): take all files from one subject and one space, unchanged"
    )


def _check_type(path: Path, dtype: "np.dtype[Any]") -> None:
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: found betas of type {dtype}, expected numbers (NSD: int16): download it again")


def _read_nifti(path: Path, mask: NDArray[np.bool_], trials: int) -> NDArray[np.generic]:
    import nibabel

    with whole_file(path, "NIfTI"):
        # The image's header forgets where its data begin and how they are scaled; what would read them knows.
        image: Any = nibabel.load(path)
        stored = image.dataobj
        shape, dtype, offset = tuple(int(n) for n in stored.shape), np.dtype(stored.dtype), int(stored.offset)
        slope, intercept = float(stored.slope), float(stored.inter)
    _check_shape(path, shape, (*mask.shape, trials), "X, Y, Z, trials")
    _check_type(path, dtype)
    # In a NIfTI X runs fastest: position of every voxel in a volume of the file, voxels in C order of X, Y, Z.
    where = np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")
    volume = mask.size * dtype.itemsize
    at_once = max(1, _BYTES_AT_ONCE // volume)
    betas: NDArray[Any] = np.empty((len(where), trials), dtype=dtype.newbyteorder("="))
    buffer = bytearray(volume * at_once)
    # Volume by volume, because a session is a gigabyte; to the end, because only there gzip says if all was well.
    with whole_file(path, "NIfTI"), gzip.open(path) as file:
        _skip(file, offset)
        for start in range(0, trials, at_once):
            number = min(at_once, trials - start)
            block = memoryview(buffer)[: number * volume]
            if file.readinto(block) != len(block):
                raise EOFError(f"it ends in volume {start + 1} to {start + number} of {trials}")
            betas[:, start : start + number] = np.frombuffer(block, dtype=dtype).reshape(number, -1)[:, where].T
        while file.read(2**20):
            pass
    if (slope, intercept) != (1, 0):
        return np.asarray(betas * np.float32(slope) + np.float32(intercept), dtype=np.float32)
    return betas


def _skip(file: gzip.GzipFile, number: int) -> None:
    if len(file.read(number)) != number:
        raise EOFError("it ends inside the header")


def _read_hdf5(path: Path, mask: NDArray[np.bool_], trials: int) -> NDArray[np.generic]:
    import h5py

    x, y, z = np.nonzero(mask)
    order = np.lexsort((x, y, z))
    # Runs of neighbours along X, the file's last axis, are read in one go; a row ends a run.
    row = (z * mask.shape[1] + y) * (mask.shape[0] + 1) + x
    starts = np.concatenate(([0], np.flatnonzero(np.diff(row[order]) != 1) + 1, [len(order)]))
    with whole_file(path, "HDF5"):
        file = h5py.File(path, "r")
    with file:
        if "betas" not in file:
            raise InputError(f"{path}: found no dataset 'betas', expected NSD's betas: download it again")
        stored = file["betas"]
        _check_shape(path, tuple(stored.shape), (trials, *mask.shape[::-1]), "trials, Z, Y, X")
        _check_type(path, stored.dtype)
        with whole_file(path, "HDF5"):
            betas = np.empty((len(order), trials), dtype=stored.dtype.newbyteorder("="))
            for start, stop in pairwise(starts):
                columns = order[start:stop]
                first = columns[0]
                betas[columns] = stored[:, z[first], y[first], x[first] : x[first] + len(columns)].T
    return betas

"""Single-trial betas, one session at a time, in one order whatever the file format."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.design import Design
from unibrain.scans.nsd.files import require_file, whole_file
from unibrain.scans.nsd.layout import NsdLayout
from unibrain.workspace.progress import track

__all__ = ["FILE_FORMATS", "choose_format", "iterate_sessions", "read_session"]

FILE_FORMATS = ("hdf5", "nifti")
"""In the order of preference: one chunk per voxel makes a masked read of the HDF5 the quicker one."""
_VOLUMES_AT_ONCE = 32


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
    if file_format not in ("auto", *FILE_FORMATS):
        raise InputError(f"file_format is {file_format!r}, expected 'auto', 'nifti' or 'hdf5': choose one of them")
    absent = {
        candidate: [session for session in sessions if not layout.betas(session, candidate).is_file()]
        for candidate in (FILE_FORMATS if file_format == "auto" else (file_format,))
    }
    for candidate, missing in absent.items():
        if not missing:
            return candidate
    candidate, missing = min(absent.items(), key=lambda item: len(item[1]))
    raise InputError(
        f"{layout.betas(missing[0], candidate)}: found no such file ({len(missing)} of {len(sessions)} sessions lack "
        f"theirs as {' or '.join(absent)}), expected the betas of every session that was run: "
        "download it, or name the sessions to read"
    )


def iterate_sessions(
    layout: NsdLayout, mask: NDArray[np.bool_], design: Design, file_format: str = "auto"
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Read session after session, with a progress bar; never more than one is in memory.

    Parameters
    ----------
    layout : NsdLayout
    mask : ndarray of shape (X, Y, Z), bool
    design : Design
    file_format : {"auto", "nifti", "hdf5"}

    Yields
    ------
    session : int
        1-based.
    betas : ndarray of shape (trials, voxels)
        See `read_session`.

    Raises
    ------
    InputError
        As `choose_format` and `read_session`.
    """
    chosen = choose_format(layout, design.sessions, file_format)
    for session in track(design.sessions, "reading betas", unit="session"):
        yield session, read_session(layout, mask, session, len(design.trials(session)), chosen)


def read_session(
    layout: NsdLayout, mask: NDArray[np.bool_], session: int, trials: int, file_format: str
) -> NDArray[np.generic]:
    """Read one session's betas inside a mask.

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

    Returns
    -------
    ndarray of shape (trials, voxels)
        As stored: int16, percent signal change x 300.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another shape, or holds NaN or infinite values inside the mask.
    """
    path = require_file(layout.betas(session, file_format), f"the betas of session {session}")
    betas = (_read_hdf5 if file_format == "hdf5" else _read_nifti)(layout, mask, session, trials)
    if np.issubdtype(betas.dtype, np.floating):
        wrong = ~np.isfinite(betas).all(axis=0)
        if wrong.any():
            raise InputError(
                f"{path}: found NaN or infinite values in {int(wrong.sum())} of {betas.shape[1]} voxels, "
                "expected finite betas inside the mask: choose a mask without those voxels, or download it again"
            )
    return betas


def _check_shape(path: object, found: tuple[int, ...], expected: tuple[int, ...], axes: str) -> None:
    if found != expected:
        raise InputError(
            f"{path}: found betas of shape {found}, expected {expected} ({axes}; grid as in the mask, trials as in "
            "responses.tsv): take all files from one subject and one space, unchanged"
        )


def _read_nifti(layout: NsdLayout, mask: NDArray[np.bool_], session: int, trials: int) -> NDArray[np.generic]:
    import nibabel

    path = layout.betas(session, "nifti")
    with whole_file(path, "NIfTI"):
        # Kept open, so that the blocks below go through the compressed stream once.
        image: Any = nibabel.load(path, keep_file_open=True)
    _check_shape(path, tuple(image.shape), (*mask.shape, trials), "X, Y, Z, trials")
    blocks = []
    with whole_file(path, "NIfTI"):
        for start in range(0, trials, _VOLUMES_AT_ONCE):
            block = np.asanyarray(image.dataobj[..., start : start + _VOLUMES_AT_ONCE])
            blocks.append(block[mask].T)
    return np.concatenate(blocks)


def _read_hdf5(layout: NsdLayout, mask: NDArray[np.bool_], session: int, trials: int) -> NDArray[np.generic]:
    import h5py

    path = layout.betas(session, "hdf5")
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
        with whole_file(path, "HDF5"):
            betas = np.empty((trials, len(order)), dtype=stored.dtype)
            for start, stop in pairwise(starts):
                columns = order[start:stop]
                first = columns[0]
                betas[:, columns] = stored[:, z[first], y[first], x[first] : x[first] + len(columns)]
    return betas

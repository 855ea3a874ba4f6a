"""Single-trial betas, one session at a time, in one order whatever the file format."""

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import require_file, whole_file
from unibrain.scans.nsd_layout import NsdLayout, as_ranges

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


"""Every session read once from NSD's files, and what lies inside the mask kept on disk until the subject is prepared.

A session of NSD is a gigabyte, of which a mask such as ``nsdgeneral`` keeps 24 MB. Those are written to a scratch
folder, one file per session, so that what comes after may go through the trials as often and in whatever order it needs
without holding them, and so that a stopped preparation continues at the session.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_design import Design
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.workspace.files import atomic_path, sweep_partials
from unibrain.workspace.progress import say, track

_VERSION = 1


@dataclass(frozen=True)
class MaskedSessions:
    """The single trials of a subject inside a mask, on disk.

    Attributes
    ----------
    files : dict of int to pathlib.Path
        By session: ``.npy`` of shape (voxels, trials), as stored by NSD (int16, percent signal change x 300).
    sources : dict of int to pathlib.Path
        The file of NSD's that each was read from.
    """

    files: dict[int, Path]
    sources: dict[int, Path]

    def read(self, session: int, voxels: slice = slice(None)) -> NDArray[Any]:
        """Read some voxels of one session.

        Parameters
        ----------
        session : int
            1-based.
        voxels : slice

        Returns
        -------
        ndarray of shape (trials, voxels), C order
        """
        stored = np.load(self.files[session], mmap_mode="r", allow_pickle=False)
        return np.ascontiguousarray(stored[voxels].T)

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pairs of session and its trials, shape (trials, voxels); never more than one is in memory."""
        for session in self.files:
            yield session, self.read(session)

    @property
    def voxels(self) -> int:
        """How many voxels there are."""
        stored = np.load(next(iter(self.files.values())), mmap_mode="r", allow_pickle=False)
        return int(stored.shape[0])


def gather_sessions(
    layout: NsdLayout, mask: NDArray[np.bool_], design: Design, scratch: Path, file_format: str = "auto"
) -> MaskedSessions:
    """Read session after session, with a progress bar; what an earlier, stopped call has read is taken over.

    What is kept is named after everything that it depends on: the file of betas (its path, size and time of change),
    the mask, and the number of trials. Other files of this function are removed from `scratch`.

    Parameters
    ----------
    layout : NsdLayout
    mask : ndarray of shape (X, Y, Z), bool
    design : Design
    scratch : pathlib.Path
        A folder for one file per session, 2 bytes per voxel and trial each. Nobody else may be working in it.
    file_format : {"auto", "nifti", "hdf5"}

    Returns
    -------
    MaskedSessions

    Raises
    ------
    InputError
        If betas are missing, damaged or misshapen, or the disk is full.
    """
    chosen = choose_format(layout, design.sessions, file_format)
    scratch.mkdir(parents=True, exist_ok=True)
    sweep_partials(scratch)
    shape = {session: (int(mask.sum()), len(design.trials(session))) for session in design.sessions}
    digest = hashlib.sha256(np.packbits(mask).tobytes() + repr(mask.shape).encode()).hexdigest()
    sources = {session: layout.betas(session, chosen) for session in design.sessions}
    files = {
        session: scratch / f"session-{session:02d}-{_key(source, digest, shape[session][1])}.npy"
        for session, source in sources.items()
    }
    for path in scratch.glob("session-*.npy"):
        if path not in files.values():
            path.unlink()
    kept = [session for session in files if _is_whole(files[session], shape[session])]
    if kept:
        say(f"{layout.name}: {len(kept)} of {len(files)} sessions were read before")
    for session in track([s for s in files if s not in kept], "reading betas", unit="session"):
        betas = read_session(layout, mask, session, shape[session][1], chosen)
        with atomic_path(files[session]) as temporary:
            np.save(temporary, betas, allow_pickle=False)
    return MaskedSessions(files, sources)


def _key(source: Path, mask: str, trials: int) -> str:
    status = source.stat()
    about = [_VERSION, str(source.resolve()), status.st_size, status.st_mtime_ns, mask, trials]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut short by a power failure
        return False
    return tuple(stored.shape) == shape


"""Whether the sessions in a folder are of one brain: file names alone do not say so."""

import logging

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_STABLE, _ALIKE = 0.4, 0.2
_FEWEST_VOXELS = 30


def check_one_subject(sessions: MaskedSessions) -> None:
    """Warn about sessions whose mean response over voxels does not resemble that of the others.

    The mean over trials differs from voxel to voxel, and one brain keeps the pattern over its sessions. A session with
    a pattern of its own (stable within the session: reliability from its odd and even trials above 0.4) that correlates
    with the mean of the other sessions below 0.2 is of another subject, or was aligned to another space. Copies of one
    session under two names are found as well. It is a warning, because data that were processed otherwise, for example
    centred per session, may have no such pattern.

    Parameters
    ----------
    sessions : MaskedSessions
    """
    halves = {session: (_mean(trials[::2]), _mean(trials[1::2])) for session, trials in sessions if len(trials) > 1}
    for one, other in pairwise(halves):
        if np.array_equal(halves[one], halves[other]) and np.ptp(halves[one][0]) > 0:
            _log.warning(
                "%s: found the same betas as in %s, expected another session: download both again",
                sessions.sources[other],
                sessions.sources[one].name,
            )
    if sessions.voxels < _FEWEST_VOXELS:
        return
    whole = {session: (odd + even) / 2 for session, (odd, even) in halves.items()}
    for session, (odd, even) in halves.items():
        others = [pattern for other, pattern in whole.items() if other != session]
        if not others:
            continue
        alike, half = _correlation(whole[session], np.mean(others, axis=0)), _correlation(odd, even)
        stable = 2 * half / (1 + half) if half > 0 else 0.0  # Spearman and Brown: from half a session to a whole one
        if stable > _STABLE and alike < _ALIKE:
            _log.warning(
                "%s: found a mean response over voxels that does not resemble the other sessions' (correlation %.2f; "
                "reliability within the session %.2f), expected one subject's betas: check that the file belongs to "
                "this subject",
                sessions.sources[session],
                alike,
                stable,
            )


def _mean(trials: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(trials.mean(axis=0, dtype=np.float64))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])

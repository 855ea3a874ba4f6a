"""Single-trial betas: every session read once, in one order and one unit whatever the file, and kept inside the mask.

A session of NSD is a gigabyte, of which a mask such as ``nsdgeneral`` keeps 24 MB. Those are written to a scratch
folder, one file per session, so that what comes after may go through the trials as often and in whatever order it needs
without holding them, and so that a stopped preparation continues at the session.
"""

import gzip
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import hdf5_dataset, open_hdf5, open_nifti, reading
from unibrain.scans.nsd_design import Design
from unibrain.scans.nsd_layout import BETA_SCALE, NsdLayout, as_ranges, formats_of
from unibrain.workspace.files import atomic_path, sweep_partials
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import say, track

_log = logging.getLogger(__name__)

_VERSION = 2
_BYTES_AT_ONCE = 16 * 2**20
_SAMPLE = 2000
_PERCENT_BELOW = 20.0
"""Typical deviation over trials below which values are percent: NSD's are some 2 percent, stored as some 600."""
_UNLIKE, _OTHER_UNIT = 3.0, 10.0
_STABLE, _ALIKE, _FEWEST_VOXELS = 0.4, 0.2, 30


def choose_format(layout: NsdLayout, sessions: tuple[int, ...], file_format: str) -> str:
    """Decide which files to read: with ``"auto"`` the first format that is there for every session."""
    absent = {
        candidate: [session for session in sessions if not layout.betas(session, candidate).is_file()]
        for candidate in formats_of(file_format)
    }
    for candidate, missing in absent.items():
        if not missing:
            return candidate
    candidate, missing = min(absent.items(), key=lambda item: len(item[1]))
    there = sorted(set(sessions) - set(missing))
    raise InputError(
        f"{layout.betas(missing[0], candidate)}: no such file ({len(missing)} of {len(sessions)} sessions lack theirs "
        f"as {' or '.join(absent)}; sessions {as_ranges(there) or 'none'} are there). Download them, or name the "
        "sessions to read."
    )


def betas_grid(path: Path, file_format: str) -> tuple[int, ...]:
    """X, Y and Z of a file of betas, from its header alone."""
    if file_format == "nifti":
        return open_nifti(path, "betas").shape[:3]
    with open_hdf5(path, "betas") as file:
        return tuple(int(n) for n in hdf5_dataset(path, file, "betas").shape[:0:-1])


def read_betas(
    path: Path, mask: NDArray[np.bool_], trials: int, file_format: str, check_finite: bool = True
) -> tuple[NDArray[Any], str]:
    """Read a file of betas inside a mask, going through it once.

    The NIfTI is X, Y, Z, trials and the HDF5 is trials, Z, Y, X: both come back with voxels in C order of X, Y, Z. A
    header's slope is applied. NSD stores integers, percent signal change x 300. Values that are scaled by a header, or
    stored as floats, may be percent as well: which, is told by their size, and percent is multiplied by 300.
    `check_finite` as False leaves NaN and infinite values to the caller.

    Returned are the betas (voxels, trials) in percent signal change x 300, as int16 where they are stored so, and how
    they are stored: ``"plain"`` as by NSD, ``"scaled"`` by a slope in the header, or as ``"percent"``.
    """
    betas, step = (_read_hdf5 if file_format == "hdf5" else _read_nifti)(path, mask, trials)
    if betas.dtype.kind != "f":
        return betas, "plain"
    if check_finite:
        wrong = ~np.isfinite(betas).all(axis=1)
        if wrong.any():
            raise InputError(
                f"{path}: {int(wrong.sum())} of {len(betas)} voxels inside the mask hold NaN or infinite values. "
                "Choose a mask without those voxels, or download the file again."
            )
    if step:
        # Zero marks a voxel that was not measured, and a header's intercept may have moved it by a rounding.
        betas[(betas == betas[:, :1]).all(axis=1) & (np.abs(betas[:, 0]) <= step)] = 0
    if 0 < _typical_deviation(betas.T) < _PERCENT_BELOW:
        return np.asarray(betas * np.float32(BETA_SCALE), dtype=np.float32), "percent"
    return betas, "scaled" if step else "plain"


def _typical_deviation(trials: NDArray[Any]) -> float:
    """Median over voxels (at most some thousands) of the deviation over trials, where it is not 0."""
    sample = trials[:, :: max(1, trials.shape[1] // _SAMPLE)].astype(np.float64)
    with np.errstate(invalid="ignore"):
        deviation = sample.std(axis=0)
    deviation = deviation[np.isfinite(deviation) & (deviation > 0)]
    return float(np.median(deviation)) if len(deviation) else 0.0


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...], axes: str) -> None:
    if found == expected:
        return
    text = f"{path}: its betas have the shape {found},"
    if found == expected[::-1]:
        raise InputError(
            f"{text} with axes in the other order than {expected} ({axes}). Write it with its axes reversed, as NSD "
            "does, or use the file that NSD publishes."
        )
    raise InputError(
        f"{text} but mask and trials make {expected} ({axes}). Take all files from one subject and one space."
    )


def _read_nifti(path: Path, mask: NDArray[np.bool_], trials: int) -> tuple[NDArray[Any], float]:
    nifti = open_nifti(path, "the betas of a session")
    _check_shape(path, nifti.shape, (*mask.shape, trials), "X, Y, Z, trials")
    # In a NIfTI X runs fastest: position of every voxel in a volume of the file, voxels in C order of X, Y, Z.
    where = np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")
    volume = mask.size * nifti.dtype.itemsize
    at_once = max(1, _BYTES_AT_ONCE // volume)
    betas: NDArray[Any] = np.empty((len(where), trials), dtype=nifti.dtype.newbyteorder("="))
    buffer = bytearray(volume * at_once)
    # Volume by volume, because a session is a gigabyte; to the end, because only there gzip says if all was well.
    with reading(path, "NIfTI"), gzip.open(path) as file:
        if len(file.read(nifti.offset)) != nifti.offset:
            raise EOFError("it ends inside the header")
        for start in range(0, trials, at_once):
            number = min(at_once, trials - start)
            block = memoryview(buffer)[: number * volume]
            if file.readinto(block) != len(block):
                raise EOFError(f"it ends in volume {start + 1} to {start + number} of {trials}")
            values = np.frombuffer(block, dtype=nifti.dtype).reshape(number, -1)
            betas[:, start : start + number] = values[:, where].T
        while file.read(2**20):
            pass
    if (nifti.slope, nifti.intercept) != (1, 0):
        betas = np.asarray(betas * np.float32(nifti.slope) + np.float32(nifti.intercept), dtype=np.float32)
        return betas, abs(nifti.slope)
    return betas, 0.0


def _read_hdf5(path: Path, mask: NDArray[np.bool_], trials: int) -> tuple[NDArray[Any], float]:
    x, y, z = np.nonzero(mask)
    order = np.lexsort((x, y, z))
    # Runs of neighbours along X, the file's last axis, are read in one go; a row ends a run.
    row = (z * mask.shape[1] + y) * (mask.shape[0] + 1) + x
    runs = np.split(order, np.flatnonzero(np.diff(row[order]) != 1) + 1)
    with open_hdf5(path, "the betas of a session") as file:
        stored = hdf5_dataset(path, file, "betas")
        _check_shape(path, tuple(stored.shape), (trials, *mask.shape[::-1]), "trials, Z, Y, X")
        betas = np.empty((len(order), trials), dtype=stored.dtype.newbyteorder("="))
        with reading(path, "HDF5"):
            for columns in runs:
                first = columns[0]
                betas[columns] = stored[:, z[first], y[first], x[first] : x[first] + len(columns)].T
    return betas, 0.0


@dataclass(frozen=True)
class MaskedSessions:
    """The single trials of a subject inside a mask, on disk, by session."""

    files: dict[int, Path]  # .npy of shape (voxels, trials), percent signal change x 300
    sources: dict[int, Path]  # the file of NSD's that each was read from

    def read(self, session: int, voxels: slice = slice(None)) -> NDArray[Any]:
        """Some voxels of one session (1-based): shape (trials, voxels), C order."""
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
    layout: NsdLayout, mask: NDArray[np.bool_], design: Design, scratch: Path, file_format: str
) -> MaskedSessions:
    """Read session after session, with a progress bar; what an earlier, stopped call has read is taken over.

    What is kept is named after everything that it depends on: the file of betas (its path, size and time of change),
    the mask, and the number of trials. Other files of this function are removed from `scratch`, in which nobody else
    may be working.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    sweep_partials(scratch)
    shape = {session: (int(mask.sum()), len(design.trials(session))) for session in design.sessions}
    about_mask = digest(mask)
    sources = {session: layout.betas(session, file_format) for session in design.sessions}
    files = {}
    for session, source in sources.items():
        status = source.stat()
        about = (str(source.resolve()), status.st_size, status.st_mtime_ns, about_mask, shape[session][1])
        files[session] = scratch / f"session-{session:02d}-{digest(_VERSION, *about)[:16]}.npy"
    for path in scratch.glob("session-*.npy"):
        if path not in files.values():
            path.unlink()
    kept = [session for session in files if _is_whole(files[session], shape[session])]
    if kept:
        say(f"{layout.name}: {len(kept)} of {len(files)} sessions were read before")
    stored: dict[str, list[int]] = {"plain": [], "scaled": [], "percent": []}
    for session in track([s for s in files if s not in kept], "reading betas", unit="session"):
        betas, how = read_betas(sources[session], mask, shape[session][1], file_format)
        stored[how].append(session)
        with atomic_path(files[session]) as temporary:
            np.save(temporary, betas, allow_pickle=False)
    if stored["percent"]:
        _log.warning(
            "%s: the betas of sessions %s are percent signal change by their size, not NSD's integers of 300 times "
            "that; they were read as such.",
            *(layout.betas_folder, as_ranges(stored["percent"])),
        )
    if stored["scaled"] and (stored["plain"] or stored["percent"]):
        _log.warning(
            "%s: the header scales the betas of sessions %s and not those of the others. Check that all were written "
            "in the same way.",
            *(layout.betas_folder, as_ranges(stored["scaled"])),
        )
    return MaskedSessions(files, sources)


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut short by a power failure
        return False
    return tuple(stored.shape) == shape


def check_one_subject(sessions: MaskedSessions) -> None:
    """Look whether the sessions are of one brain and in one unit: file names alone do not say so.

    The mean over trials differs from voxel to voxel, and one brain keeps the pattern over its sessions. A session with
    a pattern of its own (stable within the session: reliability from its odd and even trials above 0.4) that correlates
    with the mean of the other sessions below 0.2 is of another subject, or was aligned to another space. Copies of one
    session under two names are found as well, and sessions whose values are 3 times as large or small as the others'.
    These are warnings, because data that were processed otherwise, for example centred per session, may have no such
    pattern. At 10 times it is another unit, and an error.
    """
    halves: dict[int, list[NDArray[np.float64]]] = {}
    size: dict[int, float] = {}
    for session, trials in sessions:
        if len(trials) > 1:
            halves[session] = [part.mean(axis=0, dtype=np.float64) for part in (trials[::2], trials[1::2])]
            size[session] = _typical_deviation(trials)
    _check_unit(sessions, {session: value for session, value in size.items() if value > 0})
    for one, other in pairwise(halves):
        if np.array_equal(halves[one], halves[other]) and np.ptp(halves[one][0]) > 0:
            pair = sessions.sources[other], sessions.sources[one].name
            _log.warning("%s: holds the same betas as %s. Download both again.", *pair)
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
                "%s: its mean response over voxels does not resemble that of the other sessions (correlation %.2f; "
                "reliability within the session %.2f). Check that the file belongs to this subject.",
                *(sessions.sources[session], alike, stable),
            )


def _check_unit(sessions: MaskedSessions, size: dict[int, float]) -> None:
    for session, value in size.items():
        others = [other for number, other in size.items() if number != session]
        if not others:
            return
        ratio = value / float(np.median(others))
        if (not 1 / _UNLIKE <= ratio <= _UNLIKE and len(others) > 1) or not 1 / _OTHER_UNIT <= ratio <= _OTHER_UNIT:
            text = f"its betas vary {ratio:.3g} times as much over trials as those of the other sessions"
            if not 1 / _OTHER_UNIT <= ratio <= _OTHER_UNIT:
                raise InputError(f"{sessions.sources[session]}: {text}, so it is in another unit. Download it again.")
            _log.warning("%s: %s. Check that it is in the same unit.", sessions.sources[session], text)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd.betas import choose_format, read_session
from unibrain.scans.nsd.design import Design
from unibrain.scans.nsd.layout import NsdLayout
from unibrain.workspace.atomic import atomic_path, sweep_partials
from unibrain.workspace.progress import say, track

__all__ = ["MaskedSessions", "gather_sessions"]

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

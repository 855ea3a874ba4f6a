"""From single trials to one z-scored row per image."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.design import Design

__all__ = ["Averages", "PrepareSettings", "average_repeats", "standardise"]

_log = logging.getLogger(__name__)

_COLUMNS_AT_ONCE = 1024


@dataclass(frozen=True)
class PrepareSettings:
    """What to read of a subject.

    Attributes
    ----------
    mask : str
        ``"nsdgeneral"``, another label volume of the subject (its voxels above 0), or ``"brainmask"``.
    beta_version : str
        NSD's folder of betas; the published decoders use ``betas_fithrf_GLMdenoise_RR``.
    file_format : {"auto", "nifti", "hdf5"}
        Which copy of the betas to read; both give the same numbers.
    sessions : tuple of int, optional
        1-based; every session that was run by default. The published protocol with 982 test images is sessions 1 to 37.
    """

    mask: str = "nsdgeneral"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    file_format: str = "auto"
    sessions: tuple[int, ...] | None = None


@dataclass
class Averages:
    """Averages over the repeats of every image.

    Attributes
    ----------
    betas : ndarray of shape (images, voxels), float32
        0 where `missing`.
    stimulus_ids : ndarray of shape (images,), int64
        0-based, ascending.
    is_test : ndarray of shape (images,), bool
    repeats : ndarray of shape (images,), int64
        Trials of every image.
    partial : ndarray of shape (some voxels,), int64
        Voxels that were invalid (zero throughout) in some session.
    missing : ndarray of shape (images, some voxels), bool
        For `partial` voxels, the images all of whose trials fell into invalid sessions.
    """

    betas: NDArray[np.float32]
    stimulus_ids: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    repeats: NDArray[np.int64]
    partial: NDArray[np.int64]
    missing: NDArray[np.bool_]


def average_repeats(
    sessions: Iterable[tuple[int, NDArray[np.generic]]], design: Design, source: str = "betas"
) -> Averages:
    """Average the trials of every image, session by session.

    Sums are kept per image, never per trial. A voxel that is zero in all trials of a session was outside the scanned
    slab there (NSD stores such voxels as zero): those trials do not enter its averages.

    Parameters
    ----------
    sessions : iterable of (int, ndarray of shape (trials, voxels))
        Every session of `design` once.
    design : Design
    source : str
        Where the betas come from, for messages.

    Returns
    -------
    Averages
        Betas in the unit of `sessions`.

    Raises
    ------
    InputError
        If there are fewer than two training images.
    """
    stimulus_ids, first, images = np.unique(design.stimulus_ids, return_index=True, return_inverse=True)
    is_test = design.is_shared[first]
    training = int((~is_test).sum())
    if training < 2:
        raise InputError(
            f"{source}: found {training} training images in sessions {design.sessions[0]} to {design.sessions[-1]}, "
            "expected at least two: read more sessions"
        )
    counts = np.zeros((len(stimulus_ids), len(design.sessions)), dtype=np.int64)
    np.add.at(counts, (images, np.searchsorted(design.sessions, design.session)), 1)
    sums: NDArray[np.float32] | None = None
    valid: list[NDArray[np.bool_]] = []
    for session, betas in sessions:
        if sums is None:
            sums = np.zeros((len(stimulus_ids), betas.shape[1]), dtype=np.float32)
        # float32 sums of a few int16 are exact; row by row there is no second copy of the session.
        for image, trial in zip(images[design.session == session], betas, strict=True):
            sums[image] += trial
        valid.append(np.asarray((betas != 0).any(axis=0)))
    if sums is None:
        raise InputError(f"{source}: found no session, expected at least one: choose sessions that were run")
    valid_sessions = np.stack(valid)
    repeats = counts.sum(axis=1)
    sums /= repeats[:, None].astype(np.float32)
    partial = np.flatnonzero(~valid_sessions.all(axis=0))
    trials = counts @ valid_sessions[:, partial].astype(np.int64)
    sums[:, partial] *= (repeats[:, None] / np.maximum(trials, 1)).astype(np.float32)
    if len(partial):
        _log.info(
            "%s: %d of %d voxels are zero throughout a session and were averaged over their other sessions",
            source,
            len(partial),
            sums.shape[1],
        )
    return Averages(sums, stimulus_ids, is_test, repeats, partial, trials == 0)


def standardise(averages: Averages, source: str = "betas") -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Z-score every voxel with the mean and deviation (ddof 1) of the training images.

    Voxels that do not change over the training images are dropped, with a warning that counts them. An image that a
    voxel has no trial of gets 0, the training mean. The averages are overwritten, to save memory.

    Parameters
    ----------
    averages : Averages
    source : str
        Where the betas come from, for messages.

    Returns
    -------
    betas : ndarray of shape (images, kept voxels), float32
    kept : ndarray of shape (voxels,), bool

    Raises
    ------
    InputError
        If no voxel is left.
    """
    betas = averages.betas
    kept = np.zeros(betas.shape[1], dtype=np.bool_)
    for columns in _blocks(betas.shape[1]):
        block = betas[:, columns].astype(np.float64)
        here = np.flatnonzero((averages.partial >= columns.start) & (averages.partial < columns.stop))
        block[:, averages.partial[here] - columns.start] += np.where(averages.missing[:, here], np.nan, 0.0)
        training = block[~averages.is_test]
        known = np.isfinite(training)
        number = known.sum(axis=0)
        # Not the deviation: rounding leaves a constant voxel a tiny one.
        lowest = np.where(known, training, np.inf).min(axis=0)
        highest = np.where(known, training, -np.inf).max(axis=0)
        kept[columns] = highest > lowest
        mean = np.where(known, training, 0).sum(axis=0) / np.maximum(number, 1)
        squares = np.square(np.where(known, training - mean, 0)).sum(axis=0)
        deviation = np.sqrt(squares / np.maximum(number - 1, 1))
        deviation[~kept[columns]] = 1
        betas[:, columns] = np.nan_to_num((block - mean) / deviation, nan=0.0)
    dropped = int((~kept).sum())
    if dropped == len(kept):
        raise InputError(
            f"{source}: found all {dropped} voxels constant over the training images, "
            "expected responses that change: check the mask and the betas"
        )
    if dropped:
        _log.warning("%s: dropped %d of %d voxels, constant over the training images", source, dropped, len(kept))
        betas = _keep_columns(betas, kept)
    return betas, kept


def _blocks(columns: int) -> Iterator[slice]:
    for start in range(0, columns, _COLUMNS_AT_ONCE):
        yield slice(start, min(start + _COLUMNS_AT_ONCE, columns))


def _keep_columns(matrix: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    # In place, without a second matrix: a new row ends before the next old one begins, so going forward loses nothing.
    flat, width = matrix.reshape(-1), int(kept.sum())
    for row in range(len(matrix)):
        flat[row * width : (row + 1) * width] = matrix[row, kept]
    return flat[: len(matrix) * width].reshape(len(matrix), width)

"""From single trials to one z-scored row per image, or per training trial: the choices, and what they do."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd_design import Design

_log = logging.getLogger(__name__)

_VALUES_AT_ONCE = 2**20


PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "unibrain": {"sessions": tuple(range(1, 38))},
    "nsd-40": {"sessions": tuple(range(1, 41))},
    "single-trial": {"average": "test"},
    "session-zscore": {"zscore": "session"},
}
"""By name: what differs from averages of all repeats, z-scored with the training images, of all sessions that were run.

``unibrain``: the first 37 sessions, as Brain-Diffuser, UniBrain and others that decode 982 test images. ``nsd-40``: all
40 (NSD has released the last three since), 1,000 test images. ``single-trial``: training rows are single trials, test
rows averages. ``session-zscore``: every trial z-scored in its session, with the training trials' statistics (as
MindEye), then averaged."""


@dataclass(frozen=True)
class PrepareSettings:
    """What to read of a subject, and how.

    A choice that is None is the protocol's; without a protocol it is ``average="all"``, ``zscore="train"`` and all
    sessions that were run.

    Attributes
    ----------
    mask : str
        Which voxels: ``"nsdgeneral"``, another label volume of the subject (its voxels above 0), ``"brainmask"``, a
        region or label (``"V1"``, ``"prf-visualrois:V1v"``), one hemisphere of any of them (``"lh.nsdgeneral"``), or
        the union of several (``"V1+V2+faces"``). See `unibrain.scans.nsd_regions`.
    beta_version : str
        NSD's folder of betas; the published decoders use ``betas_fithrf_GLMdenoise_RR``.
    file_format : {"auto", "nifti", "hdf5"}
        Which copy of the betas to read; both give the same numbers.
    sessions : tuple of int or "present", optional
        1-based; or those whose betas are there.
    protocol : {"unibrain", "nsd-40", "single-trial", "session-zscore"}, optional
        See `PROTOCOLS`.
    average : {"all", "test"}, optional
        Average the repeats of every image, or of the test images only: then every training trial is a row.
    zscore : {"train", "session", "none"}, optional
        Per voxel, with mean and deviation (ddof 1) of the training rows, or of the training trials of each session; or
        leave percent signal change.
    regions : str
        Comma-separated: ``"default"`` (V1 to V4, faces, words, places, bodies), ``"all"`` (those, both hemispheres,
        every label volume and label that is there), or what `mask` may be.
    noise_ceiling : {"file", "recompute"}
        From NSD's ``ncsnr``, or by its authors' recipe from the sessions that are read.

    Raises
    ------
    InputError
        If the protocol or a choice is none of those named.
    """

    mask: str = "nsdgeneral"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    file_format: str = "auto"
    sessions: tuple[int, ...] | Literal["present"] | None = None
    protocol: str | None = None
    average: str | None = None
    zscore: str | None = None
    regions: str = "default"
    noise_ceiling: str = "file"

    def __post_init__(self) -> None:
        for name, choices in (
            ("protocol", (*PROTOCOLS, None)),
            ("average", ("all", "test", None)),
            ("zscore", ("train", "session", "none", None)),
            ("noise_ceiling", ("file", "recompute")),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"{name} is {value!r}. Choose one of {', '.join(filter(None, choices))}.")
        if isinstance(self.sessions, str) and self.sessions != "present":
            raise InputError(f"sessions is {self.sessions!r}. Give numbers, or 'present'.")

    def resolved(self) -> "PrepareSettings":
        """Put the protocol's choices where there are none."""
        chosen = {"average": "all", "zscore": "train", **PROTOCOLS.get(str(self.protocol), {})}
        return replace(self, **{name: value for name, value in chosen.items() if getattr(self, name) is None})


@dataclass
class Averages:
    """Averages over the repeats of every image, one row each, in ascending order of id."""

    betas: NDArray[np.float32]  # (rows, voxels), 0 where missing
    stimulus_ids: NDArray[np.int64]  # 0-based; unique unless training rows are single trials
    is_test: NDArray[np.bool_]
    repeats: NDArray[np.int64]  # trials of every row
    partial: NDArray[np.int64]  # voxels that were invalid (zero throughout) in some session
    missing: NDArray[np.bool_]  # (rows, partial): the rows all of whose trials fell into invalid sessions


def _rows(design: Design, average: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Row of every trial; stimulus id and part of every row. Trials of one image are in chronological order."""
    order = np.argsort(design.stimulus_ids, kind="stable")
    ids, shared = design.stimulus_ids[order], design.is_shared[order]
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = ids[1:] != ids[:-1]
    if average == "test":
        starts |= ~shared
    rows = np.empty(len(order), dtype=np.int64)
    rows[order] = np.cumsum(starts) - 1
    return rows, ids[starts], shared[starts]


def average_repeats(
    sessions: Iterable[tuple[int, NDArray[np.generic]]], design: Design, source: str = "betas", average: str = "all"
) -> Averages:
    """Average the trials of every image, session by session; with `average` as ``"test"`` training trials stay rows.

    `sessions` are pairs of number and trials (trials, voxels), every session of `design` once. Sums are kept per row. A
    voxel that is zero in all trials of a session was outside the scanned slab there (NSD stores such voxels as zero):
    those trials do not enter its averages.
    """
    rows, stimulus_ids, is_test = _rows(design, average)
    counts = np.zeros((len(stimulus_ids), len(design.sessions)), dtype=np.int64)
    np.add.at(counts, (rows, np.searchsorted(design.sessions, design.session)), 1)
    sums = np.zeros((len(stimulus_ids), 0), dtype=np.float32)
    valid: list[NDArray[np.bool_]] = []
    for session, betas in sessions:
        if not valid:
            sums = np.zeros((len(stimulus_ids), betas.shape[1]), dtype=np.float32)
        # float32 sums of a few int16 are exact; row by row there is no second copy of the session.
        for row, trial in zip(rows[design.session == session], betas, strict=True):
            sums[row] += trial
        valid.append(np.asarray((betas != 0).any(axis=0)))
    valid_sessions = np.stack(valid)
    repeats = counts.sum(axis=1)
    sums /= repeats[:, None].astype(np.float32)
    partial = np.flatnonzero(~valid_sessions.all(axis=0))
    missing = np.empty((len(sums), len(partial)), dtype=np.bool_)
    for block in _blocks(*missing.shape):
        voxels = partial[block]
        trials = counts @ valid_sessions[:, voxels].astype(np.int64)
        sums[:, voxels] *= (repeats[:, None] / np.maximum(trials, 1)).astype(np.float32)
        missing[:, block] = trials == 0
    if len(partial):
        text = "%s: %d of %d voxels are zero throughout a session and were averaged over their other sessions."
        _log.info(text, source, len(partial), sums.shape[1])
    return Averages(sums, stimulus_ids, is_test, repeats, partial, missing)


def zscore_sessions(
    sessions: Iterable[tuple[int, NDArray[np.generic]]], design: Design, source: str = "betas"
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Z-score every session by itself, with the mean and deviation (ddof 1) of its training trials.

    A voxel that does not change over the training trials of a session becomes zero there, which `average_repeats`
    takes for invalid.
    """
    for session, betas in sessions:
        training = ~design.is_shared[design.session == session]
        if training.sum() < 2:
            raise InputError(
                f"{source}: session {session} has {int(training.sum())} training trials, too few to z-score it by "
                "itself. Leave the session out, or z-score over all sessions."
            )
        z = np.empty(betas.shape, dtype=np.float32)
        for columns in _blocks(*betas.shape):
            block = betas[:, columns].astype(np.float64)
            seen = block[training]
            deviation = seen.std(axis=0, ddof=1)
            changes = seen.max(axis=0) > seen.min(axis=0)
            deviation[~changes] = 1
            z[:, columns] = np.where(changes, (block - seen.mean(axis=0)) / deviation, 0)
        yield session, z


def standardise(
    averages: Averages, source: str = "betas", zscore: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32] | None]:
    """Z-score every voxel with the mean and deviation (ddof 1) of the training rows.

    Returned are the betas, which voxels are kept, and for those the mean and the deviation, shape (2, voxels), None if
    nothing was z-scored.

    Voxels that do not change over the training rows are dropped, with a warning that counts them. A row that a voxel
    has no trial of gets the training mean (0 when z-scored). The averages are overwritten, to save memory. Without
    `zscore` the betas keep their unit; voxels are dropped and gaps filled all the same.
    """
    betas = averages.betas
    kept = np.zeros(betas.shape[1], dtype=np.bool_)
    statistics = np.empty((2, betas.shape[1]), dtype=np.float32)
    for columns in _blocks(*betas.shape):
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
        if not zscore:
            betas[:, columns] = np.where(np.isfinite(block), block, mean)
            continue
        squares = np.square(np.where(known, training - mean, 0)).sum(axis=0)
        deviation = np.sqrt(squares / np.maximum(number - 1, 1))
        deviation[~kept[columns]] = 1
        betas[:, columns] = np.nan_to_num((block - mean) / deviation, nan=0.0)
        statistics[:, columns] = mean, deviation
    dropped = int((~kept).sum())
    if dropped == len(kept):
        raise InputError(
            f"{source}: all {dropped} voxels are constant over the training images. Check the mask and the betas."
        )
    if dropped:
        text = "%s: %d of %d voxels are constant over the training images and were dropped."
        _log.warning(text, source, dropped, len(kept))
        # In place, without a second matrix: a new row ends before the next old one begins, so nothing is lost.
        flat, width = betas.reshape(-1), len(kept) - dropped
        for row in range(len(betas)):
            flat[row * width : (row + 1) * width] = betas[row, kept]
        betas = flat[: len(betas) * width].reshape(len(betas), width)
    return betas, kept, statistics[:, kept] if zscore else None


def prepare_rows(
    sessions: Iterable[tuple[int, NDArray[Any]]],
    design: Design,
    source: str,
    *,
    average: str,
    zscore: str,
    scale: float = 1.0,
) -> tuple[Averages, NDArray[np.bool_], NDArray[np.float32] | None]:
    """Prepare all trials as `PrepareSettings` says, which are divided by `scale` unless z-scored session by session.

    Returned are the rows with their prepared betas, and what else `standardise` gives.
    """
    trials = zscore_sessions(sessions, design, source) if zscore == "session" else sessions
    averages = average_repeats(trials, design, source, average)
    if zscore != "session" and scale != 1:
        averages.betas /= np.float32(scale)
    averages.betas, kept, statistics = standardise(averages, source, zscore=zscore == "train")
    return averages, kept, statistics


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of columns, so that a block in float64 takes some 8 MB."""
    step = max(16, _VALUES_AT_ONCE // max(rows, 1))
    for start in range(0, columns, step):
        yield slice(start, min(start + step, columns))

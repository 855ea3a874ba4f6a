"""From NSD's files to a `Subject`, and the noise ceiling: how much of a voxel's response could be explained at best.

Recipe of the NSD authors (Allen et al. 2022, Methods, "Noise ceiling estimation"; their export code): with single-trial
betas z-scored per session, the variance over three repeats of one image, averaged over images, is the noise variance
v^2; the total variance is 1, so the signal variance is max(0, 1 - v^2) and ``ncsnr = sqrt(signal) / v``.
"""

import logging
import os
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import read_volume, require_folder
from unibrain.scans.nsd_betas import MaskedSessions, check_one_subject, choose_format, gather_sessions
from unibrain.scans.nsd_design import Design, read_design
from unibrain.scans.nsd_layout import BETA_SCALE, REPEATS, NsdLayout, present_sessions
from unibrain.scans.nsd_regions import Grid, read_mask, read_regions, subject_grid
from unibrain.scans.prepare import PrepareSettings, prepare_rows
from unibrain.scans.subject import Subject
from unibrain.workspace.progress import track

_log = logging.getLogger(__name__)

_VALUES_AT_ONCE = 2**21
_KEPT = ("protocol", "sessions", "average", "zscore", "mask", "beta_version", "noise_ceiling")
"""Choices that a subject keeps."""


def read_nsd(
    root: str | os.PathLike[str],
    subject: int = 1,
    settings: PrepareSettings | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> Subject:
    """Read one subject of the Natural Scenes Dataset, or of a simulated tree in its layout.

    By default betas are divided by 300 (percent signal change), repeats averaged, voxels z-scored with the mean and
    deviation (ddof 1) of the training images; see `PrepareSettings` for other protocols. Test images are those that all
    subjects see (``masterordering`` up to the number of shared images). Rows are in ascending order of stimulus id.

    Each file of betas is read once and never as a whole. For a subject of NSD with 40 sessions inside ``nsdgeneral``
    this takes about 1 GB of memory (2 GB with single trials), and 1 GB on disk for as long as it lasts.

    Parameters
    ----------
    root : path-like
        The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    subject : int
        1 to 8.
    settings : PrepareSettings, optional
    scratch : path-like, optional
        A folder for what was read. A stopped call that is made again with the same folder continues at the session. It
        is left there for the caller to remove. By default a temporary folder, removed at the end.

    Returns
    -------
    Subject
        ``simulated`` is True if the tree's root holds ``SIMULATED.json``.

    Raises
    ------
    InputError
        If a file is missing, damaged, misshapen or at odds with another, if betas hold NaN, if all voxels are constant,
        or if there are fewer than two training images.
    """
    wanted = (settings or PrepareSettings()).resolved()
    layout = NsdLayout(Path(root), subject, wanted.beta_version)
    require_folder(layout.root, "the folder of NSD's files")
    design = _design(layout, wanted)
    file_format = choose_format(layout, design.sessions, wanted.file_format)
    mask = read_mask(layout, wanted.mask, subject_grid(layout, (design.sessions[0], file_format)))
    regions = read_regions(layout, mask, wanted.regions)
    source = str(layout.betas_folder)
    training = len(np.unique(design.stimulus_ids[~design.is_shared]))
    if training < 2:
        raise InputError(
            f"{source}: sessions {design.sessions[0]} to {design.sessions[-1]} have {training} training images, fewer "
            "than two. Read more sessions."
        )
    with nullcontext(scratch) if scratch is not None else TemporaryDirectory(prefix="unibrain-") as folder:
        sessions = gather_sessions(layout, mask, design, Path(folder), file_format)
        check_one_subject(sessions)
        if wanted.noise_ceiling == "recompute":
            ceiling = recompute_noise_ceiling(sessions, design)
        else:
            ceiling = read_noise_ceiling(layout, mask)
        trials = track(sessions, "averaging", total=len(design.sessions), unit="session")
        how = {"average": str(wanted.average), "zscore": str(wanted.zscore)}
        rows, kept, statistics = prepare_rows(trials, design, source, scale=BETA_SCALE, **how)
    return Subject(
        name=layout.name,
        betas=rows.betas,
        stimulus_ids=rows.stimulus_ids,
        is_test=rows.is_test,
        repeats=rows.repeats,
        voxel_indices=np.flatnonzero(mask)[kept],
        grid_shape=(mask.shape[0], mask.shape[1], mask.shape[2]),
        regions={name: voxels[kept] for name, voxels in regions.items()},
        noise_ceiling=ceiling[kept],
        simulated=layout.marker.is_file(),
        statistics=statistics,
        preparation={name: getattr(wanted, name) for name in _KEPT} | {"sessions": list(design.sessions)},
    )


def _design(layout: NsdLayout, wanted: PrepareSettings) -> Design:
    if wanted.sessions != "present":
        return read_design(layout, wanted.sessions)
    run = read_design(layout).sessions
    there = tuple(session for session in present_sessions(layout, wanted.file_format) if session in run)
    if not there:
        choose_format(layout, run, wanted.file_format)
    return read_design(layout, there)


def noise_ceiling(ncsnr: NDArray[np.floating]) -> NDArray[np.float32]:
    """Explainable variance of an average of three repeats in percent: ``100 * ncsnr^2 / (ncsnr^2 + 1 / 3)``.

    It bounds R^2, and its square root bounds a correlation. `ncsnr` is the ratio of the deviations of signal and noise
    of single trials.
    """
    signal = np.square(np.asarray(ncsnr, dtype=np.float64))
    return np.asarray(100 * signal / (signal + 1 / REPEATS), dtype=np.float32)


def read_noise_ceiling(layout: NsdLayout, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Read the noise ceiling of an average of three repeats inside a mask: percent, shape (voxels,).

    NaN where NSD gives none, and everywhere (with a warning) if the file is not there.
    """
    path = layout.ncsnr()
    if not path.exists():
        _log.warning("%s: no such file, so the noise ceiling of %s is not known.", path, layout.name)
        return np.full(int(mask.sum()), np.nan, dtype=np.float32)
    volume, _ = read_volume(path, "the noise ceiling signal-to-noise ratio")
    Grid(mask.shape, "the mask").check(path, volume.shape)
    ncsnr = volume[mask]
    if (ncsnr < 0).any():
        raise InputError(f"{path}: {int((ncsnr < 0).sum())} voxels have a negative ratio. Download it again.")
    return noise_ceiling(ncsnr)


def recompute_noise_ceiling(sessions: MaskedSessions, design: Design) -> NDArray[np.float32]:
    """Compute the noise ceiling of an average of three repeats from single trials, some voxels at a time.

    Images count that have exactly three trials in `design`, which is of the same sessions. Percent, shape (voxels,);
    NaN for a voxel without a valid image.
    """
    ids, images, counts = np.unique(design.stimulus_ids, return_inverse=True, return_counts=True)
    if not (counts == REPEATS).any():
        raise InputError(
            f"{next(iter(sessions.sources.values())).parent}: no image has {REPEATS} trials in the sessions that are "
            "read, to compute the noise ceiling from. Read more sessions, or take the ceiling from NSD's file."
        )
    ncsnr = np.empty(sessions.voxels, dtype=np.float32)
    step = max(16, _VALUES_AT_ONCE // len(ids))
    for start in track(range(0, len(ncsnr), step), "noise ceiling", unit="block"):
        voxels = slice(start, min(start + step, len(ncsnr)))
        block = NcsnrAccumulator(len(ids), voxels.stop - start)
        for session in design.sessions:
            block.add(sessions.read(session, voxels), images[design.session == session])
        ncsnr[voxels] = block.ncsnr()
    return noise_ceiling(ncsnr)


class NcsnrAccumulator:
    """Computes ncsnr of some voxels from single trials, one session in memory at a time.

    Keeps two float32 numbers per image and voxel: for a full-size subject, add some voxels at a time.
    """

    def __init__(self, images: int, voxels: int) -> None:
        self._sums = np.zeros((images, voxels), dtype=np.float32)
        self._squares = np.zeros((images, voxels), dtype=np.float32)
        self._counts = np.zeros(images, dtype=np.int64)

    def add(self, betas: NDArray[np.generic], images: NDArray[np.int64]) -> None:
        """Add one session: `betas` of shape (trials, voxels) in any unit, and the row of every trial's image.

        Betas are z-scored per voxel (ddof 1) here. A voxel that never changes counts as invalid in this session, and
        its images are left out for this voxel.
        """
        z = betas.astype(np.float32)
        z -= z.mean(axis=0, dtype=np.float64).astype(np.float32)
        constant = np.asarray((betas == betas[:1]).all(axis=0))
        deviation = np.sqrt(np.square(z).sum(axis=0, dtype=np.float64) / max(len(z) - 1, 1))
        deviation[constant] = np.nan
        z /= deviation.astype(np.float32)
        np.add.at(self._counts, images, 1)
        for image, trial, square in zip(images, z, np.square(z), strict=True):
            self._sums[image] += trial
            self._squares[image] += square

    def ncsnr(self, images: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """The ratio from images with exactly three trials (all, or rows that are chosen): shape (voxels,), else NaN."""
        chosen = self._counts == REPEATS
        if images is not None:
            chosen &= images
        variance = (self._squares[chosen] - np.square(self._sums[chosen]) / REPEATS) / (REPEATS - 1)
        valid = np.isfinite(variance)
        counts = valid.sum(axis=0)
        noise = np.full(variance.shape[1], np.nan)
        np.divide(np.sum(variance, axis=0, dtype=np.float64, where=valid), counts, out=noise, where=counts > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(np.maximum(0, 1 - noise) / noise)
        return np.asarray(ratio, dtype=np.float32)

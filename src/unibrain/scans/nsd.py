"""From NSD's files to a `Subject`."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import require_folder
from unibrain.scans.noise_ceiling import read_noise_ceiling, recompute_noise_ceiling
from unibrain.scans.nsd_betas import check_one_subject, choose_format, gather_sessions
from unibrain.scans.nsd_design import Design, read_design
from unibrain.scans.nsd_layout import BETA_SCALE, NsdLayout, present_sessions
from unibrain.scans.nsd_regions import read_mask, read_regions, subject_grid
from unibrain.scans.prepare import PrepareSettings, average_repeats, standardise, zscore_sessions
from unibrain.scans.subject import Subject
from unibrain.workspace.progress import track


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
        trials: Iterable[tuple[int, NDArray[Any]]] = track(
            sessions, "averaging", total=len(design.sessions), unit="session"
        )
        if wanted.zscore == "session":
            trials = zscore_sessions(trials, design, source)
        averages = average_repeats(trials, design, source, str(wanted.average))
    if wanted.zscore != "session":
        averages.betas /= np.float32(BETA_SCALE)
    betas, kept = standardise(averages, source, zscore=wanted.zscore == "train")
    return Subject(
        name=layout.name,
        betas=betas,
        stimulus_ids=averages.stimulus_ids,
        is_test=averages.is_test,
        repeats=averages.repeats,
        voxel_indices=np.flatnonzero(mask)[kept],
        grid_shape=(mask.shape[0], mask.shape[1], mask.shape[2]),
        regions={name: voxels[kept] for name, voxels in regions.items()},
        noise_ceiling=ceiling[kept],
        simulated=layout.marker.is_file(),
        preparation={
            "protocol": wanted.protocol,
            "sessions": list(design.sessions),
            "average": wanted.average,
            "zscore": wanted.zscore,
            "mask": wanted.mask,
            "beta_version": wanted.beta_version,
            "noise_ceiling": wanted.noise_ceiling,
        },
    )


def _design(layout: NsdLayout, wanted: PrepareSettings) -> Design:
    if wanted.sessions != "present":
        return read_design(layout, wanted.sessions)
    run = read_design(layout).sessions
    there = tuple(session for session in present_sessions(layout, wanted.file_format) if session in run)
    if not there:
        choose_format(layout, run, wanted.file_format)
    return read_design(layout, there)

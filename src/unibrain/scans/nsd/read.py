"""From NSD's files to a `Subject`."""

import os
from pathlib import Path

import numpy as np

from unibrain.errors import InputError
from unibrain.scans.nsd.betas import iterate_sessions
from unibrain.scans.nsd.ceiling import read_noise_ceiling
from unibrain.scans.nsd.design import read_design
from unibrain.scans.nsd.layout import BETA_SCALE, NsdLayout
from unibrain.scans.nsd.regions import read_mask, read_regions
from unibrain.scans.prepare import PrepareSettings, average_repeats, standardise
from unibrain.scans.subject import Subject

__all__ = ["read_nsd"]


def read_nsd(root: str | os.PathLike[str], subject: int = 1, settings: PrepareSettings | None = None) -> Subject:
    """Read one subject of the Natural Scenes Dataset, or of a simulated tree in its layout.

    Betas are divided by 300 (percent signal change), repeats averaged, voxels z-scored with the mean and deviation
    (ddof 1) of the training images. Test images are those that all subjects see (``masterordering`` up to the number
    of shared images). Rows are in ascending order of stimulus id. About 2 GB of memory for a subject of NSD with 40
    sessions inside ``nsdgeneral``.

    Parameters
    ----------
    root : path-like
        The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    subject : int
        1 to 8.
    settings : PrepareSettings, optional

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
    settings = settings or PrepareSettings()
    layout = NsdLayout(Path(root), subject, settings.beta_version)
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: found no such folder, expected NSD's files below it: check the path")
    design = read_design(layout, settings.sessions)
    mask = read_mask(layout, settings.mask)
    regions = read_regions(layout, mask)
    ceiling = read_noise_ceiling(layout, mask)
    source = str(layout.betas_folder)
    averages = average_repeats(iterate_sessions(layout, mask, design, settings.file_format), design, source)
    averages.betas /= np.float32(BETA_SCALE)
    betas, kept = standardise(averages, source)
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
    )

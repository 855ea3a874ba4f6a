"""Volumes and betas as NSD writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_regions import ATLAS_LABELS, STANDARD_LABELS
from unibrain.scans.nsd_layout import VOXEL_SIZE, NsdLayout
from unibrain.simulation.anatomy import Anatomy

__all__ = ["write_anatomy", "write_betas", "write_nifti"]

_TR = 4 / 3


def write_nifti(path: Path, volume: NDArray[np.generic]) -> None:
    """Write a NIfTI with NSD's header: sform only, 1.8 mm, origin at the volume's centre, no scaling.

    Parameters
    ----------
    path : pathlib.Path
    volume : ndarray of shape (X, Y, Z) or (X, Y, Z, trials)
    """
    import nibabel

    affine = np.diag([VOXEL_SIZE] * 3 + [1.0])
    affine[:3, 3] = [-VOXEL_SIZE * ((1 + n) / 2 - 1) for n in volume.shape[:3]]
    image: Any = nibabel.Nifti1Image(volume, affine, dtype=volume.dtype)
    image.header.set_zooms([VOXEL_SIZE] * 3 + [_TR] * (volume.ndim - 3))
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def write_anatomy(layout: NsdLayout, anatomy: Anatomy) -> None:
    """Write brain mask, label volumes (both hemispheres together, and each alone) and label tables.

    Parameters
    ----------
    layout : NsdLayout
    anatomy : Anatomy
    """
    write_nifti(layout.brainmask, anatomy.brain.astype(np.int16))
    for name, labels in anatomy.labels.items():
        write_nifti(layout.roi(name), labels.astype(np.float64))
        for hemisphere, side in (("lh", anatomy.left), ("rh", ~anatomy.left)):
            write_nifti(layout.roi(name, hemisphere), np.where(side, labels, -1).astype(np.float64))
        names = {**STANDARD_LABELS, **ATLAS_LABELS}[name]
        lines = ["0 Unknown", *(f"{number} {label}" for number, label in names.items())]
        lines[-1] += "\t"  # some of NSD's tables have such a tab
        table = layout.label_tables(name)[0]
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_betas(
    layout: NsdLayout, session: int, brain: NDArray[np.bool_], betas: NDArray[np.int16], formats: Sequence[str]
) -> None:
    """Write one session: NIfTI is X, Y, Z, trials; HDF5 is trials, Z, Y, X with one chunk per voxel.

    Parameters
    ----------
    layout : NsdLayout
    session : int
        1-based.
    brain : ndarray of shape (X, Y, Z), bool
    betas : ndarray of shape (trials, brain voxels), int16
        Percent signal change x 300.
    formats : sequence of {"hdf5", "nifti"}
    """
    import h5py

    volume = np.zeros((*brain.shape, len(betas)), dtype=np.int16)
    volume[brain] = betas.T
    layout.betas_folder.mkdir(parents=True, exist_ok=True)
    if "nifti" in formats:
        write_nifti(layout.betas(session, "nifti"), volume)
    if "hdf5" in formats:
        with h5py.File(layout.betas(session, "hdf5"), "w") as file:
            file.create_dataset("betas", data=np.ascontiguousarray(volume.T), chunks=(len(betas), 1, 1, 1))

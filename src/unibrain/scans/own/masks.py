"""Masks of a laboratory's own scans: which voxels of the grid are read, and which belong to a region."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.own.files import kind_of, open_npy, readable, require, text_rows

__all__ = ["Mask", "read_mask", "read_regions"]

_CLOSE = 1e-2


@dataclass(frozen=True)
class Mask:
    """Some voxels of a grid.

    Attributes
    ----------
    path : pathlib.Path
    inside : ndarray of shape (X, Y, Z), bool
    affine : ndarray of shape (4, 4), float64, or None
        From voxels to millimetres, where the file tells.
    """

    path: Path
    inside: NDArray[np.bool_]
    affine: NDArray[np.float64] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The grid."""
        x, y, z = self.inside.shape
        return x, y, z

    def check_grid(self, path: Path, shape: tuple[int, ...], affine: NDArray[np.float64] | None) -> None:
        """Raise `InputError` if the file at `path` has another grid than this mask."""
        if tuple(shape) != self.shape:
            raise InputError(
                f"{path}: found a grid of {tuple(shape)}, expected {self.shape} as in {self.path.name}: "
                "bring both into one space"
            )
        if affine is not None and self.affine is not None and not np.allclose(affine, self.affine, atol=_CLOSE):
            raise InputError(
                f"{path}: found the grid of {self.path.name} in another place (their affines differ), expected the "
                "same place: resample one of them"
            )


def read_mask(path: Path) -> Mask:
    """Read a mask: a NIfTI or a three-dimensional ``.npy``; voxels above 0 are inside.

    Raises
    ------
    InputError
        If it is missing, damaged, not three-dimensional, or empty.
    """
    kind = kind_of(path, ("nifti", "npy"), "a mask")
    affine = None
    if kind == "npy":
        volume = np.asarray(open_npy(path, "a mask"))
    else:
        import nibabel

        require(path, "a mask")
        with readable(path, "NIfTI"):
            image: Any = nibabel.load(path)
            volume, affine = np.asarray(image.dataobj), np.array(image.affine, dtype=np.float64)
    if volume.ndim == 4 and volume.shape[3] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3:
        raise InputError(f"{path}: found an array of shape {volume.shape}, expected three axes X, Y, Z: check the file")
    # A comparison with NaN is False: outside.
    inside = volume > 0
    if not inside.any():
        raise InputError(f"{path}: found no voxel above 0, expected those to read: check the mask")
    return Mask(path, inside, affine)


def read_regions(files: Mapping[str, Path], voxels: int, mask: Mask | None) -> dict[str, NDArray[np.bool_]]:
    """Read which voxels belong to each region.

    Parameters
    ----------
    files : mapping of str to pathlib.Path
        Region to its file: a volume on the grid of `mask`, or one value per voxel of the matrix as ``.npy``, ``.csv``
        or ``.tsv``; above 0 is inside.
    voxels : int
        Of the matrix.
    mask : Mask or None
        Voxels of the matrix on their grid (C order), where there is one.

    Returns
    -------
    dict of str to ndarray of shape (voxels,), bool

    Raises
    ------
    InputError
        If a file is wrong, of another grid or length, or has no voxel among those of the matrix.
    """
    regions = {}
    for name, path in files.items():
        kind = kind_of(path, ("nifti", "npy", "csv", "tsv"), "a mask of a region")
        per_voxel = kind in ("csv", "tsv") or (kind == "npy" and _is_list(open_npy(path, "a mask of a region")))
        if per_voxel:
            inside = _voxel_mask(path, kind)
            if len(inside) != voxels:
                raise InputError(
                    f"{path}: found {len(inside)} values for region {name}, expected {voxels}, one per voxel of the "
                    "matrix: export it again"
                )
        else:
            volume = read_mask(path)
            if mask is None:
                raise InputError(
                    f"{path}: found a volume for region {name}, and the scans have no grid, expected one value per "
                    "voxel: give it so, or give the --mask that the matrix was made with"
                )
            mask.check_grid(path, volume.shape, volume.affine)
            inside = volume.inside[mask.inside]
        if not inside.any():
            raise InputError(f"{path}: region {name} has no voxel among those that are read: check its mask")
        regions[name] = inside
    return regions


def _is_list(array: NDArray[np.generic]) -> bool:
    return len([length for length in array.shape if length > 1]) <= 1


def _voxel_mask(path: Path, kind: str) -> NDArray[np.bool_]:
    if kind == "npy":
        return np.asarray(open_npy(path, "a mask of a region")).reshape(-1) > 0
    cells = [(line, cell) for line, row in text_rows(path, kind, "a mask of a region") for cell in row]
    values = []
    for line, cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            raise InputError(
                f"{path}: line {line} holds {cell!r}, expected a number per voxel (0 outside, 1 inside) and nothing "
                "else: export it again"
            ) from None
    return np.array(values) > 0

"""Masks of a laboratory's own scans: which voxels of the grid are read, and which belong to a region."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import kind_of, open_npy, readable, require, text_rows

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


"""Scans x voxels out of any of the formats that laboratories keep them in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ("npy", "csv", "tsv", "hdf5", "nifti")
_GLMSINGLE = ("betasmd", "modelmd")
"""Names of the betas in GLMsingle's files: of Python's, and of MATLAB's."""


@dataclass(frozen=True)
class ScanMatrix:
    """Scans that are read some at a time.

    Attributes
    ----------
    path : pathlib.Path
    scans, voxels : int
    voxel_indices : ndarray of shape (voxels,), int64
        Place of each voxel in the flattened grid (C order).
    grid_shape : tuple of int
        X, Y, Z; without a mask (voxels, 1, 1).
    read : callable
        Takes ascending 0-based rows, returns float32 of shape (rows, voxels).
    """

    path: Path
    scans: int
    voxels: int
    voxel_indices: NDArray[np.int64]
    grid_shape: tuple[int, int, int]
    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]


def open_scans(path: Path, mask: Mask | None = None, dataset: str | None = None) -> ScanMatrix:
    """Open scans without reading them (text is read at once).

    A table of two axes is scans x voxels; with a mask, its columns are the voxels of the mask in C order. Four axes are
    X, Y, Z and scans, as in a 4-D NIfTI and in GLMsingle's ``betasmd``, and need a mask; (voxels, 1, 1, scans) needs
    none. MATLAB writes axes to HDF5 in reverse: its files are turned round.

    Parameters
    ----------
    path : pathlib.Path
        ``.npy``, ``.csv``, ``.tsv``, ``.h5``, ``.hdf5``, ``.mat`` of version 7.3, ``.nii`` or ``.nii.gz``.
    mask : Mask, optional
    dataset : str, optional
        In HDF5; left out: GLMsingle's, or the only one.

    Returns
    -------
    ScanMatrix

    Raises
    ------
    InputError
        If the file is missing, damaged, holds pickled objects or text, or does not fit the mask.
    """
    kind = kind_of(path, KINDS, "a matrix of scans")
    require(path, "a matrix of scans")
    if kind == "npy":
        array = open_npy(path, "a matrix of scans")
        by_volume = array.ndim == 4 and bool(array.flags.f_contiguous) and not bool(array.flags.c_contiguous)
        return _from_array(path, array.shape, lambda where: array[where], mask, by_volume)
    if kind in ("csv", "tsv"):
        values = _read_text(path, kind)
        return _from_array(path, values.shape, lambda where: values[where], mask)
    if kind == "hdf5":
        return _from_hdf5(path, dataset, mask)
    return _from_nifti(path, mask)


def _from_array(
    path: Path,
    shape: tuple[int, ...],
    get: Callable[[Any], NDArray[Any]],
    mask: Mask | None,
    by_volume: bool = False,
) -> ScanMatrix:
    """Of an array scans x voxels, or X, Y, Z, scans; `by_volume` says how the latter lies on disk."""
    if len(shape) == 2:
        voxels = _table_voxels(path, shape, mask)
        return _matrix(path, shape[0], voxels, mask, lambda rows: np.asarray(get((_run(rows),)), dtype=np.float32))
    if len(shape) != 4:
        raise InputError(
            f"{path}: found an array of shape {shape}, expected two axes (scans, voxels) or four (X, Y, Z, scans): "
            "reshape it"
        )
    if mask is None and shape[1:3] == (1, 1):
        given, inside = None, np.ones(shape[:3], dtype=np.bool_)
    else:
        given = _volumes_mask(path, shape[:3], mask)
        inside = given.inside

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if by_volume:
            return _by_volume(lambda row: get((slice(None), slice(None), slice(None), row)), rows, inside)
        return _by_slab(get, rows, inside)

    return _matrix(path, shape[3], int(inside.sum()), given, read)


def _by_volume(
    volume: Callable[[int], NDArray[Any]], rows: NDArray[np.int64], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    found = np.empty((len(rows), int(inside.sum())), dtype=np.float32)
    for place, row in enumerate(rows):
        found[place] = np.asarray(volume(int(row)))[inside]
    return found


def _by_slab(
    get: Callable[[Any], NDArray[Any]], rows: NDArray[np.int64], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    # Where the scans of a voxel lie together, a volume is spread over the whole file: it is read plane by plane.
    found = np.empty((len(rows), int(inside.sum())), dtype=np.float32)
    start = 0
    step = max(1, len(inside)) if inside.shape[1:] == (1, 1) else 1
    for x in range(0, len(inside), step):
        plane = inside[x : x + step]
        stop = start + int(plane.sum())
        if stop > start:
            found[:, start:stop] = np.asarray(get((slice(x, x + step), slice(None), slice(None), _run(rows))))[plane].T
        start = stop
    return found


def _run(rows: NDArray[np.int64]) -> Any:
    """Neighbouring rows as a slice, which is read in one go."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _matrix(
    path: Path, scans: int, voxels: int, mask: Mask | None, read: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> ScanMatrix:
    if not scans or not voxels:
        raise InputError(f"{path}: found {scans} scans of {voxels} voxels, expected some of both: export it again")
    indices = np.arange(voxels) if mask is None else np.flatnonzero(mask.inside)
    return ScanMatrix(path, scans, voxels, indices, (voxels, 1, 1) if mask is None else mask.shape, read)


def _table_voxels(path: Path, shape: tuple[int, ...], mask: Mask | None) -> int:
    if mask is not None and shape[1] != mask.inside.sum():
        raise InputError(
            f"{path}: found {shape[1]} columns, expected {mask.inside.sum()}, one per voxel of {mask.path.name}: "
            "give the mask that the matrix was made with, rows being scans"
        )
    return shape[1]


def _volumes_mask(path: Path, grid: tuple[int, ...], mask: Mask | None) -> Mask:
    if mask is None:
        raise InputError(
            f"{path}: found volumes of {grid}, and no mask, expected one that says which voxels to read: give --mask"
        )
    mask.check_grid(path, grid, None)
    return mask


def _read_text(path: Path, kind: str) -> NDArray[np.float32]:
    rows: list[NDArray[np.float32]] = []
    for number, (line, cells) in enumerate(text_rows(path, kind, "a matrix of scans")):
        if number == 0 and not any(map(_is_number, cells[1:] or cells)):
            # pandas writes row numbers in front, in a column without a name: they would become a voxel.
            if not cells[0]:
                raise InputError(
                    f"{path}: found a first column without a name (row numbers?), expected voxels only: save it "
                    "without them (pandas: index=False)"
                )
            if not _is_number(cells[0]):
                continue
        if rows and len(cells) != len(rows[0]):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, expected {len(rows[0])} as before: export it again"
            )
        try:
            rows.append(np.array(cells, dtype=np.float32))
        except ValueError:
            wrong = next(place for place, cell in enumerate(cells) if not _is_number(cell))
            raise InputError(
                f"{path}: line {line} holds {cells[wrong]!r} in column {wrong + 1}, expected numbers only, one row per "
                "scan and one column per voxel: export it again"
            ) from None
    return np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _from_hdf5(path: Path, dataset: str | None, mask: Mask | None) -> ScanMatrix:
    import h5py

    if path.suffix.lower() == ".mat" and not h5py.is_hdf5(path):
        raise InputError(
            f"{path}: found no HDF5 inside (an older MATLAB format?), expected version 7.3: save it with -v7.3"
        )
    with readable(path, "HDF5"), h5py.File(path, "r") as file:
        name = _dataset(path, file, dataset)
        shape, dtype = tuple(file[name].shape), file[name].dtype
        matlab = "MATLAB_class" in file[name].attrs
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: dataset {name} holds {dtype}, expected real numbers: choose another dataset")
    reverse = matlab
    if len(shape) == 4 and mask is not None and not matlab:
        forward, backward = shape[:3] == mask.shape, shape[:0:-1] == mask.shape
        if forward and backward:
            raise InputError(
                f"{path}: dataset {name} of shape {shape} may be (X, Y, Z, scans) or the reverse, expected to know: "
                "save it as .npy"
            )
        reverse = backward

    def get(where: Any) -> NDArray[Any]:
        with readable(path, "HDF5"), h5py.File(path, "r") as file:
            if not reverse:
                return np.asarray(file[name][where])
            order = (*where, *[slice(None)] * (len(shape) - len(where)))
            return np.asarray(file[name][order[::-1]]).T

    return _from_array(path, shape[::-1] if reverse else shape, get, mask, by_volume=reverse)


def _dataset(path: Path, file: Any, wanted: str | None) -> str:
    import h5py

    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    if wanted is not None:
        if wanted.strip("/") not in found:
            raise InputError(
                f"{path}: found no dataset {wanted}, expected one of {', '.join(found) or 'none'}: name one of them"
            )
        return wanted
    known = [name for name in _GLMSINGLE if name in found]
    if not known and len(found) != 1:
        raise InputError(
            f"{path}: found {len(found)} datasets ({', '.join(found[:8])}), expected one, or to know which: "
            f"name it, {path.name}:DATASET"
        )
    return (known or found)[0]


def _from_nifti(path: Path, mask: Mask | None) -> ScanMatrix:
    import nibabel

    with readable(path, "NIfTI"):
        # Kept open, because a compressed file that is opened anew for each volume is decompressed anew as well.
        image: Any = nibabel.load(path, keep_file_open=True)
        shape, affine = tuple(int(n) for n in image.shape), np.asarray(image.affine, dtype=np.float64)
    if len(shape) != 4:
        raise InputError(f"{path}: found an array of shape {shape}, expected four axes X, Y, Z, scans: check the file")
    given = _volumes_mask(path, shape[:3], mask)
    given.check_grid(path, shape[:3], affine)

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        with readable(path, "NIfTI"):
            return _by_volume(lambda row: np.asarray(image.dataobj[..., row]), rows, given.inside)

    return _matrix(path, shape[3], int(given.inside.sum()), given, read)

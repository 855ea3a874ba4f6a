"""A laboratory's own masks and scans x voxels, out of any of the formats that they are kept in."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import (
    hdf5_dataset,
    hdf5_datasets,
    is_old_mat,
    kind_of,
    open_hdf5,
    open_nifti,
    open_npy,
    read_volume,
    reading,
    text_rows,
)

_KINDS = ("npy", "csv", "tsv", "hdf5", "nifti")
_GLMSINGLE = ("betasmd", "modelmd")
"""Names of the betas in GLMsingle's files: of Python's, and of MATLAB's."""


@dataclass(frozen=True)
class Mask:
    """Some voxels of a grid; the affine leads from voxels to millimetres, where the file tells."""

    path: Path
    inside: NDArray[np.bool_]  # (X, Y, Z)
    affine: NDArray[np.float64] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The grid."""
        return cast(tuple[int, int, int], self.inside.shape)

    def check_grid(self, path: Path, shape: tuple[int, ...], affine: NDArray[np.float64] | None) -> None:
        """Raise `InputError` if the file at `path` has another grid than this mask."""
        if tuple(shape) != self.shape:
            raise InputError(
                f"{path}: has the grid {tuple(shape)}, but {self.path.name} has {self.shape}. Bring both into one "
                "space."
            )
        if affine is not None and self.affine is not None and not np.allclose(affine, self.affine, atol=1e-2):
            raise InputError(
                f"{path}: lies in another place than {self.path.name} (their affines differ). Resample one of them."
            )


def read_mask(path: Path, what: str = "a mask") -> Mask:
    """Read a mask: a NIfTI or a three-dimensional ``.npy``; voxels above 0 are inside."""
    affine = None
    if kind_of(path, ("nifti", "npy"), what) == "npy":
        volume = np.asarray(open_npy(path, what))
        volume = volume[..., 0] if volume.ndim == 4 and volume.shape[3] == 1 else volume
        if volume.ndim != 3:
            raise InputError(f"{path}: has the shape {volume.shape}, not three axes X, Y, Z. Check the file.")
    else:
        volume, nifti = read_volume(path, what)
        affine = nifti.affine
    # A comparison with NaN is False: outside.
    inside = volume > 0
    if not inside.any():
        raise InputError(f"{path}: has no voxel above 0. Check the mask.")
    return Mask(path, inside, affine)


def read_regions(files: Mapping[str, Path], voxels: int, mask: Mask | None) -> dict[str, NDArray[np.bool_]]:
    """Read which of the matrix's voxels belong to each region, as bool of shape (voxels,).

    A file is a volume on the grid of `mask` (whose voxels are those of the matrix, in C order), or one value per voxel
    of the matrix as ``.npy``, ``.csv`` or ``.tsv``; above 0 is inside.
    """
    regions = {}
    for name, path in files.items():
        what = f"the mask of region {name}"
        kind = kind_of(path, ("nifti", "npy", "csv", "tsv"), what)
        values = _voxel_values(path, kind, what)
        if values is not None:
            inside = values > 0
            if len(inside) != voxels:
                raise InputError(
                    f"{path}: has {len(inside)} values for region {name}, but the matrix has {voxels} voxels. Export "
                    "it again."
                )
        else:
            volume = read_mask(path, what)
            if mask is None:
                raise InputError(
                    f"{path}: is a volume, but the scans have no grid. Give region {name} as one value per voxel, or "
                    "give the --mask that the matrix was made with."
                )
            mask.check_grid(path, volume.shape, volume.affine)
            inside = volume.inside[mask.inside]
        if not inside.any():
            raise InputError(f"{path}: region {name} has no voxel among those that are read. Check its mask.")
        regions[name] = inside
    return regions


def _voxel_values(path: Path, kind: str, what: str) -> NDArray[Any] | None:
    """One value per voxel, or None if the file is a volume."""
    if kind == "npy":
        array = open_npy(path, what)
        return np.asarray(array).reshape(-1) if sum(length > 1 for length in array.shape) <= 1 else None
    if kind == "nifti":
        return None
    values = []
    for line, row in text_rows(path, kind, what):
        for cell in row:
            if not _is_number(cell):
                raise InputError(
                    f"{path}: line {line} holds {cell!r}. Give a number per voxel (0 outside, 1 inside) and nothing "
                    "else."
                )
            values.append(float(cell))
    return np.array(values)


@dataclass(frozen=True)
class ScanMatrix:
    """Scans that are read some at a time, of one file or of several in a row."""

    files: tuple[tuple[Path, int], ...]  # each with how many scans it holds
    voxels: int
    voxel_indices: NDArray[np.int64]  # place of each voxel in the flattened grid (C order)
    grid_shape: tuple[int, int, int]  # without a mask (voxels, 1, 1)
    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]  # ascending 0-based rows to (rows, voxels)

    @property
    def scans(self) -> int:
        """How many scans there are."""
        return sum(number for _, number in self.files)

    def place(self, row: int) -> tuple[Path, int]:
        """The file of a scan, and its number in that file, both counted from 0."""
        ends = np.cumsum([number for _, number in self.files])
        which = int(np.searchsorted(ends, row, side="right"))
        path, number = self.files[which]
        return path, row - int(ends[which]) + number


def join_scans(matrices: Sequence[ScanMatrix]) -> ScanMatrix:
    """Scans of several files as one matrix, in that order; all must have the same voxels."""
    first = matrices[0]
    for other in matrices[1:]:
        if other.grid_shape != first.grid_shape or not np.array_equal(other.voxel_indices, first.voxel_indices):
            raise InputError(
                f"{other.files[0][0]}: has {other.voxels} voxels of a grid of {other.grid_shape}, but "
                f"{first.files[0][0].name} has {first.voxels} of {first.grid_shape}. Take files of one space."
            )
    ends = np.cumsum([matrix.scans for matrix in matrices])

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        which = np.searchsorted(ends, rows, side="right")
        parts = [matrices[n].read(rows[which == n] - (ends[n] - matrices[n].scans)) for n in np.unique(which)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    files = tuple(file for matrix in matrices for file in matrix.files)
    return ScanMatrix(files, first.voxels, first.voxel_indices, first.grid_shape, read)


def split_dataset(text: str) -> tuple[Path, str | None]:
    """Take ``FILE:DATASET`` apart; a name that is a file as it stands has no dataset."""
    path = Path(text)
    before, colon, dataset = text.rpartition(":")
    if not colon or not before.lower().endswith((".h5", ".hdf5", ".mat")) or path.exists():
        return path, None
    return Path(before), dataset


def open_scans(path: Path, mask: Mask | None = None, dataset: str | None = None) -> ScanMatrix:
    """Open scans without reading them (text is read at once): every format of `_KINDS`, by its name.

    A table of two axes is scans x voxels; with a mask, its columns are the voxels of the mask in C order. Four axes are
    X, Y, Z and scans, as in a 4-D NIfTI and in GLMsingle's ``betasmd``, and need a mask; (voxels, 1, 1, scans) needs
    none, and with one its voxels are those of the mask in C order. MATLAB writes axes to HDF5 in reverse: its files are
    turned round. Without `dataset` it is GLMsingle's, or the only one.
    """
    kind = kind_of(path, _KINDS, "a matrix of scans")
    if kind == "npy":
        array = open_npy(path, "a matrix of scans")
        by_volume = array.ndim == 4 and bool(array.flags.f_contiguous) and not bool(array.flags.c_contiguous)
        return _from_array(path, array.shape, lambda where: np.asarray(array[where]), mask, by_volume)
    if kind in ("csv", "tsv"):
        values = _read_text(path, kind)
        return _from_array(path, values.shape, lambda where: values[where], mask)
    return _from_hdf5(path, dataset, mask) if kind == "hdf5" else _from_nifti(path, mask)


def _from_array(
    path: Path,
    shape: tuple[int, ...],
    get: Callable[[Any], NDArray[Any]],
    mask: Mask | None,
    by_volume: bool = False,
) -> ScanMatrix:
    """Of an array scans x voxels, or X, Y, Z, scans; `by_volume` says how the latter lies on disk."""
    if 0 in shape:
        raise InputError(f"{path}: holds no numbers (its shape is {shape}). Export it again.")
    if len(shape) not in (2, 4):
        raise InputError(f"{path}: has the shape {shape}, not (scans, voxels) or (X, Y, Z, scans). Reshape it.")
    scans, grid = (shape[0], (shape[1], 1, 1)) if len(shape) == 2 else (shape[3], shape[:3])
    if len(shape) == 2 or (grid[1:] == (1, 1) and (mask is None or mask.shape != grid)):
        inside = np.ones(grid, dtype=np.bool_)
        if mask is not None and grid[0] != mask.inside.sum():
            found = f"{grid[0]} {'columns' if len(shape) == 2 else 'voxels'}"
            raise InputError(
                f"{path}: has {found}, but {mask.path.name} has {mask.inside.sum()} voxels. Give the mask that its "
                "voxels were taken with; in a matrix of two axes, rows are scans."
            )
    elif mask is None:
        raise InputError(f"{path}: holds volumes of {grid}. Say with --mask which voxels to read.")
    else:
        mask.check_grid(path, grid, None)
        inside = mask.inside
    voxels = int(inside.sum())

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(shape) == 2:
            return _narrow(path, get((_run(rows),)))
        found = np.empty((len(rows), voxels), dtype=np.float32)
        if by_volume:
            for place, row in enumerate(rows):
                found[place] = _narrow(path, get((slice(None), slice(None), slice(None), int(row)))[inside])
            return found
        # Where the scans of a voxel lie together, a volume is spread over the whole file: it is read plane by plane.
        start, step = 0, len(inside) if shape[1:3] == (1, 1) else 1
        for x in range(0, len(inside), step):
            plane = inside[x : x + step]
            stop = start + int(plane.sum())
            if stop > start:
                values = get((slice(x, x + step), slice(None), slice(None), _run(rows)))[plane]
                found[:, start:stop] = _narrow(path, values).T
            start = stop
        return found

    indices = np.arange(voxels) if mask is None else np.flatnonzero(mask.inside)
    return ScanMatrix(((path, scans),), voxels, indices, (voxels, 1, 1) if mask is None else mask.shape, read)


def _narrow(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32, if that can hold the values."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.asarray(values, dtype=np.float32)
    if values.dtype.itemsize > 4:
        lost = np.isinf(narrow) & np.isfinite(values)
        if not lost.any() and not narrow.any():
            lost = values != 0
        if lost.any():
            raise InputError(
                f"{path}: holds {values[lost][0]:g}, which 32-bit numbers cannot. Give the betas in another unit."
            )
    return narrow


def _run(rows: NDArray[np.int64]) -> Any:
    """Neighbouring rows as a slice, which is read in one go."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _read_text(path: Path, kind: str) -> NDArray[np.float64]:
    rows: list[NDArray[np.float64]] = []
    first_name = ""
    for number, (line, cells) in enumerate(text_rows(path, kind, "a matrix of scans")):
        if number == 0 and not any(map(_is_number, cells[1:] or cells)):
            # pandas writes row numbers in front, in a column without a name: they would become a voxel.
            if not cells[0]:
                raise _row_numbers(path, "without a name")
            if not _is_number(cells[0]):
                first_name = cells[0]
                continue
        if rows and len(cells) != len(rows[0]):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, not {len(rows[0])} as before. Export it again."
            )
        try:
            rows.append(np.array(cells, dtype=np.float64))
        except ValueError:
            wrong = next(place for place, cell in enumerate(cells) if not _is_number(cell))
            raise InputError(
                f"{path}: line {line} holds {cells[wrong]!r} in column {wrong + 1}. Give numbers only, one row per "
                "scan and one column per voxel."
            ) from None
    matrix = np.stack(rows) if rows else np.empty((0, 0))
    if len(matrix) >= 3 and any(
        np.array_equal(matrix[:, 0], np.arange(start, start + len(matrix))) for start in (0, 1)
    ):
        raise _row_numbers(path, f"named {first_name}" if first_name else f"from {matrix[0, 0]:g} on")
    return matrix


def _row_numbers(path: Path, which: str) -> InputError:
    return InputError(
        f"{path}: the first column ({which}) numbers the rows, and would be taken for a voxel. Save it without it "
        "(pandas: index=False)."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _from_hdf5(path: Path, dataset: str | None, mask: Mask | None) -> ScanMatrix:
    if path.suffix.lower() == ".mat" and is_old_mat(path):
        raise InputError(
            f"{path}: is of a MATLAB version before 7.3. Save it with -v7.3, or convert it in Python with these two "
            f"lines: `import numpy, scipy.io` and `numpy.save('betas.npy', scipy.io.loadmat({path.name!r})['NAME'])`."
        )
    with open_hdf5(path, "a matrix of scans") as file:
        name = dataset or _only_dataset(path, file)
        stored = hdf5_dataset(path, file, name)
        shape = tuple(int(n) for n in stored.shape)
        with reading(path, "HDF5"):
            matlab = "MATLAB_class" in stored.attrs
    reverse = matlab
    if len(shape) == 4 and mask is not None and not matlab:
        forward, backward = shape[:3] == mask.shape, shape[:0:-1] == mask.shape
        if forward and backward:
            raise InputError(
                f"{path}: dataset {name} of shape {shape} may be (X, Y, Z, scans) or the reverse. Save it as .npy."
            )
        reverse = backward

    def get(where: Any) -> NDArray[Any]:
        with open_hdf5(path, "a matrix of scans") as file, reading(path, "HDF5"):
            opened = hdf5_dataset(path, file, name)
            if not reverse:
                return np.asarray(opened[where])
            order = (*where, *[slice(None)] * (len(shape) - len(where)))
            return np.asarray(opened[order[::-1]]).T

    return _from_array(path, shape[::-1] if reverse else shape, get, mask, by_volume=reverse)


def _only_dataset(path: Path, file: Any) -> str:
    found = hdf5_datasets(path, file)
    known = [name for name in _GLMSINGLE if name in found]
    if not known and len(found) != 1:
        some = ", ".join(found[:8]) or "none"
        raise InputError(f"{path}: has {len(found)} datasets ({some}). Say which to read: {path.name}:DATASET.")
    return (known or found)[0]


def _from_nifti(path: Path, mask: Mask | None) -> ScanMatrix:
    # Kept open, because a compressed file that is opened anew for each volume is decompressed anew as well.
    nifti = open_nifti(path, "a matrix of scans", keep_open=True)
    if len(nifti.shape) != 4:
        raise InputError(f"{path}: has the shape {nifti.shape}, not four axes X, Y, Z, scans. Check the file.")
    if mask is not None:
        mask.check_grid(path, nifti.shape[:3], nifti.affine)
    if path.name.lower().endswith(".gz"):
        # Only its end says whether a compressed file is whole.
        with reading(path, "NIfTI", "Export it again"), gzip.open(path) as file:
            while file.read(2**24):
                pass

    def get(where: Any) -> NDArray[Any]:
        with reading(path, "NIfTI", "Export it again"):
            return np.asarray(nifti.image.dataobj[where])

    return _from_array(path, nifti.shape, get, mask, by_volume=True)

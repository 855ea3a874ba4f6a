"""The one way to open files that others made: each reader says in one sentence what is really wrong with a file.

Nothing is unpickled, no path that stands inside a file is followed, and no array is made that the file cannot hold.
"""

import csv
import errno
import gzip
import json
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError

_AGAIN = "Download it again"
_BEST_COMPRESSION = 1100  # deflate makes nothing smaller than by 1,032
_REAL = "fiub"
_DAMAGE: tuple[type[Exception], ...] = (
    *(EOFError, KeyError, OSError, OverflowError, RecursionError, RuntimeError, ValueError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
"""What libraries raise on a damaged file; IndexError, TypeError and the like would be mistakes of ours."""


def require_file(path: Path, what: str, remedy: str = "Check the path") -> Path:
    """Return `path` if it is a file; else raise `InputError`, which says what is there instead."""
    return _require(path, "file", f"(needed as {what}). {remedy}.")


def require_folder(path: Path, what: str) -> Path:
    """Return `path` if it is a folder; else raise `InputError`."""
    return _require(path, "folder", f"(needed as {what}). Check the path.")


def _require(path: Path, wanted: str, rest: str) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise InputError(f"{path}: {_system(error, wanted)} {rest}") from error
    if not (path.is_file() if wanted == "file" else path.is_dir()):
        raise InputError(f"{path}: is a {'folder' if wanted == 'file' else 'file'}, not a {wanted} {rest}")
    return path


def _system(error: OSError, wanted: str = "file") -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"no such {wanted}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if error.errno == errno.ELOOP:
        return "a loop of symbolic links"
    return f"cannot be read ({error.strerror or error})"


_SYSTEM = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO, errno.EISDIR, errno.ESTALE)


@contextmanager
def reading(
    path: Path, kind: str, remedy: str = _AGAIN, also: tuple[type[Exception], ...] = (), ours: bool = False
) -> Iterator[None]:
    """Say in one sentence why a library could not read a file: keep the block to the library's calls.

    What a damaged file makes a library raise (and `also`) is called damage, a `DamagedFileError` if the file is `ours`.
    What the system refuses is named as such, and a mistake in the program or a missing module goes through as it is.
    """
    try:
        yield
    except (InputError, NotImplementedError):
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory. Use a machine with more, or check the file.") from error
    except (*_DAMAGE, *also) as error:
        if isinstance(error, OSError) and error.errno in _SYSTEM:
            raise InputError(f"{path}: {_system(error)}. Check the file and its permissions.") from error
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        message = f"{path}: is truncated or damaged, no whole {kind} file ({reason}). {remedy}."
        raise (DamagedFileError(path, message) if ours else InputError(message)) from error


def _head(path: Path, kind: str, what: str, remedy: str) -> bytes:
    require_file(path, what, remedy)
    with reading(path, kind), path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{path}: is empty. {_AGAIN}.")
    return head


def _check_size(path: Path, shape: Sequence[int], dtype: "np.dtype[Any]", compressed: bool) -> None:
    """Refuse an array that the file cannot hold before memory is asked for."""
    size, there = prod(int(n) for n in shape) * dtype.itemsize, path.stat().st_size
    if size > there * (_BEST_COMPRESSION if compressed else 1) + 2**20 * compressed:
        raise InputError(
            f"{path}: is truncated or damaged: it says it holds {size:,} bytes of numbers in a file of {there:,}. "
            f"{_AGAIN}."
        )


def _check_type(path: Path, what: str, dtype: "np.dtype[Any]", kinds: str = _REAL) -> None:
    if dtype.kind not in kinds:
        name = {"O": "Python objects", "c": "complex numbers", "S": "text", "U": "text", "V": "records"}
        wanted = "text" if kinds == "U" else "real numbers"
        raise InputError(f"{path}: {what} holds {name.get(dtype.kind, dtype)}, not {wanted}. Save it as {wanted}.")


@contextmanager
def open_hdf5(path: Path, what: str, remedy: str = "Check the path") -> Iterator[Any]:
    """Open an HDF5 file for reading: an ``h5py.File``."""
    import h5py

    _head(path, "HDF5", what, remedy)
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: is no HDF5 file. Give {what} as HDF5.")
    with reading(path, "HDF5"):
        file = h5py.File(path, "r")
    with file:
        yield file


def hdf5_dataset(path: Path, file: Any, name: str, encoded: bool = False) -> Any:
    """A dataset of an open file that lies in this file as a whole, holds real numbers, and is no larger than the file.

    Refused are groups, links, content in other files (external or virtual), other types, and unknown compression. With
    `encoded`, the one type that is allowed is a list of files: bytes, each entry with a length of its own.
    """
    import h5py

    there = file
    for part in (part for part in name.split("/") if part):
        with reading(path, "HDF5"):
            link = there.get(part, getlink=True, getclass=True) if isinstance(there, h5py.Group) else None
        if link is None:
            raise InputError(f"{path}: has no dataset {name}. Name one that is there, or download the file again.")
        if link is not h5py.HardLink:
            raise InputError(f"{path}: {part} is a link to another place, and links are not followed. Copy it there.")
        with reading(path, "HDF5"):
            there = there[part]
    if not isinstance(there, h5py.Dataset):
        raise InputError(f"{path}: {name} is a group, not a dataset. Name a dataset inside it, or check the file.")
    with reading(path, "HDF5", also=(TypeError,)):
        dtype, shape, stored = there.dtype, there.shape, there.id.get_create_plist()
        elsewhere = bool(there.external) or there.is_virtual
        matlab = {key: there.attrs[key] for key in ("MATLAB_class", "MATLAB_empty") if key in there.attrs}
        filters = [stored.get_filter(number) for number in range(stored.get_nfilters())]
    if elsewhere:
        raise InputError(
            f"{path}: the content of {name} lies in other files, which are not read. Copy it into this one."
        )
    # MATLAB writes text as numbers, and in place of an empty array its size.
    if shape is None or matlab.get("MATLAB_empty"):
        raise InputError(f"{path}: the dataset {name} is empty. {_AGAIN}.")
    if matlab.get("MATLAB_class") == b"char":
        raise InputError(f"{path}: the dataset {name} holds text, not real numbers. Save it as real numbers.")
    if encoded and (h5py.check_vlen_dtype(dtype) != np.uint8 or len(shape) != 1):
        raise InputError(f"{path}: the dataset {name} holds no list of files (bytes). Use the file as it is published.")
    if not encoded:
        _check_type(path, f"the dataset {name}", dtype)
    for code, _, _, called in filters:
        if not h5py.h5z.filter_avail(code):
            raise InputError(f"{path}: {name} is compressed with {called.decode()!r}, unknown here. Save it with gzip.")
    _check_size(path, shape, dtype, compressed=True)  # of a list of files, the size of the references to them
    return there


def hdf5_datasets(path: Path, file: Any) -> list[str]:
    """Names of all datasets that lie in an open file itself; links are passed over."""
    import h5py

    found: list[str] = []
    with reading(path, "HDF5", also=(TypeError,)):
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def read_mat(path: Path, names: Sequence[str], what: str, remedy: str = "Check the path") -> dict[str, NDArray[Any]]:
    """Read arrays of real numbers out of a MAT file of any version, with MATLAB's order of axes.

    Objects, cells, structs and text are refused.
    """
    import h5py

    _head(path, "MAT", what, remedy)
    arrays: dict[str, NDArray[Any]] = {}
    if h5py.is_hdf5(path):
        with open_hdf5(path, what) as file, reading(path, "MAT"):
            for name in names:
                arrays[name] = np.asarray(hdf5_dataset(path, file, name)[()]).T
        return arrays
    content = _read_old_mat(path, names)
    for name in names:
        if name not in content:
            raise InputError(f"{path}: has no field {name}. Use {what} as it is published.")
        arrays[name] = np.asarray(content[name])
        _check_type(path, f"the field {name}", arrays[name].dtype)
    return arrays


def read_cells(path: Path, name: str, what: str, remedy: str = "Check the path") -> list[list[str]]:
    """Read a cell array of text and numbers out of a MAT file of a version before 7.3, as rows of text."""
    import h5py

    _head(path, "MAT", what, remedy)
    if h5py.is_hdf5(path):
        raise InputError(f"{path}: is a MAT file of version 7.3, of which cells are not read. Save it with -v7.")
    cells = _read_old_mat(path, [name]).get(name)
    if cells is None or cells.dtype != np.object_ or cells.ndim != 2:
        raise InputError(f"{path}: has no table {name} of cells. Use {what} as it is published.")
    rows = [[np.asarray(cell) for cell in row] for row in cells]
    if any(cell.size != 1 or cell.dtype.kind not in f"{_REAL}U" for row in rows for cell in row):
        raise InputError(f"{path}: a cell of {name} is neither one text nor one number. Use {what} as it is published.")
    # MATLAB's numbers are doubles, and scipy's are of the type in which they are stored.
    return [[str(cell.item()) if cell.dtype.kind == "U" else f"{cell.item():g}" for cell in row] for row in rows]


def _read_old_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # scipy raises these as well on damaged files; nothing of ours is in the block.
    with reading(path, "MAT", also=(MatReadError, TypeError, IndexError)):
        return dict(loadmat(path, variable_names=list(names)))


def is_old_mat(path: Path) -> bool:
    """Whether a file is MATLAB's, of a version before 7.3."""
    return _head(path, "MAT", "a matrix of scans", "Check the path").startswith(b"MATLAB 5.0")


@dataclass(frozen=True)
class Nifti:
    """A NIfTI whose header was read and found sound."""

    image: Any
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"  # as stored
    offset: int  # where the numbers begin
    slope: float  # what the header scales stored numbers with; 1 and 0 for none
    intercept: float
    affine: NDArray[np.float64]


def open_nifti(path: Path, what: str, remedy: str = "Check the path", keep_open: bool = False) -> Nifti:
    """Read the header of a NIfTI (``.nii`` or ``.nii.gz``) of real numbers."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    magic, packed = _head(path, "NIfTI", what, remedy)[:2], path.name.lower().endswith(".gz")
    if packed and magic != b"\x1f\x8b":
        raise InputError(f"{path}: is not compressed with gzip, as its name says. {_AGAIN}, or rename it to .nii.")
    with reading(path, "NIfTI"), gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(540)
    if head[344:347] != b"n+1" and head[4:7] != b"n+2":
        if len(head) < 348:
            raise InputError(f"{path}: is truncated or damaged, it ends inside the header. {_AGAIN}.")
        raise InputError(f"{path}: is no NIfTI file. Give {what} as NIfTI.")
    with reading(path, "NIfTI", also=(ImageFileError, HeaderDataError)):
        image: Any = nibabel.load(path, keep_file_open=keep_open)
        stored = image.dataobj
        shape, dtype, offset = tuple(int(n) for n in stored.shape), np.dtype(stored.dtype), int(stored.offset)
        slope, intercept = float(stored.slope), float(stored.inter)
        affine = np.asarray(image.affine, dtype=np.float64)
    _check_type(path, "it", dtype)
    _check_size(path, shape, dtype, packed)
    return Nifti(image, shape, dtype, offset, slope, intercept, affine)


def read_volume(path: Path, what: str, remedy: str = "Check the path") -> tuple[NDArray[np.float64], Nifti]:
    """Read a three-dimensional NIfTI, scaled as its header says: array of shape (X, Y, Z), and the header."""
    nifti = open_nifti(path, what, remedy)
    shape = nifti.shape[:3] if nifti.shape[3:] == (1,) else nifti.shape
    if len(shape) != 3:
        raise InputError(f"{path}: has the shape {nifti.shape}, not three axes X, Y, Z. Give {what} as one volume.")
    with reading(path, "NIfTI"):
        volume = np.asarray(nifti.image.dataobj, dtype=np.float64).reshape(shape)
    return volume, nifti


def open_npy(path: Path, what: str, remedy: str = "Check the path", kinds: str = _REAL) -> NDArray[Any]:
    """Open an ``.npy`` file as a read-only memory map; `kinds` are the dtype's kinds that are allowed."""
    if _head(path, "npy", what, remedy)[:6] != b"\x93NUMPY":
        raise InputError(f"{path}: is no .npy file. Save it with numpy.save.")
    with reading(path, "npy", "Save it again", also=(SyntaxError, TokenError)), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: holds pickled Python objects, which are never opened. Save {what} as a plain array "
            "(GLMsingle: take its .hdf5 or .mat file, or save its betasmd with numpy.save)."
        )
    _check_type(path, "it", dtype, kinds)
    _check_size(path, shape, dtype, compressed=False)
    with reading(path, "npy", "Save it again"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def read_columns(path: Path, separator: str, columns: Sequence[str], what: str, remedy: str = "Check the path") -> Any:
    """Read named columns of a csv or tsv table: a pandas.DataFrame."""
    import pandas

    _head(path, "text", what, remedy)
    with reading(path, "text"):
        header = list(pandas.read_csv(path, sep=separator, nrows=0).columns)
        absent = [name for name in columns if name not in header]
        if absent:
            raise InputError(f"{path}: has no column {absent[0]}. Use {what} as it is published.")
        return pandas.read_csv(path, sep=separator, usecols=list(columns))


def whole_numbers(path: Path, table: Any, columns: Sequence[str]) -> NDArray[np.int64]:
    """Columns of a table as integers, shape (rows, columns); raises `InputError` where there is none."""
    import pandas

    found = np.empty((len(table), len(columns)), dtype=np.int64)
    for place, name in enumerate(columns):
        values = pandas.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > 2**53))
        if len(wrong):
            cell = str(table[name].iloc[wrong[0]])
            raise InputError(f"{path}: column {name} holds {cell!r} in row {wrong[0] + 1}, no whole number. {_AGAIN}.")
        found[:, place] = values
    return found


def text_rows(path: Path, kind: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a ``"csv"`` or ``"tsv"`` file that are not blank, as line number (from 1) and cells without outer blanks.

    The text is UTF-8. A csv whose first line has semicolons and no comma is separated by semicolons.
    """
    require_file(path, what)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            semicolons = kind == "csv" and ";" in first and "," not in first
            reader = csv.reader(file, delimiter="\t" if kind == "tsv" else ";" if semicolons else ",", strict=True)
            for cells in reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield reader.line_num, stripped
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no {kind} text in UTF-8 ({error}). Export {what} again.") from error
    except OSError as error:
        raise InputError(f"{path}: {_system(error)}. Check the file and its permissions.") from error


def read_json(path: Path, what: str, remedy: str = "Check the path") -> Any:
    """Read a JSON file."""
    require_file(path, what, remedy)
    with reading(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


_KINDS = {".npy": "npy", ".csv": "csv", ".tsv": "tsv", ".h5": "hdf5", ".hdf5": "hdf5", ".mat": "hdf5"}
_KINDS |= {".nii": "nifti", ".nii.gz": "nifti"}


def kind_of(path: Path, allowed: tuple[str, ...], what: str) -> str:
    """Format of a file by its name, one of those allowed: ``"npy"``, ``"csv"``, ``"tsv"``, ``"hdf5"``, ``"nifti"``."""
    name = path.name.lower()
    kind = next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)
    if kind not in allowed:
        endings = ", ".join(suffix for suffix, known in _KINDS.items() if known in allowed)
        raise InputError(f"{path}: is of another kind. Save {what} with a name that ends in {endings}.")
    return str(kind)


def file_inside(folder: Path, name: str) -> Path:
    """The file of a name that came from a table, whatever Unicode normal form the file system keeps it in.

    A name or symbolic link that leads out of the folder is refused.
    """
    path = folder
    for part in Path(name).parts:
        following = path / part
        if not os.path.lexists(following) and not part.isascii() and path.is_dir():
            wanted = unicodedata.normalize("NFC", part)
            following = next((p for p in path.iterdir() if unicodedata.normalize("NFC", p.name) == wanted), following)
        path = following
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: leads out of {folder}. Copy the picture there.")
    return path

"""Opening files that may be missing or cut short, with a sentence that says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError


def require_file(path: Path, what: str, remedy: str = "download it, or check the folder given as NSD's root") -> Path:
    """Return `path` if it is a file.

    Parameters
    ----------
    path : pathlib.Path
    what : str
        What the file is, for the message.
    remedy : str
        What the user can do about it.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected {what}: {remedy}")
    return path


@contextmanager
def whole_file(path: Path, kind: str, remedy: str = "it may be truncated, download it again") -> Iterator[None]:
    """Turn what a reading library raises on a damaged file into one sentence.

    The libraries raise errors of many unrelated types on a truncated file (EOFError, OSError, zlib.error, ValueError,
    KeyError, their own). What the operating system refuses, a missing module and bugs of our own are not damage and
    pass: keep the block to the library's calls.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: it holds or claims more data than fits into memory. Check its size.") from error
    except Exception as error:
        if not _is_damage(error):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{path}: found a file that cannot be read ({reason}), expected a whole {kind} file: {remedy}"
        ) from error


def _is_damage(error: Exception) -> bool:
    """Whether the content of a file made a reading library fail."""
    if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None):
        return False
    if isinstance(error, (ValueError, LookupError, EOFError, OSError)):
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    # Raised by our own lines, an error of any other type is a bug; scipy and nibabel raise them on damaged files.
    return last is not None and not str(last.tb_frame.f_globals.get("__name__")).startswith("unibrain.")


def read_volume(path: Path, what: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Read a three-dimensional NIfTI.

    Parameters
    ----------
    path : pathlib.Path
    what : str
        What the file is, for messages.
    shape : tuple of int, optional
        The grid it must have.

    Returns
    -------
    ndarray of shape (X, Y, Z), float64
        In the NIfTI's own order.

    Raises
    ------
    InputError
        If the file is missing, damaged, not three-dimensional, or of another grid.
    """
    import nibabel

    require_file(path, what)
    with whole_file(path, "NIfTI"):
        volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)  # type: ignore[attr-defined]
    if volume.ndim == 4 and volume.shape[3] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3:
        raise InputError(f"{path}: found an array of shape {volume.shape}, expected three axes X, Y, Z: check the file")
    if shape is not None and volume.shape != shape:
        raise InputError(
            f"{path}: found a grid of {volume.shape}, expected {shape} as in the mask: "
            "take all volumes from one subject and one space"
        )
    return volume


def volume_grid(path: Path) -> tuple[int, ...]:
    """X, Y and Z of a NIfTI, from its header alone.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    import nibabel

    with whole_file(path, "NIfTI"):
        return tuple(int(n) for n in nibabel.load(path).shape[:3])  # type: ignore[attr-defined]


def read_label_volume(path: Path, what: str, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """Read a NIfTI of region labels: -1 not cortex, 0 without a label, 1 and up labels.

    Parameters
    ----------
    path, what, shape
        See `read_volume`.

    Returns
    -------
    ndarray of shape (X, Y, Z), int64

    Raises
    ------
    InputError
        As `read_volume`, and if a value is no whole number of at least -1.
    """
    volume = read_volume(path, what, shape)
    labels = np.rint(np.nan_to_num(volume, nan=-2.0, posinf=-2.0, neginf=-2.0))
    wrong = (labels < -1) | (np.abs(labels - volume) > 1e-3)
    if wrong.any():
        raise InputError(
            f"{path}: found the value {volume[wrong][0]:g} in {int(wrong.sum())} voxels, "
            "expected whole numbers of at least -1: this is not a label volume, download it again"
        )
    return labels.astype(np.int64)


"""Opening a laboratory's own files, with a sentence for what is missing, damaged or something else."""

import csv
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {
    ".npy": "npy",
    ".csv": "csv",
    ".tsv": "tsv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".mat": "hdf5",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}


def kind_of(path: Path, allowed: tuple[str, ...], what: str) -> str:
    """Format of a file, by its name.

    Parameters
    ----------
    path : pathlib.Path
    allowed : tuple of str
        Some of ``"npy"``, ``"csv"``, ``"tsv"``, ``"hdf5"``, ``"nifti"``.
    what : str
        What the file is, for the message.

    Raises
    ------
    InputError
        If it is none of those.
    """
    name = path.name.lower()
    kind = next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)
    if kind not in allowed:
        endings = ", ".join(suffix for suffix, known in _KINDS.items() if known in allowed)
        raise InputError(
            f"{path}: found another kind of file, expected {what} whose name ends in {endings}: save it as one of them"
        )
    return str(kind)


def require(path: Path, what: str) -> Path:
    """Return `path` if it is a file; raise `InputError` if not."""
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected {what}: check the path")
    return path


def split_dataset(text: str) -> tuple[Path, str | None]:
    """Take ``FILE:DATASET`` apart; a name that is a file as it stands has no dataset.

    Examples
    --------
    >>> split_dataset("betas.h5:run/betas")[1]
    'run/betas'
    >>> split_dataset("betas.npy")[1] is None
    True
    """
    path = Path(text)
    before, colon, dataset = text.rpartition(":")
    if path.exists() or not colon or not before.lower().endswith((".h5", ".hdf5", ".mat")):
        return path, None
    return Path(before), dataset


def readable(path: Path, kind: str) -> AbstractContextManager[None]:
    """Turn whatever a reading library raises on a damaged file into one sentence: keep the block to its calls."""
    return whole_file(path, kind, "export it again")


def open_npy(path: Path, what: str) -> NDArray[Any]:
    """Open an ``.npy`` file of numbers as a read-only memory map.

    Raises
    ------
    InputError
        If it is missing, damaged, holds Python objects (reading these would run code out of the file), or no real
        numbers.
    """
    require(path, what)
    with readable(path, "npy"), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = header(file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: found pickled Python objects (GLMsingle's own .npy files are such), which are never opened here, "
            "expected a plain array of numbers: give GLMsingle's .hdf5 or .mat file, or save its betasmd with np.save "
            "where it was computed"
        )
    if dtype.kind not in "fiub":
        raise InputError(f"{path}: found values of type {dtype}, expected real numbers: save it as float32")
    with readable(path, "npy"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def text_rows(path: Path, kind: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a csv or tsv file that are not blank.

    Parameters
    ----------
    path : pathlib.Path
        UTF-8, with or without a byte order mark. A csv whose first line has semicolons and no comma is separated by
        semicolons.
    kind : {"csv", "tsv"}
    what : str
        What the file is, for messages.

    Yields
    ------
    line : int
        Its number in the file, from 1.
    cells : list of str
        Without white space around them.

    Raises
    ------
    InputError
        If the file is missing or no text.
    """
    require(path, what)
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
        raise InputError(
            f"{path}: found a file that cannot be read as text ({error}), expected {what} as {kind} in UTF-8: "
            "export it again"
        ) from error

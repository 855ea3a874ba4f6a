"""Opening files that may be missing or cut short, with a sentence that says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["read_label_volume", "read_volume", "require_file", "volume_grid", "whole_file"]


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
    """Turn whatever a reading library raises on a damaged file into one sentence.

    The libraries raise errors of many unrelated types on a truncated file (EOFError, OSError, zlib.error, ValueError,
    KeyError, their own), so everything is caught: keep the block to the library's calls.

    Parameters
    ----------
    path : pathlib.Path
    kind : str
        The file's type, for the message.
    remedy : str
        What the user can do about it.

    Raises
    ------
    InputError
        If the block fails.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{path}: found a file that cannot be read ({reason}), expected a whole {kind} file: {remedy}"
        ) from error


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

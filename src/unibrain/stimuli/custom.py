"""A laboratory's own pictures and captions: read once into one folder, then by stimulus id like any other stimuli."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.stimuli.picture_files import Crop, open_square, side_of
from unibrain.stimuli.stimuli import Stimuli
from unibrain.workspace.files import atomic_folder, write_json
from unibrain.workspace.progress import track

LARGEST = 512
"""Largest side of the stored pictures unless another is asked for: what Versatile Diffusion takes."""

_FORMAT, _VERSION = "unibrain-stimuli", 1
_PICTURES, _ABOUT = "pictures.npy", "stimuli.json"


def write_custom_stimuli(
    target: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    names: Sequence[str],
    captions: Sequence[tuple[str, ...]],
    size: int | None = None,
    crop: Crop = "centre",
) -> int:
    """Read pictures out of a folder into one array, one picture in memory at a time.

    Parameters
    ----------
    target : path-like
        The folder to write: ``pictures.npy`` (uint8 of shape (n, size, size, 3), row = stimulus id) and
        ``stimuli.json`` (file name and captions of each).
    folder : path-like
        Where the pictures are.
    names : sequence of str
        File of each stimulus id, relative to `folder`.
    captions : sequence of tuple of str
        Of each stimulus id; all empty if there are none.
    size : int, optional
        Side in pixels; by default the smallest side among the pictures, at most `LARGEST`, so that none is enlarged.
    crop : {"centre", "pad"}
        See `unibrain.stimuli.picture_files.open_square`.

    Returns
    -------
    int
        The side.

    Raises
    ------
    InputError
        If the folder or a picture is missing, a file is no picture or lies outside of the folder, or two files hold
        the same picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: found no such folder, expected the pictures that were shown: check the path")
    paths = [_inside(root, name) for name in names]
    side = size or min(LARGEST, *(side_of(path, crop) for path in paths))
    seen: dict[bytes, str] = {}
    with atomic_folder(target) as temporary:
        # Written one after the other and not through a memory map, which a full disk would end with a signal.
        with (temporary / _PICTURES).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), side, side, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for name, path in zip(names, track(paths, "reading pictures", unit="picture"), strict=True):
                content = open_square(path, side, crop).tobytes()
                before = seen.setdefault(hashlib.sha256(content).digest(), name)
                if before != name:
                    raise InputError(
                        f"{path}: found the same picture as in {before}, expected each picture once, or it may be in "
                        f"training and in test: name {before} in the table for both"
                    )
                file.write(content)
        entries = [{"file": name, "captions": list(texts)} for name, texts in zip(names, captions, strict=True)]
        about = {"format": _FORMAT, "version": _VERSION, "size": side, "crop": crop, "pictures": entries}
        write_json(temporary / _ABOUT, about)
    return side


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{path}: found a path that leads out of {root}, expected a file inside it: copy the picture there"
        )
    return path


def read_custom_stimuli(
    folder: str | os.PathLike[str], stimulus_ids: Sequence[int] | NDArray[np.int64] | None = None
) -> Stimuli:
    """Open what `write_custom_stimuli` wrote.

    Parameters
    ----------
    folder : path-like
    stimulus_ids : sequence of int, optional
        Those that are wanted; all by default.

    Returns
    -------
    Stimuli
        With the ids in ascending order, each once; pictures are read when asked for.

    Raises
    ------
    InputError
        If a file is missing or damaged, or an id is not there.
    """
    path = Path(folder)
    about, pictures = _read_about(path / _ABOUT), path / _PICTURES
    array = _open_pictures(pictures)
    entries = about["pictures"]
    if len(array) != len(entries):
        raise InputError(
            f"{pictures}: found {len(array)} pictures, expected {len(entries)} as in {_ABOUT}: import them again"
        )
    ids = np.arange(len(array)) if stimulus_ids is None else np.unique(np.asarray(stimulus_ids, dtype=np.int64))
    outside = ids[(ids < 0) | (ids >= len(array))]
    if len(outside):
        raise InputError(
            f"{pictures}: found {len(array)} pictures, expected one with the 0-based id {outside[0]}: import them again"
        )
    captions = {int(i): tuple(str(text) for text in entries[int(i)]["captions"]) for i in ids}

    def read_pictures(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.array(_open_pictures(pictures)[wanted])

    return Stimuli(ids, captions, read_pictures, str(path), has_captions=any(captions.values()))


def _open_pictures(path: Path) -> NDArray[np.uint8]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected imported pictures: import them again") from error
    if array.ndim != 4 or array.dtype != np.uint8 or array.shape[3] != 3:
        raise InputError(
            f"{path}: found {array.dtype} of shape {array.shape}, expected uint8 of shape (n, size, size, 3): import "
            "the pictures again"
        )
    return array


def _read_about(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        whole = about["format"] == _FORMAT and about["version"] == _VERSION
        whole = whole and all(isinstance(entry["captions"], list) for entry in about["pictures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected imported stimuli: import them again") from error
    if not whole:
        raise InputError(f"{path}: found something else, expected imported stimuli: import them again")
    return dict(about)

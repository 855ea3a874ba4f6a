"""Decoded pictures and captions on disk: one PNG per image, named by its id, and ``captions.json``."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.reconstruction.decoded import Decoded
from unibrain.workspace.files import atomic_folder, write_json

__all__ = ["load_decoded", "picture_name", "read_picture", "save_decoded", "write_picture"]


def picture_name(stimulus_id: int) -> str:
    """File name of an image's decoded picture: its id in six digits.

    Examples
    --------
    >>> picture_name(73)
    '000073.png'
    """
    return f"{int(stimulus_id):06d}.png"


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write uint8 RGB of shape (height, width, 3) as PNG."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read an RGB PNG, whole and checked by its own checksums.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    InputError
        If it is missing, truncated, damaged, no PNG, or not RGB.
    """
    from PIL import Image

    if not path.is_file():
        raise InputError(f"{path}: there is no such file, expected a decoded picture: reconstruct again")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            # Compares the checksum of every chunk, which reading the pixels does not. A picture is spent after that.
            image.verify()
        with Image.open(path, formats=("PNG",)) as image:
            mode = image.mode
            picture: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: truncated or damaged ({error}), expected a PNG picture: reconstruct again"
        ) from error
    if mode != "RGB":
        raise InputError(f"{path}: a picture of mode {mode}, expected RGB: reconstruct again")
    return picture


def save_decoded(folder: str | os.PathLike[str], decoded: Decoded) -> None:
    """Write decoded pictures and captions.

    Parameters
    ----------
    folder : path-like
        What it held before is replaced as a whole.
    decoded : Decoded
        One row per image.

    Raises
    ------
    InputError
        If an image occurs twice (their files would have one name) or has a negative id, or the disk is full.
    """
    ids = [int(i) for i in decoded.stimulus_ids]
    _check_ids(ids, str(folder))
    with atomic_folder(folder) as temporary:
        for identity, picture in zip(ids, decoded.pictures, strict=True):
            write_picture(temporary / picture_name(identity), picture)
        entries = [{"stimulus_id": i, "caption": text} for i, text in zip(ids, decoded.captions, strict=True)]
        write_json(temporary / "captions.json", entries)


def load_decoded(folder: str | os.PathLike[str]) -> Decoded:
    """Read what `save_decoded` wrote.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    Decoded

    Raises
    ------
    InputError
        If a file is missing, truncated or damaged, or the pictures differ in size.
    """
    path = Path(folder) / "captions.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no decoded captions there (captions.json is missing), expected them: reconstruct first"
        )
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path}: truncated or damaged ({error}), expected a list in JSON: reconstruct again"
        ) from error
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(
            f"{path}: expected a list of at least one {{stimulus_id, caption}}, found another: reconstruct again"
        )
    ids = [entry["stimulus_id"] for entry in entries]
    _check_ids(ids, str(path))
    # The path is formed from a checked number, never from a text in the file.
    paths = [Path(folder) / picture_name(identity) for identity in ids]
    pictures = [read_picture(file) for file in paths]
    for file, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise InputError(
                f"{file}: a picture of shape {picture.shape}, expected {pictures[0].shape}: reconstruct again"
            )
    return Decoded(np.array(ids, dtype=np.int64), np.stack(pictures), tuple(entry["caption"] for entry in entries))


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("stimulus_id")) is int and isinstance(entry.get("caption"), str)


def _check_ids(ids: list[int], where: str) -> None:
    negative = [i for i in ids if not 0 <= i < 2**63]
    if negative:
        raise InputError(f"{where}: image id {negative[0]}, expected 0-based ids: check the ids of the scans")
    seen: set[int] = set()
    for identity in ids:
        if identity in seen:
            raise InputError(
                f"{where}: image id {identity} occurs twice, expected one row per image: average its scans, "
                "or save them in separate folders"
            )
        seen.add(identity)

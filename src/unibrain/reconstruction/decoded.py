"""`Decoded`: what was decoded from each scan, in memory and on disk."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace import notebook
from unibrain.workspace.files import atomic_folder, write_json

INDEX = "decoded.json"
_SHOWN = 12
"""Most items that a notebook shows."""


@dataclass(frozen=True, repr=False)
class Decoded:
    """What was decoded, one row per scan.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids of the images that were seen.
    pictures : ndarray of shape (n, height, width, 3), uint8, or None
        Decoded pictures, RGB; None if none were decoded.
    captions : tuple of str, length n, or None
        Decoded captions, one may be empty; None if none were decoded.
    others : mapping of str to ndarray of shape (n, ...)
        Items of further kinds that a backbone can decode.

    Raises
    ------
    InputError
        If there is not one item of each kind per scan, or pictures are not 8-bit RGB.
    """

    stimulus_ids: NDArray[np.int64]
    pictures: NDArray[np.uint8] | None = None
    captions: tuple[str, ...] | None = None
    others: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pictures = self.pictures
        if pictures is not None and (pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8):
            raise InputError(
                f"decoded pictures are {pictures.dtype} of shape {pictures.shape}: give uint8 of shape "
                "(n, height, width, 3)"
            )
        for kind, items in self._kinds().items():
            if len(items) != len(self.stimulus_ids):
                raise InputError(f"there are {len(items)} items of kind {kind} for {len(self.stimulus_ids)} scans")

    def _kinds(self) -> dict[str, Any]:
        kinds = {"picture": self.pictures, "caption": self.captions, **self.others}
        return {kind: items for kind, items in kinds.items() if items is not None}

    def rows(self, rows: NDArray[np.int64]) -> "Decoded":
        """Some scans only, by their row numbers in the wanted order."""
        captions = None if self.captions is None else tuple(self.captions[row] for row in rows)
        others = {kind: items[rows] for kind, items in self.others.items()}
        pictures = None if self.pictures is None else self.pictures[rows]
        return Decoded(self.stimulus_ids[rows], pictures, captions, others)

    def __repr__(self) -> str:
        return f"Decoded({len(self.stimulus_ids)} scans: {', '.join(f'{kind}s' for kind in self._kinds())})"

    def _repr_html_(self) -> str:
        """For notebooks: the first pictures, each over its caption."""
        shown = min(_SHOWN, len(self.stimulus_ids))
        count = f", the first {shown} of them" * (shown < len(self.stimulus_ids))
        captions = self.captions or [f"image {identity}" for identity in self.stimulus_ids[:shown]]
        items = (
            (None if self.pictures is None else self.pictures[row], captions[row] or "(no caption)")
            for row in range(shown)
        )
        return notebook.paragraph(repr(self) + count, bold=True) + notebook.pictures(items)


def save_decoded(folder: str | os.PathLike[str], decoded: Decoded) -> None:
    """Write what was decoded: ``decoded.json`` with ids and captions, a PNG per picture, named by its image's id.

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
    index: dict[str, Any] = {"stimulus_ids": ids, "pictures": decoded.pictures is not None}
    if decoded.captions is not None:
        index["captions"] = list(decoded.captions)
    index["others"] = sorted(decoded.others)
    with atomic_folder(folder) as temporary:
        for identity, picture in zip(ids, () if decoded.pictures is None else decoded.pictures, strict=False):
            write_picture(temporary / picture_name(identity), picture)
        for kind, items in decoded.others.items():
            np.save(temporary / f"{kind}.npy", items, allow_pickle=False)
        write_json(temporary / INDEX, index)


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
        If there is nothing decoded.
    DamagedFileError
        If a file is missing, truncated or damaged, or the pictures differ in size.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise InputError(f"{folder} holds nothing decoded ({INDEX} is missing): reconstruct first")
    try:
        index = json.loads(path.read_bytes())
        ids, captions, others = index["stimulus_ids"], index.get("captions"), index["others"]
        texts = [*(captions or ()), *others]
        sound = all(type(i) is int for i in ids) and all(isinstance(text, str) for text in texts)
        sound = sound and bool(ids) and all(kind.isidentifier() for kind in others)
        if not sound or (captions is not None and len(captions) != len(ids)):
            raise ValueError("not a list of ids and one of captions")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(path, f"{path} is damaged ({error}): reconstruct again") from error
    _check_ids(ids, str(path))
    pictures = None
    if index.get("pictures"):
        # The path is formed from a checked number, never from a text in the file.
        each = [read_picture(Path(folder) / picture_name(identity)) for identity in ids]
        for identity, picture in zip(ids, each, strict=True):
            if picture.shape != each[0].shape:
                file = Path(folder) / picture_name(identity)
                raise DamagedFileError(file, f"{file} has another size than the pictures before it: reconstruct again")
        pictures = np.stack(each)
    arrays = {kind: np.load(Path(folder) / f"{kind}.npy", allow_pickle=False) for kind in others}
    return Decoded(np.array(ids, dtype=np.int64), pictures, None if captions is None else tuple(captions), arrays)


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
    """Read a PNG that `write_picture` wrote, checked by its own checksums."""
    from PIL import Image

    if not path.is_file():
        raise DamagedFileError(path, f"{path} is missing: reconstruct again")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            # Compares the checksum of every chunk, which reading the pixels does not. A picture is spent after that.
            image.verify()
        with Image.open(path, formats=("PNG",)) as image:
            mode = image.mode
            picture: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise DamagedFileError(path, f"{path} is truncated or damaged ({error}): reconstruct again") from error
    if mode != "RGB":
        raise DamagedFileError(path, f"{path} is a picture of mode {mode}, not RGB: reconstruct again")
    return picture


def _check_ids(ids: Sequence[int], where: str) -> None:
    repeated = sorted({identity for identity in ids if ids.count(identity) > 1}) if len(set(ids)) < len(ids) else []
    if repeated:
        raise InputError(
            f"{where}: image id {repeated[0]} occurs twice. Average its scans, or save them in separate folders"
        )
    negative = [i for i in ids if not 0 <= i < 2**63]
    if negative:
        raise InputError(f"{where}: image id {negative[0]} is no 0-based id: check the ids of the scans")

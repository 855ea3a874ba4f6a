"""A laboratory's own pictures and captions: read once into one folder, then by stimulus id like any other stimuli."""

import json
import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError
from unibrain.scans.custom_table import read_lines
from unibrain.scans.foreign import file_inside, hdf5_dataset, open_hdf5, reading, require_file, require_folder
from unibrain.stimuli.stimuli import Stimuli
from unibrain.workspace.files import atomic_folder, write_json
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)

Crop = Literal["centre", "pad"]
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""What is opened, whatever a file is called. Pillow's other formats stay closed: EPS is handed to another program."""

_GREY = (127, 127, 127)
_PLAIN = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
LARGEST = 512
"""Largest side of the stored pictures unless another is asked for: what Versatile Diffusion takes."""
SMALLEST = 16
"""A picture of fewer pixels does not decide the side of all others."""

_FORMAT, _VERSION = "unibrain-stimuli", 2
_PICTURES, _ABOUT = "pictures.npy", "stimuli.json"
_PACKED = "images"
_AGAIN = "Import the pictures again"


@dataclass(frozen=True)
class PackedPicture:
    """A picture file inside an HDF5 file: one of the entries of its dataset ``images``."""

    file: Path
    entry: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    def content(self) -> BytesIO:
        """The bytes of the picture file."""
        with open_hdf5(self.file, "the pictures that were shown") as file:
            images = hdf5_dataset(self.file, file, _PACKED, encoded=True)
            with reading(self.file, "HDF5"):
                return BytesIO(images[self.entry].tobytes())


def picture_listing(source: Path) -> Path | None:
    """The table that names the pictures in an HDF5 file; None of a folder."""
    if source.suffix.lower() not in (".h5", ".hdf5"):
        return None
    return source.with_name(f"{source.stem.removesuffix('_stimuli')}_metadata.csv")


def picture_files(source: Path, names: Sequence[str]) -> list[Path | PackedPicture]:
    """Find pictures by name in a folder, or in an HDF5 file of picture files as LAION-fMRI has it.

    ``task-images_stimuli.h5`` holds the bytes of JPEG files in its dataset ``images``, and
    ``task-images_metadata.csv`` beside it has a line for each, with the name in column ``image_name``.
    """
    listing = picture_listing(source)
    if listing is None:
        root = require_folder(source, "the pictures that were shown")
        return [file_inside(root, name) for name in names]
    require_file(listing, f"the names of the pictures in {source.name}", "Copy it beside the pictures")
    lines, columns = read_lines(listing, "the names of the pictures")
    if "image_name" not in columns:
        raise InputError(f"{listing}: has no column image_name. Use the file that belongs to {source.name}.")
    place = {unicodedata.normalize("NFC", row["image_name"]): entry for entry, (_, row) in enumerate(lines)}
    with open_hdf5(source, "the pictures that were shown") as file:
        number = len(hdf5_dataset(source, file, _PACKED, encoded=True))
    if number != len(lines) or len(place) != len(lines):
        raise InputError(
            f"{listing}: names {len(place)} pictures in {len(lines)} lines, but {source.name} holds {number}. Take "
            "both files from one release."
        )
    absent = next((name for name in names if name not in place), None)
    if absent is not None:
        raise InputError(f"{listing}: does not name the picture {absent}. Take pictures and trials from one release.")
    return [PackedPicture(source, place[name], name) for name in names]


def write_custom_stimuli(
    target: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    names: Sequence[str],
    captions: Sequence[tuple[str, ...]],
    size: int | None = None,
    crop: Crop = "centre",
    is_test: Sequence[bool] | NDArray[np.bool_] | None = None,
) -> int:
    """Read pictures out of a folder into one array, one picture in memory at a time.

    Parameters
    ----------
    target : path-like
        The folder to write: ``pictures.npy`` (uint8 of shape (n, size, size, 3), row = stimulus id) and
        ``stimuli.json`` (file name, captions and checksum of each).
    folder : path-like
        Where the pictures are: a folder, or an HDF5 file of them (see `picture_files`).
    names : sequence of str
        File of each stimulus id, relative to `folder`.
    captions : sequence of tuple of str
        Of each stimulus id; all empty if there are none.
    size : int, optional
        Side in pixels; by default the smallest side among the pictures, at most `LARGEST`, so that none is enlarged.
    crop : {"centre", "pad"}
        Cut the middle square out of an oblong picture, or keep all of it inside a square with grey borders.
    is_test : sequence of bool, optional
        Which of them are test. Two files that hold the same picture are then refused only if one is in training and the
        other in test; else they are a warning.

    Returns
    -------
    int
        The side.

    Raises
    ------
    InputError
        If the folder or a picture is missing, a file is no picture or lies outside of the folder, the smallest picture
        is too small to decide the side of all, or two files hold the same picture.
    """
    paths = picture_files(Path(folder), names)
    side = size or _common_side(paths, crop)
    first: dict[str, int] = {}
    digests: list[str] = []
    with atomic_folder(target) as temporary:
        # Written one after the other and not through a memory map, which a full disk would end with a signal.
        with (temporary / _PICTURES).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), side, side, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for place, path in enumerate(track(paths, "reading pictures", unit="picture")):
                pixels = open_square(path, side, crop)
                digests.append(digest(pixels))
                before = first.setdefault(digests[-1], place)
                if before != place:
                    same = f"{path}: is the same picture as {names[before]}"
                    if is_test is None or is_test[before] != is_test[place]:
                        raise InputError(
                            f"{same}, and the same picture may not be in training and in test. Name {names[before]} in "
                            "the table for both, or choose a split that has them on one side."
                        )
                    _log.warning("%s. They count as two %s pictures.", same, "test" if is_test[place] else "training")
                file.write(pixels.tobytes())
        entries = [
            {"file": name, "captions": list(texts), "digest": checksum}
            for name, texts, checksum in zip(names, captions, digests, strict=True)
        ]
        about = {"format": _FORMAT, "version": _VERSION, "size": side, "crop": crop, "pictures": entries}
        write_json(temporary / _ABOUT, about)
    return side


def _common_side(paths: Sequence[Path | PackedPicture], crop: Crop) -> int:
    sides = []
    for path in paths:
        with _opened(path) as image:  # only the head of the file is read
            sides.append(min(image.size) if crop == "centre" else max(image.size))
    smallest = min(sides)
    path = paths[sides.index(smallest)]
    if smallest < SMALLEST:
        raise InputError(
            f"{path}: has a side of {smallest} pixels, and all pictures are stored in the size of the smallest. Export "
            "it again, or give --picture-size."
        )
    if 2 * smallest < min(LARGEST, float(np.median(sides))):
        text = "%s: has a side of %d pixels, half or less of most pictures, and all are stored so (see --picture-size)."
        _log.warning(text, path, smallest)
    return min(LARGEST, smallest)


def read_custom_stimuli(
    folder: str | os.PathLike[str], stimulus_ids: Sequence[int] | NDArray[np.int64] | None = None
) -> Stimuli:
    """Open what `write_custom_stimuli` wrote.

    Parameters
    ----------
    folder : path-like
        ``stimuli`` of a run folder.
    stimulus_ids : sequence of int, optional
        Those that are wanted; all by default.

    Returns
    -------
    Stimuli
        With the ids in ascending order, each once; pictures are read when asked for, and their checksums verified.

    Raises
    ------
    InputError
        If a file is missing, or an id is not there.
    DamagedFileError
        If a file is truncated or changed.
    """
    path = Path(folder)
    entries, pictures = _read_entries(path / _ABOUT), path / _PICTURES
    array = _open_pictures(pictures)
    if len(array) != len(entries):
        raise DamagedFileError(
            pictures, f"{pictures}: holds {len(array)} pictures, {_ABOUT} lists {len(entries)}. {_AGAIN}."
        )
    ids = np.arange(len(array)) if stimulus_ids is None else np.unique(np.asarray(stimulus_ids, dtype=np.int64))
    outside = ids[(ids < 0) | (ids >= len(array))]
    if len(outside):
        raise InputError(f"{pictures}: holds {len(array)} pictures, none with the 0-based id {outside[0]}. {_AGAIN}.")
    captions = {int(i): tuple(str(text) for text in entries[int(i)]["captions"]) for i in ids}

    def read_pictures(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = np.array(_open_pictures(pictures)[wanted])
        for identity, picture in zip(wanted, found, strict=True):
            if digest(picture) != entries[int(identity)]["digest"]:
                raise DamagedFileError(
                    pictures, f"{pictures}: picture {identity} has changed since it was read. {_AGAIN}."
                )
        return found

    return Stimuli(ids, captions, read_pictures, str(path), has_captions=any(captions.values()))


def _open_pictures(path: Path) -> NDArray[np.uint8]:
    require_file(path, "the imported pictures", _AGAIN)
    with reading(path, "npy", _AGAIN, ours=True):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 4 or array.dtype != np.uint8 or array.shape[3] != 3:
        raise DamagedFileError(
            path, f"{path}: is {array.dtype} of shape {array.shape}, no imported pictures. {_AGAIN}."
        )
    return array


def _read_entries(path: Path) -> list[dict[str, Any]]:
    require_file(path, "the list of imported pictures", _AGAIN)
    with reading(path, "JSON", _AGAIN, ours=True, also=(TypeError,)):
        about = json.loads(path.read_text(encoding="utf-8"))
        entries = [{"captions": list(entry["captions"]), "digest": entry["digest"]} for entry in about["pictures"]]
        if (about["format"], about["version"]) != (_FORMAT, _VERSION):
            raise ValueError("of another format or version")
    return entries


def _opened(path: Path | PackedPicture) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    if isinstance(path, Path):
        require_file(path, "a picture that the table names", "Check the name")
    content = path if isinstance(path, Path) else path.content()
    try:
        with reading(Path(str(path)), "picture", "Export it again", also=(SyntaxError,)):
            try:
                image = Image.open(content, formats=FORMATS)
            except UnidentifiedImageError as error:
                raise InputError(f"{path}: is no picture ({', '.join(FORMATS)}). Export it as one of these.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: is too large a picture to open ({error}). Export it smaller.") from error
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        image.close()
        raise InputError(f"{path}: holds {frames} pictures. Export the one that was shown.")
    return image


def open_square(path: Path | PackedPicture, size: int, crop: Crop = "centre") -> NDArray[np.uint8]:
    """Read a picture upright, in RGB, square, of one size: uint8 of shape (size, size, 3).

    The orientation that a camera noted (EXIF) is applied. Grey pictures and palettes become RGB; what is transparent
    shows mid-grey (127), as does the border of ``"pad"``. ``"centre"`` cuts the middle square out of an oblong picture.
    Pictures are resized with Pillow's bicubic filter.
    """
    from PIL import Image, ImageOps

    named = Path(str(path))
    with _opened(path) as opened, reading(named, "picture", "Export it again", also=(SyntaxError,)):
        image = _rgb(named, ImageOps.exif_transpose(opened))
    bicubic = Image.Resampling.BICUBIC
    if crop == "centre":
        square = ImageOps.fit(image, (size, size), bicubic)
    else:
        square = ImageOps.pad(image, (size, size), bicubic, color=_GREY)
    return np.asarray(square, dtype=np.uint8)


def _rgb(path: Path, image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16 bits at 255.
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode not in ("P", *_PLAIN, *_ALPHA):
        raise InputError(f"{path}: is of mode {image.mode}, whose range of brightness is not known. Export it as PNG.")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_GREY, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")

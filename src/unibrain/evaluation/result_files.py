"""Other people's results: folders of pictures and files of captions, scored without a run; and tables for papers."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError, UnavailableError
from unibrain.evaluation.caption_files import read_captions
from unibrain.evaluation.scores import Scores
from unibrain.reconstruction import Decoded
from unibrain.stimuli import Stimuli

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def read_results(
    seen: Path | None = None,
    decoded: Path | None = None,
    references: Path | None = None,
    captions: Path | None = None,
) -> tuple[Decoded, Stimuli, tuple[str, ...]]:
    """Read results that were decoded elsewhere; ids count the `names` in their order, from 0.

    `seen` and `decoded` are folders of pictures; a decoded picture has the name of the one that was seen, whatever its
    ending. All pictures of a folder have one size. `seen` without `decoded` is for scores of captions that look at the
    pictures. `references` and `captions` are files as `unibrain.evaluation.caption_files.read_captions` takes them,
    with the pictures' names as keys where there are pictures. `InputError` if one side is missing, or names, numbers or
    sizes do not fit together.
    """
    lacking = {
        "--seen": decoded is not None and seen is None,
        "--decoded": seen is not None and decoded is None and captions is None,
        "--references": captions is not None and references is None,
        "--captions": references is not None and captions is None,
    }
    for option, lacks in lacking.items():
        if lacks:
            raise InputError(f"{option} is missing: what was decoded is compared with what was seen. Give both.")
    if decoded is None and captions is None:
        raise InputError("there is nothing to score. Give --seen and --decoded, or --references and --captions.")
    there, here = ({} if folder is None else _named_pictures(folder) for folder in (seen, decoded))
    true_texts, texts = ({} if file is None else read_captions(file) for file in (references, captions))
    names = _same_names(there, here, seen, decoded) if here else _same_names(true_texts, texts, references, captions)
    for file, found in ((references, true_texts), (captions, texts)):
        absent = [name for name in names if found and _key(found, name) not in found]
        if absent:
            raise InputError(f"{file}: there is no caption of {absent[0]} ({len(absent)} are missing). Add it.")
    several = [name for name in names if texts and len(texts[_key(texts, name)]) > 1]
    if several:
        raise InputError(f"{captions}: {several[0]} has several decoded captions. Give one for each image.")
    absent = [name for name in names if there and name not in there]
    if absent:
        raise InputError(f"{seen}: there is no picture of {absent[0]} ({len(absent)} are missing). Add it.")
    if len(names) < 2:
        raise InputError(f"{decoded or captions}: there is {len(names)} item. Scores compare at least two.")
    pictures = _read_all(here, names) if here else None
    truth = _read_all(there, names) if there else None
    said = tuple(texts[_key(texts, name)][0] for name in names) if texts else None
    true_captions = {row: tuple(true_texts[_key(true_texts, name)]) for row, name in enumerate(names) if true_texts}

    def read(asked: NDArray[np.int64]) -> NDArray[np.uint8]:
        if truth is None:
            raise UnavailableError("the pictures that were seen were not given: add their folder (--seen)")
        return truth[asked]

    ids = np.arange(len(names))
    stimuli = Stimuli(ids, true_captions, read, str(seen or references), has_captions=bool(true_captions))
    return Decoded(ids, pictures, said), stimuli, tuple(names)


def _key(captions: Mapping[str | int, Any], name: str) -> str | int:
    """A file may number its captions, where the pictures' names are these numbers."""
    return int(name) if name not in captions and name.isdecimal() else name


def _named_pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: it is no folder. Give the folder that holds the pictures.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_ENDINGS:
            if path.stem in found:
                raise InputError(f"{path}: {found[path.stem].name} has the same name. Keep one of them.")
            found[path.stem] = path
    if not found:
        raise InputError(f"{folder}: there is no picture in it. Give png, jpg, webp, bmp or tif files.")
    return found


def _same_names(
    true: Mapping[Any, Any], items: Mapping[Any, Any], true_place: Path | None, place: Path | None
) -> list[str]:
    for one, other, where in ((true, items, place), (items, true, true_place)):
        absent = [name for name in one if name not in other]
        if absent:
            raise InputError(
                f"{where}: there is nothing of the name {absent[0]} ({len(absent)} of {len(one)} are missing). "
                "Give both sides the same names."
            )
    return [str(name) for name in true]


def _read_all(files: Mapping[str, Path], names: Sequence[str]) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    found: NDArray[np.uint8] | None = None
    for row, name in enumerate(names):
        try:
            with Image.open(files[name]) as opened:
                if opened.mode not in ("RGB", "L", "P"):
                    raise InputError(f"{files[name]}: its mode is {opened.mode}. Save it as 8-bit RGB.")
                picture = np.asarray(opened.convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise InputError(f"{files[name]}: it cannot be read as a picture ({error}). Save it again.") from error
        if found is None:
            # A file without a name: a thousand large pictures need not be in memory.
            with TemporaryFile() as file:
                found = np.memmap(file, np.uint8, "w+", shape=(len(names), *picture.shape))
        if picture.shape != found.shape[1:]:
            raise InputError(
                f"{files[name]}: it is {picture.shape[1]} x {picture.shape[0]} pixels, and {files[names[0]].name} is "
                f"{found.shape[2]} x {found.shape[1]}. Give one size for all."
            )
        found[row] = picture
    assert found is not None
    return found


def per_image_csv(scores: Scores, names: Sequence[str] | None = None) -> str:
    """One line per image and one column per metric, for other programs."""
    rows = [score for score in scores.scores if score.per_image]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", *(score.name for score in rows)])
    for number, identity in enumerate(scores.stimulus_ids):
        values = (score.per_image[number] for score in rows)
        table.writerow(
            [identity if names is None else names[number], *("" if v is None else f"{v:.6g}" for v in values)]
        )
    return text.getvalue()

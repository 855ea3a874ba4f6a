"""NSD's pictures, captions of them (COCO's own, or the curated array), and the pictures of its further sets."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import file_inside, hdf5_dataset, open_hdf5, open_npy, read_json, reading, whole_numbers
from unibrain.scans.nsd_design import read_stim_info
from unibrain.scans.nsd_further import imagery_targets
from unibrain.scans.nsd_layout import FETCH, FETCH_FURTHER, TOGETHER, NsdLayout
from unibrain.stimuli.custom import open_square
from unibrain.stimuli.stimuli import Stimuli

CAPTION_SOURCES = ("coco", "curated")
"""COCO's own files, or the array of captions curated for NSD's images."""

SIDE = 425
"""Side in pixels that the pictures of NSD-Imagery are brought to: that of NSD's own."""

_PICTURES = "imgBrick"
_SYNTHETIC = "the pictures of NSD-Synthetic"
# The monitor showed NSD's pictures with a gamma of 2, and those of NSD-Synthetic with 1: shown the other way, they look
# like this.
_AS_SEEN = np.rint(255 * np.sqrt(np.arange(256) / 255)).astype(np.uint8)
_PUBLISHED = "Use the file as it is published"


def read_nsd_stimuli(
    root: str | os.PathLike[str],
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    captions_from: Literal["coco", "curated"] = "coco",
    captions_file: str | os.PathLike[str] | None = None,
) -> Stimuli:
    """Find the pictures and captions of some images of the Natural Scenes Dataset.

    Captions are COCO's (5 to 7 for an image), matched by ``cocoId`` in the file that ``cocoSplit`` names, in the file's
    order; or up to five from the curated array, by 73k id. Empty ones are left out. COCO's describe the picture before
    NSD cropped it. Pictures are read when asked for.

    Parameters
    ----------
    root : path-like
        The folder that holds ``nsddata`` and ``nsddata_stimuli``.
    stimulus_ids : sequence of int
        0-based 73k ids, in any order.
    captions_from : {"coco", "curated"}
        See `CAPTION_SOURCES`.
    captions_file : path-like, optional
        The curated array, if it is not beside COCO's files (see `caption_files`).

    Returns
    -------
    Stimuli
        With the ids in ascending order, each once.

    Raises
    ------
    InputError
        If a file is missing or damaged, an id is not in it, or an image has no caption.
    """
    if captions_from not in CAPTION_SOURCES:
        raise InputError(f"captions_from is {captions_from!r}. Choose one of {', '.join(CAPTION_SOURCES)}.")
    layout = NsdLayout(Path(root))
    ids = np.unique(np.asarray(stimulus_ids, dtype=np.int64))
    with open_hdf5(layout.stimuli, "NSD's pictures", FETCH) as file:
        _brick_with(layout.stimuli, file, ids)
    if captions_from == "curated":
        captions = read_curated_captions(caption_files(layout, captions_from, captions_file), ids)
    else:
        captions = _complete_captions(layout, ids)
    return Stimuli(ids, captions, lambda wanted: read_pictures(layout, wanted), str(layout.stimuli.parent))


def caption_files(
    layout: NsdLayout,
    captions_from: Literal["coco", "curated"] = "coco",
    captions_file: str | os.PathLike[str] | None = None,
) -> Path:
    """Where captions are read from: COCO's folder of annotations, or the curated array (beside them by default)."""
    folder = layout.captions("train2017").parent
    if captions_from == "coco":
        return folder
    return folder / "COCO_73k_annots_curated.npy" if captions_file is None else Path(captions_file)


def read_pictures(layout: NsdLayout, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Pictures by 0-based 73k id, in the order asked for: uint8 of shape (n, height, width, 3)."""
    ids, back = np.unique(wanted, return_inverse=True)
    path = layout.stimuli
    with open_hdf5(path, "NSD's pictures", FETCH) as file:
        brick = _brick_with(path, file, ids)
        pictures = np.empty((len(ids), *brick.shape[1:]), dtype=np.uint8)
        # HDF5 wants ascending rows; runs of neighbours are read in one go, the asked-for order is restored at the end.
        runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids) != 1) + 1)
        with reading(path, "HDF5"):
            for run in runs:
                if len(run):
                    pictures[run] = brick[ids[run[0]] : ids[run[-1]] + 1]
    return pictures[back]


def _brick(path: Path, file: Any) -> Any:
    """The dataset of all pictures of a file."""
    brick = hdf5_dataset(path, file, _PICTURES)
    if len(brick.shape) != 4 or brick.shape[3] != 3 or brick.dtype != np.uint8:
        raise InputError(
            f"{path}: {_PICTURES} is {brick.dtype} of shape {brick.shape}, not uint8 of shape (images, height, width, "
            f"3). {_PUBLISHED}."
        )
    return brick


def _brick_with(path: Path, file: Any, ids: NDArray[np.int64]) -> Any:
    """The dataset of all pictures, which has these ids (ascending)."""
    brick = _brick(path, file)
    if len(ids) and (ids[0] < 0 or ids[-1] >= len(brick)):
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise InputError(
            f"{path}: {_PICTURES} holds {len(brick)} pictures, none with the 0-based id {wrong}. Download it again, or "
            "check that scans and stimuli belong together."
        )
    return brick


def coco_images(layout: NsdLayout, ids: NDArray[np.int64]) -> dict[int, tuple[int, Path]]:
    """Image (0-based 73k ids, ascending) to its COCO id and the file of COCO's captions that has it."""
    table = read_stim_info(layout, ["cocoId", "cocoSplit"])
    if len(ids) and ids[-1] >= len(table):
        raise InputError(
            f"{layout.stim_info}: has {len(table)} images, none with the 0-based id {ids[-1]}. {TOGETHER}."
        )
    coco_ids = whole_numbers(layout.stim_info, table, ["cocoId"])[ids, 0].tolist()
    files = (layout.captions(str(split).strip()) for split in table["cocoSplit"].to_numpy()[ids])
    return dict(zip(ids.tolist(), zip(coco_ids, files, strict=True), strict=True))


def coco_captions(images: Mapping[int, tuple[int, Path]]) -> dict[int, tuple[str, ...]]:
    """COCO's captions of what `coco_images` gave; empty for an image that has none."""
    by_file = {path: read_annotations(path) for path in sorted({path for _, path in images.values()})}
    return {identity: tuple(by_file[path].get(coco_id, ())) for identity, (coco_id, path) in images.items()}


def _complete_captions(layout: NsdLayout, ids: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    images = coco_images(layout, ids)
    captions = coco_captions(images)
    for identity, (coco_id, path) in images.items():
        if not captions[identity]:
            raise InputError(
                f"{path}: has no caption for image id {identity} (COCO id {coco_id}). Download COCO's caption "
                "annotations again."
            )
    return captions


def read_annotations(path: Path) -> dict[int, list[str]]:
    """Read one of COCO's caption files: COCO id to captions in the file's order, tidied, empty ones left out."""
    content = read_json(path, "COCO's captions (not part of NSD)", "Run `unibrain nsd fetch-captions`")
    captions: dict[int, list[str]] = {}
    try:
        for annotation in content["annotations"]:
            caption = " ".join(str(annotation["caption"]).split())
            if caption:
                captions.setdefault(int(annotation["image_id"]), []).append(caption)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: holds no captions as COCO's annotations do ({error!r}). Download it again."
        ) from error
    return captions


def read_curated_captions(path: Path, stimulus_ids: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    """Read captions out of ``COCO_73k_annots_curated.npy``, in the array's order, tidied, empty ones left out.

    The file is a numpy array of text of shape (images, captions), row = 0-based 73k id; (73000, 5) as published. It is
    mapped, not read as a whole, and never unpickled.
    """
    remedy = (
        "Download COCO_73k_annots_curated.npy from the Hugging Face dataset pscotti/naturalscenesdataset, or take "
        "captions from COCO's files"
    )
    array = open_npy(path, "the curated captions (not part of NSD)", remedy, kinds="U")
    if array.ndim != 2:
        raise InputError(f"{path}: has the shape {array.shape}, not (images, captions). {_PUBLISHED}.")
    if len(stimulus_ids) and stimulus_ids.max() >= len(array):
        raise InputError(
            f"{path}: has {len(array)} images, none with the 0-based id {stimulus_ids.max()}. {_PUBLISHED}."
        )
    captions = {}
    for identity in stimulus_ids:
        found = tuple(tidy for text in array[int(identity)] if (tidy := " ".join(str(text).split())))
        if not found:
            raise InputError(f"{path}: has no caption for image id {identity}. Take captions from COCO's files.")
        captions[int(identity)] = found
    return captions


def read_further_stimuli(layout: NsdLayout, name: str) -> Stimuli:
    """Open the pictures of one of `FURTHER_SETS` by its own 0-based ids; they have no captions.

    Those of NSD-Synthetic (some colours were made for each person) are cut to the middle square, and brightened to look
    on a usual screen as they did in the scanner. Of NSD-Imagery they are the targets, without the frame and the letter
    that were shown around and on them.
    """
    readers: list[Callable[[], NDArray[np.uint8]]] = []
    if name == "nsd-imagery":
        for path in imagery_targets(layout).values():
            readers.append(partial(open_square, file_inside(path.parent, path.name), SIDE))
    else:
        for path in layout.synthetic_stimuli:
            with open_hdf5(path, _SYNTHETIC, FETCH_FURTHER) as file:
                readers += [partial(_read_synthetic, path, row) for row in range(len(_brick(path, file)))]

    def pictures(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([readers[int(identity)]() for identity in wanted])

    return Stimuli(np.arange(len(readers)), {}, pictures, name, has_captions=False)


def _read_synthetic(path: Path, row: int) -> NDArray[np.uint8]:
    with open_hdf5(path, _SYNTHETIC, FETCH_FURTHER) as file:
        brick = _brick(path, file)
        with reading(path, "HDF5"):
            picture: NDArray[np.uint8] = brick[row]
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.asarray(_AS_SEEN[picture[top : top + side, left : left + side]])

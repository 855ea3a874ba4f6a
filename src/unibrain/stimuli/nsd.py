"""NSD's pictures and COCO's captions of them."""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import require_file, whole_file
from unibrain.scans.nsd_design import read_stim_info
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.stimuli.stimuli import Stimuli

CAPTION_SOURCES = ("coco", "curated")
"""COCO's own files, or the array of captions curated for NSD's images."""

_PICTURES = "imgBrick"


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
    layout = NsdLayout(Path(root))
    ids = np.unique(np.asarray(stimulus_ids, dtype=np.int64))
    path = layout.stimuli
    available = _picture_shape(path)[0]
    if len(ids) and (ids[0] < 0 or ids[-1] >= available):
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise InputError(
            f"{path}: found {available} pictures, expected one with the 0-based id {wrong}: "
            "check that scans and stimuli belong together"
        )

    def read_pictures(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        return _read_pictures(path, wanted)

    if captions_from not in CAPTION_SOURCES:
        raise InputError(
            f"captions_from is {captions_from!r}, expected one of {', '.join(CAPTION_SOURCES)}: choose one of them"
        )
    if captions_from == "curated":
        captions = read_curated_captions(caption_files(layout, captions_from, captions_file), ids)
    else:
        captions = _read_captions(layout, ids)
    return Stimuli(ids, captions, read_pictures, str(path.parent))


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


def _picture_shape(path: Path) -> tuple[int, ...]:
    import h5py

    require_file(path, "NSD's pictures")
    with whole_file(path, "HDF5"):
        file = h5py.File(path, "r")
    with file:
        if _PICTURES not in file:
            raise InputError(f"{path}: found no dataset {_PICTURES!r}, expected NSD's pictures: download it again")
        shape, dtype = tuple(file[_PICTURES].shape), file[_PICTURES].dtype
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise InputError(
            f"{path}: found {_PICTURES} as {dtype} of shape {shape}, expected uint8 of shape "
            "(images, height, width, 3): use the file as NSD publishes it"
        )
    return shape


def _read_pictures(path: Path, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
    import h5py

    shape = _picture_shape(path)
    ids, back = np.unique(wanted, return_inverse=True)
    pictures = np.empty((len(ids), *shape[1:]), dtype=np.uint8)
    # HDF5 wants ascending rows; runs of neighbours are read in one go, the asked-for order is restored at the end.
    starts = np.concatenate(([0], np.flatnonzero(np.diff(ids) != 1) + 1, [len(ids)])) if len(ids) else np.zeros(1, int)
    with whole_file(path, "HDF5"), h5py.File(path, "r") as file:
        for start, stop in pairwise(starts):
            pictures[start:stop] = file[_PICTURES][ids[start] : ids[start] + stop - start]
    return pictures[back]


def _read_captions(layout: NsdLayout, ids: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    table = read_stim_info(layout, ["cocoId", "cocoSplit"])
    if len(ids) and ids[-1] >= len(table):
        raise InputError(
            f"{layout.stim_info}: found {len(table)} images, expected one with the 0-based id {ids[-1]}: "
            "take all files from one download"
        )
    with whole_file(layout.stim_info, "comma-separated"):
        coco_ids = [int(number) for number in table["cocoId"].to_numpy()[ids]]
        splits = [str(split) for split in table["cocoSplit"].to_numpy()[ids]]
    captions: dict[int, tuple[str, ...]] = {}
    for split in sorted(set(splits)):
        by_coco_id = read_annotations(layout.captions(split))
        for stimulus_id, coco_id, own_split in zip(ids, coco_ids, splits, strict=True):
            if own_split != split:
                continue
            found = tuple(by_coco_id.get(coco_id, ()))
            if not found:
                raise InputError(
                    f"{layout.captions(split)}: found no caption for image id {stimulus_id} (COCO id {coco_id}), "
                    "expected at least one: download COCO's caption annotations again"
                )
            captions[int(stimulus_id)] = found
    return captions


def read_annotations(path: Path) -> dict[int, list[str]]:
    """Read one of COCO's caption files.

    Parameters
    ----------
    path : pathlib.Path
        For example ``captions_train2017.json``.

    Returns
    -------
    dict of int to list of str
        COCO id to its captions in the file's order, white space closed up, empty ones left out.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    require_file(path, "COCO's captions (not part of NSD)", "run `unibrain nsd fetch-captions`")
    captions: dict[int, list[str]] = {}
    with whole_file(path, "COCO caption"):
        for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            caption = " ".join(str(annotation["caption"]).split())
            if caption:
                captions.setdefault(int(annotation["image_id"]), []).append(caption)
    return captions


"""The array of COCO captions curated for NSD's images, as published decoders use it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_curated_captions(path: Path, stimulus_ids: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    """Read ``COCO_73k_annots_curated.npy``.

    Parameters
    ----------
    path : pathlib.Path
        A numpy array of text of shape (images, captions), row = 0-based 73k id; (73000, 5) in the published file. It is
        mapped, not read as a whole, and never unpickled.
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids, at least 0.

    Returns
    -------
    dict of int to tuple of str
        Captions of each id in the array's order; empty ones are left out, white space is tidied.

    Raises
    ------
    InputError
        If the file is missing, damaged, pickled, of another shape or type, or lacks an id or all captions of one.
    """
    require_file(
        path,
        "the curated captions (not part of NSD)",
        "download COCO_73k_annots_curated.npy from the Hugging Face dataset pscotti/naturalscenesdataset, or take "
        "captions from COCO's files",
    )
    with whole_file(path, "npy"):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" not in str(error):
                raise
            raise InputError(
                f"{path}: found pickled Python objects, expected plain text (numpy's <U): use the file as it is "
                "published"
            ) from error
    if array.ndim != 2 or array.dtype.kind != "U":
        raise InputError(
            f"{path}: found {array.dtype} of shape {array.shape}, expected text of shape (images, captions): use the "
            "file as it is published"
        )
    if len(stimulus_ids) and stimulus_ids.max() >= len(array):
        raise InputError(
            f"{path}: found {len(array)} images, expected one with the 0-based id {stimulus_ids.max()}: use the file "
            "as it is published"
        )
    captions = {}
    for identity in stimulus_ids:
        found = tuple(tidy for text in array[int(identity)] if (tidy := " ".join(str(text).split())))
        if not found:
            raise InputError(
                f"{path}: found no caption for image id {identity}, expected at least one: take captions from COCO's "
                "files"
            )
        captions[int(identity)] = found
    return captions

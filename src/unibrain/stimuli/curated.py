"""The array of COCO captions curated for NSD's images, as published decoders use it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.files import require_file, whole_file

__all__ = ["read_curated_captions"]


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

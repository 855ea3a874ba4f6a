"""Extracting the four latents of a set of images with the frozen encoders."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import Latents
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion
    from unibrain.stimuli.stimuli import Stimuli

__all__ = ["extract"]


def extract(
    backbone: "VersatileDiffusion",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    batch_size: int = 64,
    caption: Literal["first"] = "first",
    caption_context: Literal["mean", "first"] = "mean",
) -> Latents:
    """Encode pictures and captions into the four latents.

    Parameters
    ----------
    backbone : VersatileDiffusion
        Its encoders are used: AutoKL (`z_image`), Optimus (`z_text`), CLIP (`c_image` and `c_text`).
    stimuli : Stimuli
        Pictures and captions.
    stimulus_ids : sequence of int
        0-based ids of the images to encode, in the order of the result's rows.
    batch_size : int
        Pictures encoded at once, at least 1.
    caption : {"first"}
        Which caption `z_text` encodes. A mean over Optimus latents of differently worded sentences is no sentence.
    caption_context : {"mean", "first"}
        `c_text` is the mean of the contexts of all captions of an image (as in Brain-Diffuser), or that of its first.

    Returns
    -------
    Latents
        float32. A caption that occurs several times is encoded once.

    Raises
    ------
    InputError
        If there is no image, an image is not known, a choice is not one of those named, or the encoders return a
        value that is not finite.
    """
    ids = np.asarray(stimulus_ids, dtype=np.int64)
    if ids.ndim != 1 or len(ids) == 0:
        raise InputError(
            f"stimulus ids have shape {ids.shape}, expected a list of at least one: name the images to encode"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1: choose another")
    if caption != "first":
        raise InputError(f"caption is {caption!r}, expected 'first': choose it")
    if caption_context not in ("mean", "first"):
        raise InputError(f"caption_context is {caption_context!r}, expected 'mean' or 'first': choose one of them")

    captions = [tuple(text for text in texts if text) for texts in stimuli.captions(ids)]
    firsts = [texts[0] for texts in captions]
    contexts = captions if caption_context == "mean" else [texts[:1] for texts in captions]
    encode_first = _EncodeOnce(backbone.encode_captions, firsts)
    encode_context = _EncodeOnce(backbone.caption_contexts, [text for texts in contexts for text in texts])

    z_image, z_text, c_image, c_text = (_Rows(len(ids)) for _ in range(4))
    for start in track(range(0, len(ids), batch_size), "extract latents", unit="batch"):
        batch = slice(start, start + batch_size)
        pictures = stimuli.pictures(ids[batch])
        z_image.put(batch, backbone.encode_pictures(pictures))
        c_image.put(batch, backbone.picture_contexts(pictures))
        z_text.put(batch, encode_first(firsts[batch]))
        every = encode_context([text for texts in contexts[batch] for text in texts])
        ends = np.cumsum([len(texts) for texts in contexts[batch]])
        c_text.put(batch, np.stack([group.mean(axis=0) for group in np.split(every, ends[:-1])]))

    latents = Latents(ids, z_image.array, z_text.array, c_image.array, c_text.array)
    for name, array in latents.items():
        wrong = [int(i) for i, row in zip(ids, array, strict=True) if not np.isfinite(row).all()]
        if wrong:
            raise InputError(
                f"{stimuli.source}: latent {name} of image id {wrong[0]} holds a NaN or infinite value, expected "
                f"finite ones: check that picture and its captions, and the weights of the backbone {backbone.name}"
            )
    return latents


class _Rows:
    """An array whose row shape is known when the first batch arrives; the peak is one array, not two."""

    array: NDArray[np.float32]

    def __init__(self, length: int) -> None:
        self._length = length

    def put(self, rows: slice, values: NDArray[Any]) -> None:
        if not hasattr(self, "array"):
            self.array = np.empty((self._length, *values.shape[1:]), dtype=np.float32)
        self.array[rows] = values


class _EncodeOnce:
    """Encode captions batch by batch; keep those that will come again, and only as long as they will."""

    def __init__(self, encode: Callable[[list[str]], NDArray[np.float32]], captions: Sequence[str]) -> None:
        self._encode = encode
        self._left = Counter(captions)
        self._kept: dict[str, NDArray[np.float32]] = {}

    def __call__(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Encode `captions`; returns one row each."""
        new = [text for text in dict.fromkeys(captions) if text not in self._kept]
        encoded = dict(self._kept)
        if new:
            encoded.update(zip(new, self._encode(new), strict=True))
        rows = np.stack([encoded[text] for text in captions])
        self._left.subtract(captions)
        # Copied, because a row that is a view would keep its whole batch in memory.
        self._kept = {
            text: row if text in self._kept else row.copy() for text, row in encoded.items() if self._left[text] > 0
        }
        return rows

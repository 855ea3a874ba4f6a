"""Extracting the four latents of a set of images with the frozen encoders."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.caption_choice import CaptionChoice, CaptionUse, ContextUse
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.writer import LatentWriter, Precision, Storage
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion
    from unibrain.stimuli.stimuli import Stimuli

__all__ = ["extract", "extract_to"]


def extract(
    backbone: "VersatileDiffusion",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    batch_size: int = 64,
    caption: CaptionUse = "first",
    caption_context: ContextUse = "mean",
    caption_seed: int = 0,
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
    caption : {"first", "random"}
        Which caption of an image `z_text` encodes. A mean over Optimus latents of differently worded sentences is no
        sentence.
    caption_context : {"mean", "first", "random"}
        `c_text` is the mean of the contexts of all captions of an image (as in Brain-Diffuser), or that of one.
    caption_seed : int
        Of random choices; what is drawn for an image depends on it and the image's id alone.

    Returns
    -------
    Latents
        float32. A caption that occurs several times is encoded once. Of stimuli without captions, `z_text` and
        `c_text` are placeholders: zeros of shape (n, 1) and (n, 1, context width), which nothing may be decoded from.

    Raises
    ------
    InputError
        If there is no image, an image is not known, a choice is not one of those named, or the encoders return a
        value that is not finite.
    """
    ids, choice = _checked(stimulus_ids, batch_size), CaptionChoice(caption, caption_context, caption_seed)
    arrays: dict[str, NDArray[np.float32]] = {}
    for start, batch in _batches(backbone, stimuli, ids, batch_size, choice):
        for name, values in batch.items():
            if name not in arrays:
                arrays[name] = np.empty((len(ids), *values.shape[1:]), dtype=np.float32)
            arrays[name][start : start + len(values)] = values
    return Latents(ids, *(arrays[name] for name in LATENT_NAMES))


def extract_to(
    folder: str | os.PathLike[str],
    backbone: "VersatileDiffusion",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    batch_size: int = 64,
    caption: CaptionUse = "first",
    caption_context: ContextUse = "mean",
    storage: Storage = "auto",
    precision: Precision = "float32",
    unfinished: str | os.PathLike[str] | None = None,
    caption_seed: int = 0,
) -> None:
    """Encode pictures and captions as `extract` does, straight into a folder, batch by batch.

    No more than a batch is in memory. A stopped extraction continues after the last batch that was written.

    Parameters
    ----------
    folder : path-like
        Where the latents go; open them with `unibrain.latents.open_latents` or `load_latents`.
    backbone, stimuli, stimulus_ids, batch_size, caption, caption_context, caption_seed
        See `extract`.
    storage, precision, unfinished
        See `unibrain.latents.writer.LatentWriter`.

    Raises
    ------
    InputError
        As `extract` does, and if the disk is full (what was written is kept).
    """
    ids, choice = _checked(stimulus_ids, batch_size), CaptionChoice(caption, caption_context, caption_seed)
    writer = LatentWriter(
        folder,
        ids,
        backbone.name,
        backbone.fingerprint,
        choice.as_dict() if stimuli.has_captions else {"captions": "none"},
        storage=storage,
        precision=precision,
        unfinished=unfinished,
    )
    for start, batch in _batches(backbone, stimuli, ids, batch_size, choice, writer.done.get("rows", 0)):
        writer.begin({name: values.shape[1:] for name, values in batch.items()})
        writer.write_rows(start, batch)
        writer.mark("rows", start + len(batch["z_image"]))
    writer.finish()


def _checked(stimulus_ids: Sequence[int] | NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    ids = np.asarray(stimulus_ids, dtype=np.int64)
    if ids.ndim != 1 or len(ids) == 0:
        raise InputError(
            f"stimulus ids have shape {ids.shape}, expected a list of at least one: name the images to encode"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1: choose another")
    return ids


def _batches(
    backbone: "VersatileDiffusion",
    stimuli: "Stimuli",
    ids: NDArray[np.int64],
    batch_size: int,
    choice: CaptionChoice,
    begin: int = 0,
) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """Latents of one batch after the other, from row `begin` on: its first row, and its values."""
    text = _TextLatents(backbone, stimuli, ids, choice, begin) if stimuli.has_captions else None
    for start in track(range(begin, len(ids), batch_size), "extract latents", unit="batch"):
        batch = slice(start, start + batch_size)
        pictures = stimuli.pictures(ids[batch])
        c_image = backbone.picture_contexts(pictures)
        z_text, c_text = text.of(batch) if text is not None else _placeholders(c_image)
        values = {
            "z_image": backbone.encode_pictures(pictures),
            "z_text": z_text,
            "c_image": c_image,
            "c_text": c_text,
        }
        for name, array in values.items():
            wrong = [int(i) for i, row in zip(ids[batch], array, strict=True) if not np.isfinite(row).all()]
            if wrong:
                raise InputError(
                    f"{stimuli.source}: latent {name} of image id {wrong[0]} holds a NaN or infinite value, expected "
                    "finite ones: check that picture and its captions, and the weights of the backbone "
                    f"{backbone.name}"
                )
        yield start, values


def _placeholders(c_image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    n, _, width = c_image.shape
    return np.zeros((n, 1), dtype=np.float32), np.zeros((n, 1, width), dtype=np.float32)


class _TextLatents:
    """`z_text` and `c_text` of one batch after the other, from row `begin` on."""

    def __init__(
        self,
        backbone: "VersatileDiffusion",
        stimuli: "Stimuli",
        ids: NDArray[np.int64],
        choice: CaptionChoice,
        begin: int,
    ) -> None:
        captions = [tuple(text for text in texts if text) for texts in stimuli.captions(ids)]
        self._whole, self._contexts = choice.of(ids, captions)
        self._encode_whole = _EncodeOnce(backbone.encode_captions, self._whole[begin:])
        left = [text for texts in self._contexts[begin:] for text in texts]
        self._encode_context = _EncodeOnce(backbone.caption_contexts, left)

    def of(self, batch: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        contexts = self._contexts[batch]
        every = self._encode_context([text for texts in contexts for text in texts])
        ends = np.cumsum([len(texts) for texts in contexts])
        c_text = np.stack([group.mean(axis=0) for group in np.split(every, ends[:-1])])
        return self._encode_whole(self._whole[batch]), c_text


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

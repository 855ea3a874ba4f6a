"""Extracting the latents of a set of images with the frozen encoders."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.table import LATENTS, Latents
from unibrain.latents.writer import LatentWriter, Precision, Storage
from unibrain.workspace.files import atomic_path
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import Backbone
    from unibrain.stimuli import Stimuli

Array = NDArray[np.float32]
CaptionUse = Literal["first", "random"]
ContextUse = Literal["mean", "first", "random"]


def extract(
    backbone: "Backbone",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    batch_size: int = 64,
    caption: CaptionUse = "first",
    caption_context: ContextUse = "mean",
    caption_seed: int = 0,
) -> Latents:
    """Encode pictures and captions into the latents of `LATENTS`.

    Parameters
    ----------
    backbone : Backbone
        Its encoders are used.
    stimuli : Stimuli
        Pictures and captions.
    stimulus_ids : sequence of int
        0-based ids of the images to encode, in the order of the result's rows.
    batch_size : int
        Pictures encoded at once, at least 1.
    caption : {"first", "random"}
        Which caption of an image a latent that starts a flow encodes (`z_text`). A mean over Optimus latents of
        differently worded sentences is no sentence.
    caption_context : {"mean", "first", "random"}
        A latent that guides (`c_text`) is the mean over all captions of an image (as in Brain-Diffuser), or that of
        one. Where both are random, it is the same caption.
    caption_seed : int
        Seed of random choices, at least 0. What is drawn for an image depends on it and the image's id alone.

    Returns
    -------
    Latents
        float32. Stimuli without captions have no latents that come from captions.

    Raises
    ------
    InputError
        If there is no image, an image is not known, a choice is not one of those named, or the encoders return a
        value that is not finite.
    """
    together = images_together(stimulus_ids, batch_size)
    plan = _Plan(backbone, stimuli, together, stimulus_ids, caption, caption_context, caption_seed)
    arrays: dict[str, Array] = {}
    for start, batch in plan.encode():
        for name, values in batch.items():
            whole = arrays.setdefault(name, np.empty((len(plan.ids), *values.shape[1:]), dtype=np.float32))
            whole[start : start + len(values)] = values
    return Latents(plan.ids, arrays)


def extract_to(
    folder: str | os.PathLike[str],
    backbone: "Backbone",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    batch_size: int = 64,
    caption: CaptionUse = "first",
    caption_context: ContextUse = "mean",
    caption_seed: int = 0,
    *,
    storage: Storage = "auto",
    precision: Precision = "float32",
    unfinished: str | os.PathLike[str] | None = None,
    common: Sequence[int] | NDArray[np.int64] = (),
    kept: Path | None = None,
    kept_common: Path | None = None,
) -> None:
    """Encode pictures and captions as `extract` does, straight into a folder, batch by batch.

    No more than a batch is in memory. A stopped extraction continues after the last batch that was written.

    Parameters
    ----------
    folder : path-like
        Where the latents go; open them with `open_latents` or `load_latents`.
    backbone, stimuli, stimulus_ids, batch_size, caption, caption_context, caption_seed
        See `extract`.
    storage, precision, unfinished
        See `LatentWriter`.
    common : sequence of int
        Images that other subjects see as well, see `images_together`; they become the first rows.
    kept, kept_common : pathlib.Path, optional
        A folder of encoded batches, see `keep_batch`, and that of the batches of common images: what is there is not
        encoded again, and what is encoded is kept.

    Raises
    ------
    InputError
        As `extract` does, and if the disk is full (what was written is kept).
    """
    together = images_together(stimulus_ids, batch_size, common)
    plan = _Plan(backbone, stimuli, together, stimulus_ids, caption, caption_context, caption_seed)
    writer = LatentWriter(
        folder,
        plan.ids,
        backbone.name,
        backbone.fingerprint,
        {"caption": caption, "caption_context": caption_context, "caption_seed": caption_seed},
        storage=storage,
        precision=precision,
        key=str(batch_size),  # other batches may round differently
        unfinished=unfinished,
    )
    for start, batch in plan.encode(writer.done.get("rows", 0), kept, kept_common):
        writer.begin({name: values.shape[1:] for name, values in batch.items()})
        writer.write_rows(start, batch)
        writer.mark("rows", start + len(next(iter(batch.values()))))
    writer.finish()


def keep_batch(
    kept: Path,
    backbone: "Backbone",
    stimuli: "Stimuli",
    stimulus_ids: Sequence[int] | NDArray[np.int64],
    caption: CaptionUse = "first",
    caption_context: ContextUse = "mean",
    caption_seed: int = 0,
) -> None:
    """Encode one batch for `extract_to`, and keep it in a folder, unless it is there.

    Its name is made of the pictures, the captions that are encoded, and the backbone, so that runs on the same pictures
    can share the folder.

    Parameters
    ----------
    kept : pathlib.Path
        The folder.
    backbone, stimuli, stimulus_ids, caption, caption_context, caption_seed
        See `extract`; all images are one batch.
    """
    together = images_together(stimulus_ids, len(stimulus_ids))
    plan = _Plan(backbone, stimuli, together, stimulus_ids, caption, caption_context, caption_seed)
    plan.batch(together.own[0], kept)


@dataclass(frozen=True)
class Together:
    """Images that are encoded together, each an array of ids: batches of common ones, and of a subject's own."""

    common: tuple[NDArray[np.int64], ...]
    own: tuple[NDArray[np.int64], ...]

    @property
    def ids(self) -> NDArray[np.int64]:
        """All of them, in this order."""
        return np.concatenate([*self.common, *self.own])


def images_together(
    stimulus_ids: Sequence[int] | NDArray[np.int64], batch_size: int, common: Sequence[int] | NDArray[np.int64] = ()
) -> Together:
    """Which images are encoded together.

    Rounding depends on it, so it must not depend on who else is there: batches of `common` images are the same for all
    subjects, whether or not one has seen every image in them, and can be encoded once for all. A batch of which a
    subject has seen less than half is not worth it: these images are among its own.

    Examples
    --------
    >>> images_together([1, 2, 5, 6, 8], 2, common=[1, 3, 6, 8, 9, 10, 11])
    Together(common=(array([1, 3]), array([6, 8])), own=(array([2, 5]),))
    """
    ids = np.asarray(stimulus_ids, dtype=np.int64)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: choose at least 1")
    if ids.ndim != 1 or len(ids) == 0:
        raise InputError("there is no image to encode: name at least one stimulus id")

    def cut(some: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [some[start : start + batch_size] for start in range(0, len(some), batch_size)]

    whole = [batch for batch in cut(np.unique(common).astype(np.int64)) if 2 * np.isin(batch, ids).sum() >= len(batch)]
    own = ids[~np.isin(ids, np.concatenate(whole))] if whole else ids
    return Together(tuple(whole), tuple(cut(own)))


class _Plan:
    """What is encoded, in which batches, and what of it is wanted."""

    def __init__(
        self,
        backbone: "Backbone",
        stimuli: "Stimuli",
        together: Together,
        stimulus_ids: Sequence[int] | NDArray[np.int64],
        caption: CaptionUse,
        caption_context: ContextUse,
        caption_seed: int,
    ) -> None:
        for option, value, choices in (
            ("caption", caption, get_args(CaptionUse)),
            ("caption_context", caption_context, get_args(ContextUse)),
        ):
            if value not in choices:
                raise InputError(f"{option} is {value!r}: choose one of {', '.join(choices)}")
        if caption_seed < 0:
            raise InputError(f"caption_seed is {caption_seed}: choose at least 0")
        self._backbone, self._stimuli, self._together = backbone, stimuli, together
        encoded = together.ids
        self._wanted = np.isin(encoded, np.asarray(stimulus_ids, dtype=np.int64))
        self.ids = encoded[self._wanted]
        self._rows = [row for row in LATENTS.values() if row.source == "picture" or stimuli.has_captions]
        self._texts: dict[str, dict[int, tuple[str, ...]]] = {}
        if stimuli.has_captions:
            captions = [tuple(filter(None, texts)) for texts in stimuli.captions(encoded)]
            for row in self._rows:
                if row.source == "caption":
                    use = caption_context if row.guides else caption
                    self._texts[row.name] = {
                        image: used_captions(use, caption_seed, image, texts)
                        for image, texts in zip(encoded.tolist(), captions, strict=True)
                    }

    def encode(
        self, begin: int = 0, kept: Path | None = None, kept_common: Path | None = None
    ) -> Iterator[tuple[int, dict[str, Array]]]:
        """Latents of one batch after the other, from row `begin` on: its first row, and the values that are wanted.

        What is encoded together depends on the batch alone, so that a stop in the middle changes nothing.
        """
        batches = [*self._together.common, *self._together.own]
        wanted = np.split(self._wanted, np.cumsum([len(batch) for batch in batches])[:-1])
        starts = np.cumsum([0, *(rows.sum() for rows in wanted)])
        folders = [kept_common] * len(self._together.common) + [kept] * len(self._together.own)
        left = [number for number in range(len(batches)) if starts[number] >= begin and wanted[number].any()]
        for number in track(left, "extract latents", unit="batch"):
            values = self.batch(batches[number], folders[number])
            yield int(starts[number]), {name: array[wanted[number]] for name, array in values.items()}

    def batch(self, batch: NDArray[np.int64], kept: Path | None) -> dict[str, Array]:
        """Latents of one batch; read from the folder `kept` if they are there, else kept there."""
        pictures = self._stimuli.pictures(batch)
        texts = {name: [known[image] for image in batch.tolist()] for name, known in self._texts.items()}
        if kept is None:
            return self._encode(batch, pictures, texts)
        about = [self._backbone.fingerprint, self._backbone.precision, [row.name for row in self._rows]]
        file = kept / f"{digest(about, pictures, texts)[:32]}.safetensors"
        found = _read_batch(file, [row.name for row in self._rows], len(pictures))
        if found is None:
            from safetensors.numpy import save_file

            found = self._encode(batch, pictures, texts)
            with atomic_path(file) as temporary:
                save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, temporary)
        return found

    def _encode(
        self, batch: NDArray[np.int64], pictures: NDArray[np.uint8], texts: Mapping[str, list[tuple[str, ...]]]
    ) -> dict[str, Array]:
        values = {}
        for row in self._rows:
            if row.source == "picture":
                values[row.name] = self._backbone.encode(row.name, pictures)
            else:
                values[row.name] = encode_means(self._backbone, row.name, texts[row.name])
        for name, array in values.items():
            finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if not finite.all():
                raise InputError(
                    f"{self._stimuli.source}: latent {name} of image id {batch[~finite][0]} is not "
                    "finite. Check that picture and its captions, and the weights of the backbone "
                    f"{self._backbone.name}"
                )
        return values


def _read_batch(file: Path, names: Sequence[str], rows: int) -> dict[str, Array] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(file)
        batch = {name: found[name] for name in names}
    except (OSError, SafetensorError, ValueError, KeyError):  # not there, or cut off: it is encoded again
        return None
    return batch if all(len(array) == rows for array in batch.values()) else None


def used_captions(use: str, seed: int, stimulus_id: int, captions: tuple[str, ...]) -> tuple[str, ...]:
    """The captions of one image that are encoded; a random one depends on seed and image alone."""
    if use == "mean":
        return captions
    if use == "first":
        return captions[:1]
    drawn = int(np.random.SeedSequence((seed, stimulus_id)).generate_state(1, np.uint64)[0]) % len(captions)
    return captions[drawn : drawn + 1]


def encode_means(backbone: "Backbone", name: str, groups: Sequence[tuple[str, ...]]) -> Array:
    """Mean latent of each group of captions; a caption that occurs several times is encoded once."""
    texts = list(dict.fromkeys(text for group in groups for text in group))
    encoded = dict(zip(texts, backbone.encode(name, texts), strict=True))
    return np.stack([np.stack([encoded[text] for text in group]).mean(axis=0) for group in groups])

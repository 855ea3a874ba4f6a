"""From predicted latents to pictures and captions: in batches, seeded per scan, resumable."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import Latents
from unibrain.reconstruction.cache import item_keys, load_caption, load_picture, store_caption, store_picture
from unibrain.reconstruction.decoded import Decoded
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion
    from unibrain.backbone.sampler import SamplingSettings

__all__ = ["reconstruct", "scan_seeds"]

T = TypeVar("T")

KINDS = ("picture", "caption")


def scan_seeds(seed: int, stimulus_ids: NDArray[np.int64], kind: str) -> NDArray[np.int64]:
    """Seed of the noise of each scan.

    Parameters
    ----------
    seed : int
        Seed of the run, at least 0.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each scan, at least 0.
    kind : {"picture", "caption"}
        The two flows of one scan get independent noise.

    Returns
    -------
    ndarray of shape (n,), int64
        At least 0. It depends on `seed`, `kind` and the image only (`numpy.random.SeedSequence`), so a scan is decoded
        to the same result alone, in any batch, and in any order.

    Raises
    ------
    InputError
        If `seed` or an id is negative.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}, expected at least 0: choose another")
    if (stimulus_ids < 0).any():
        raise InputError(f"image id {stimulus_ids.min()} is negative, expected 0-based ids: check the ids of the scans")
    entropy = (np.random.SeedSequence((seed, KINDS.index(kind), int(i))) for i in stimulus_ids)
    # torch takes seeds as int64: the highest bit is dropped.
    return np.array([sequence.generate_state(1, np.uint64)[0] >> np.uint64(1) for sequence in entropy], dtype=np.int64)


def reconstruct(
    backbone: "VersatileDiffusion",
    latents: Latents,
    image_settings: "SamplingSettings | None" = None,
    text_settings: "SamplingSettings | None" = None,
    seed: int = 0,
    batch_size: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    captions: bool = True,
) -> Decoded:
    """Decode a picture and a caption for every scan.

    Parameters
    ----------
    backbone : VersatileDiffusion
        The frozen network.
    latents : Latents
        Predicted latents, one row per scan.
    image_settings, text_settings : SamplingSettings, optional
        How the two flows sample; the backbone's recommended settings if not given.
    seed : int
        Seed of the noise; every scan's own seed is derived from it (see `scan_seeds`).
    batch_size : int, optional
        Scans decoded at once, at least 1; what fits into memory if not given. It does not change the result beyond
        rounding.
    cache : path-like, optional
        A folder where each picture and caption is kept as soon as it is decoded. Run again with the same latents,
        backbone, settings and seed, and only what is not there is decoded; other items are left alone.
    captions : bool
        False decodes pictures only, for latents that were learnt without captions: every caption is then empty, and
        `image_settings` must give the image all the weight.

    Returns
    -------
    Decoded

    Raises
    ------
    InputError
        If there is no scan, a latent is not finite, or a number is out of range.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1: choose another")
    if len(latents) == 0:
        raise InputError(
            "there are 0 scans to decode, expected at least one: check the split into training and test images"
        )
    for name, array in latents.items():
        wrong = [int(i) for i, row in zip(latents.stimulus_ids, array, strict=True) if not np.isfinite(row).all()]
        if wrong:
            raise InputError(
                f"predicted latent {name} of image id {wrong[0]} holds a NaN or infinite value, expected finite ones: "
                "fit and predict again"
            )
    image_settings = backbone.image_settings if image_settings is None else image_settings
    if not captions and image_settings.image_weight != 1:
        raise InputError(
            f"image_weight is {image_settings.image_weight} and the latents have no captions behind them, expected 1: "
            "give the image all the weight"
        )
    text_settings = backbone.text_settings if text_settings is None else text_settings
    folder = None if cache is None else Path(cache)

    def pictures(rows: NDArray[np.int64], seeds: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        part = latents.rows(rows)
        return list(backbone.sample_pictures(part.z_image, part.c_image, part.c_text, image_settings, seeds))

    def sentences(rows: NDArray[np.int64], seeds: NDArray[np.int64]) -> list[str]:
        part = latents.rows(rows)
        return backbone.sample_captions(part.z_text, part.c_image, part.c_text, text_settings, seeds)

    def decode(
        kind: str,
        settings: "SamplingSettings",
        sample: Callable[[NDArray[np.int64], NDArray[np.int64]], list[T]],
        load: Callable[[Path, str], T | None],
        store: Callable[[Path, str, T], None],
    ) -> list[T]:
        seeds = scan_seeds(seed, latents.stimulus_ids, kind)
        # Items of another precision are other items.
        weights = backbone.fingerprint + ("" if backbone.precision == "fp32" else f" {backbone.precision}")
        keys = item_keys(kind, latents, settings, weights, seeds) if folder is not None else []
        done = {row: item for row, key in enumerate(keys) if folder and (item := load(folder, key)) is not None}
        left = np.array([row for row in range(len(latents)) if row not in done], dtype=np.int64)
        size = batch_size or backbone.scans_at_once("pictures" if kind == "picture" else "captions")
        items = _by_item(lambda rows: sample(rows, seeds[rows]), left, size)
        for row, item in track(items, f"decode {kind}s", total=len(left), unit=kind):
            if folder is not None:
                store(folder, keys[row], item)
            done[row] = item
        return [done[row] for row in range(len(latents))]

    decoded_pictures = decode("picture", image_settings, pictures, load_picture, store_picture)
    decoded_captions = [""] * len(latents)
    if captions:
        decoded_captions = decode("caption", text_settings, sentences, load_caption, store_caption)
    return Decoded(np.array(latents.stimulus_ids), np.stack(decoded_pictures), tuple(decoded_captions))


def _by_item(
    sample: Callable[[NDArray[np.int64]], list[T]], rows: NDArray[np.int64], batch_size: int
) -> Iterator[tuple[int, T]]:
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield from zip(batch.tolist(), sample(batch), strict=True)

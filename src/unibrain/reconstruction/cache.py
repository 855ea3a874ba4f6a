"""Decoded items kept one by one while a run goes on, so that a killed run continues at the item."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import Latents
from unibrain.reconstruction.store import read_picture, write_picture
from unibrain.workspace.files import atomic_path, write_json

if TYPE_CHECKING:
    from unibrain.backbone.sampler import SamplingSettings

__all__ = ["item_keys", "load_caption", "load_picture", "store_caption", "store_picture"]

VERSION = 1


def item_keys(
    kind: str, latents: Latents, settings: "SamplingSettings", fingerprint: str, seeds: NDArray[np.int64]
) -> list[str]:
    """Name of each item: a digest of everything that its picture or caption depends on.

    Parameters
    ----------
    kind : {"picture", "caption"}
    latents : Latents
        Predicted latents, one row per scan.
    settings : SamplingSettings
    fingerprint : str
        Of the backbone.
    seeds : ndarray of shape (n,), int64
        One per scan.

    Returns
    -------
    list of str
        Hexadecimal sha256, one per scan.
    """
    names = ("z_image" if kind == "picture" else "z_text", "c_image", "c_text")
    common = json.dumps([VERSION, kind, fingerprint, asdict(settings)], sort_keys=True)
    keys = []
    for row, seed in enumerate(seeds):
        digest = hashlib.sha256(f"{common} {int(seed)}".encode())
        for name in names:
            item = np.ascontiguousarray(latents[name][row], dtype=np.float32)
            digest.update(f" {name} {item.shape} ".encode())
            digest.update(item.tobytes())
        keys.append(digest.hexdigest())
    return keys


def load_picture(folder: Path, key: str) -> NDArray[np.uint8] | None:
    """The picture kept under `key`: uint8 RGB of shape (height, width, 3); None if there is none that is whole."""
    try:
        return read_picture(folder / f"{key}.png")
    except InputError:
        # An item that cannot be read is an item that is not there: decoding it again gives the same picture.
        return None


def store_picture(folder: Path, key: str, picture: NDArray[np.uint8]) -> None:
    """Keep a picture under `key`, atomically."""
    with atomic_path(folder / f"{key}.png") as temporary:
        write_picture(temporary, picture)


def load_caption(folder: Path, key: str) -> str | None:
    """The caption kept under `key`; None if there is none that is whole."""
    try:
        entry = json.loads((folder / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return None
    caption = entry.get("caption") if isinstance(entry, dict) else None
    return caption if isinstance(caption, str) else None


def store_caption(folder: Path, key: str, caption: str) -> None:
    """Keep a caption under `key`, atomically."""
    write_json(folder / f"{key}.json", {"caption": caption})

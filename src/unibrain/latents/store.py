"""Latents on disk: a folder with one array per latent (``.npy`` or zarr), and a manifest that vouches for them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.manifest import ARRAYS, MANIFEST, manifest_of, read_manifest
from unibrain.latents.stored import open_latents
from unibrain.workspace.files import atomic_folder, write_json

__all__ = ["load_latents", "read_manifest", "save_latents"]


def save_latents(
    folder: str | os.PathLike[str],
    latents: Latents,
    backbone: str,
    fingerprint: str,
    choices: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write latents that are in memory, as ``.npy``; `unibrain.latents.writer.LatentWriter` writes part by part.

    Parameters
    ----------
    folder : path-like
        What it held before is replaced as a whole.
    latents : Latents
        Stored as float32, in C order.
    backbone : str
        Name of the backbone whose encoders made them.
    fingerprint : str
        sha256 of its weights and configuration.
    choices : mapping, optional
        Named choices of the extraction, for the record.

    Raises
    ------
    InputError
        If the disk is full.
    """
    about = {"backbone": backbone, "fingerprint": fingerprint, "choices": dict(choices or {})}
    with atomic_folder(folder) as temporary:
        shapes, dtypes = {}, {}
        for name in ARRAYS:
            dtype = np.int64 if name == "stimulus_ids" else np.float32
            array: NDArray[Any] = np.asarray(latents.stimulus_ids if name == "stimulus_ids" else latents[name])
            np.save(temporary / f"{name}.npy", np.ascontiguousarray(array, dtype=dtype), allow_pickle=False)
            shapes[name], dtypes[name] = array.shape, np.dtype(dtype).name
        write_json(temporary / MANIFEST, manifest_of(temporary, "npy", shapes, dtypes, about))


def load_latents(folder: str | os.PathLike[str], fingerprint: str | None = None, verify: bool = True) -> Latents:
    """Open stored latents as arrays: read-only memory maps of ``.npy`` files; zarr arrays are read into memory.

    `unibrain.latents.open_latents` opens either without reading them, for what goes through them in blocks.

    Parameters
    ----------
    folder : path-like
    fingerprint : str, optional
        Fingerprint of the backbone that they must come from.
    verify : bool
        Compare the checksum of every file (reads all of it once); sizes and shapes are compared in any case.

    Returns
    -------
    Latents

    Raises
    ------
    InputError
        If a file is missing, truncated or changed since it was written, or the backbone is another one.
    """
    stored = open_latents(folder, fingerprint, verify)
    if not all(isinstance(stored.arrays[name], np.ndarray) for name in LATENT_NAMES):
        return stored.read()
    arrays = (stored.arrays[name].reshape(len(stored), *stored.shapes[name]) for name in LATENT_NAMES)
    return Latents(stored.stimulus_ids, *arrays)

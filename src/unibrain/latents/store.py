"""Latents on disk: a folder with one memory-mapped ``.npy`` per latent, and a manifest that vouches for them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.workspace.atomic import atomic_folder, write_json

__all__ = ["load_latents", "read_manifest", "save_latents"]

FORMAT = "unibrain-latents"
VERSION = 1
ARRAYS = ("stimulus_ids", *LATENT_NAMES)


def save_latents(
    folder: str | os.PathLike[str],
    latents: Latents,
    backbone: str,
    fingerprint: str,
    choices: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write latents.

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
    with atomic_folder(folder) as temporary:
        files = {}
        for name in ARRAYS:
            path = temporary / f"{name}.npy"
            dtype = np.int64 if name == "stimulus_ids" else np.float32
            array: NDArray[Any] = np.asarray(latents.stimulus_ids if name == "stimulus_ids" else latents[name])
            np.save(path, np.ascontiguousarray(array, dtype=dtype), allow_pickle=False)
            files[name] = {
                "shape": list(array.shape),
                "dtype": np.dtype(dtype).name,
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "backbone": backbone,
            "fingerprint": fingerprint,
            "choices": dict(choices or {}),
            "files": files,
        }
        write_json(temporary / "manifest.json", manifest)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Manifest of a folder that `save_latents` wrote.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict
        Keys ``format``, ``version``, ``backbone``, ``fingerprint``, ``choices``, and ``files`` with ``shape``,
        ``dtype``, ``bytes`` and ``sha256`` for ``stimulus_ids`` and every latent.

    Raises
    ------
    InputError
        If it is missing, not readable, or of another version.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no latents there (manifest.json is missing), expected a folder of them: extract them"
        )
    try:
        manifest = json.loads(path.read_bytes())
        found = manifest["format"], manifest["version"]
        texts = [manifest["backbone"], manifest["fingerprint"], *(manifest["files"][name]["sha256"] for name in ARRAYS)]
        sizes = [manifest["files"][name]["bytes"] for name in ARRAYS]
        valid = all(isinstance(text, str) for text in texts) and all(isinstance(size, int) for size in sizes)
    except (ValueError, KeyError, TypeError):
        valid, found = False, (None, None)
    if found[0] == FORMAT and found[1] != VERSION:
        raise InputError(f"{path}: latents of format version {found[1]}, expected {VERSION}: extract them again")
    if not valid or found[0] != FORMAT:
        raise InputError(f"{path}: corrupted cache, not a manifest of latents, expected one: extract the latents again")
    return dict(manifest)


def load_latents(folder: str | os.PathLike[str], fingerprint: str | None = None, verify: bool = True) -> Latents:
    """Open latents that `save_latents` wrote, as read-only memory maps.

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
    manifest = read_manifest(folder)
    if fingerprint is not None and manifest["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}: latents of another backbone ({manifest['backbone']}, {manifest['fingerprint'][:12]}), expected "
            f"fingerprint {fingerprint[:12]}: extract them again with this backbone"
        )
    arrays = {}
    for name in ARRAYS:
        # File names are ours, never the manifest's.
        path, known = Path(folder) / f"{name}.npy", manifest["files"][name]
        if not path.is_file():
            raise InputError(f"{path}: corrupted cache, the file is missing, expected it: extract the latents again")
        size = path.stat().st_size
        if size != known["bytes"]:
            raise InputError(
                f"{path}: corrupted cache, {size} bytes found, expected {known['bytes']}: extract the latents again"
            )
        if verify and _sha256(path) != known["sha256"]:
            raise InputError(
                f"{path}: corrupted cache, the content does not match its checksum, expected an unchanged file: "
                "extract the latents again"
            )
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise InputError(
                f"{path}: corrupted cache ({error}), expected an array: extract the latents again"
            ) from error
        if list(arrays[name].shape) != known.get("shape") or arrays[name].dtype.name != known.get("dtype"):
            raise InputError(
                f"{path}: corrupted cache, {arrays[name].dtype} of shape {arrays[name].shape} found, expected "
                f"{known.get('dtype')} of shape {known.get('shape')}: extract the latents again"
            )
    return Latents(np.array(arrays["stimulus_ids"]), *(arrays[name] for name in LATENT_NAMES))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

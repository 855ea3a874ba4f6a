"""What vouches for stored latents: one JSON file with shape, type, size and checksum of every array."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES

__all__ = [
    "ARRAYS",
    "FORMAT",
    "VERSION",
    "array_path",
    "checked",
    "digest",
    "manifest_of",
    "parse_manifest",
    "read_manifest",
]

FORMAT = "unibrain-latents"
VERSION = 2
ARRAYS = ("stimulus_ids", *LATENT_NAMES)
MANIFEST = "manifest.json"
GROUP = "arrays.zarr"


def array_path(folder: Path, name: str, storage: str) -> Path:
    """Where an array lies; file names are ours, never the manifest's."""
    return folder / GROUP / name if storage == "zarr" and name in LATENT_NAMES else folder / f"{name}.npy"


def digest(path: Path) -> tuple[int, str]:
    """Bytes and sha256 of a file; of a folder, those of all files below it with their names."""
    if path.is_file():
        with path.open("rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    whole, size = hashlib.sha256(), 0
    for file_path in sorted(inner for inner in path.rglob("*") if inner.is_file()):
        length, content = digest(file_path)
        whole.update(f"{file_path.relative_to(path).as_posix()} {length} {content}\n".encode())
        size += length
    return size, whole.hexdigest()


def manifest_of(
    folder: Path,
    storage: str,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe the arrays in `folder`; reads them once for their checksums."""
    files = {}
    for name in ARRAYS:
        size, checksum = digest(array_path(folder, name, storage))
        files[name] = {"shape": list(shapes[name]), "dtype": dtypes[name], "bytes": size, "sha256": checksum}
    return {"format": FORMAT, "version": VERSION, "storage": storage, **about, "files": files}


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Manifest of a folder of latents.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict
        Keys ``format``, ``version``, ``storage`` (``"npy"`` or ``"zarr"``), ``backbone``, ``fingerprint``,
        ``choices``, and ``files`` with ``shape``, ``dtype``, ``bytes`` and ``sha256`` for ``stimulus_ids`` and every
        latent.

    Raises
    ------
    InputError
        If it is missing, not readable, or of another version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder}: no latents there (manifest.json is missing), expected a folder of them: extract them"
        )
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, source: str) -> dict[str, Any]:
    """Check a manifest's text; `source` is what a message calls it. See `read_manifest`."""
    try:
        manifest = json.loads(content)
        found = manifest["format"], manifest["version"]
        manifest.setdefault("storage", "npy")
        texts = [manifest["backbone"], manifest["fingerprint"], *(manifest["files"][name]["sha256"] for name in ARRAYS)]
        sizes = [manifest["files"][name]["bytes"] for name in ARRAYS]
        valid = all(isinstance(text, str) for text in texts) and all(isinstance(size, int) for size in sizes)
        valid = valid and manifest["storage"] in ("npy", "zarr")
    except (ValueError, KeyError, TypeError, AttributeError):
        valid, found = False, (None, None)
    # Version 1 is version 2 without the key "storage".
    if found[0] == FORMAT and found[1] not in (1, VERSION):
        raise InputError(f"{source}: latents of format version {found[1]}, expected {VERSION}: extract them again")
    if not valid or found[0] != FORMAT:
        raise InputError(
            f"{source}: corrupted cache, not a manifest of latents, expected one: extract the latents again"
        )
    return dict(manifest)


def checked(folder: Path, name: str, manifest: Mapping[str, Any], verify: bool) -> Path:
    """Path of an array that is as the manifest says: there, of that size and, with `verify`, of that checksum.

    Raises
    ------
    InputError
        If it is missing, truncated or changed since it was written.
    """
    path, known = array_path(folder, name, manifest["storage"]), manifest["files"][name]
    if not path.exists():
        raise InputError(f"{path}: corrupted cache, the file is missing, expected it: extract the latents again")
    if path.is_file():
        size = path.stat().st_size
    else:
        size = sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
    if size != known["bytes"]:
        raise InputError(
            f"{path}: corrupted cache, {size} bytes found, expected {known['bytes']}: extract the latents again"
        )
    if verify and digest(path)[1] != known["sha256"]:
        raise InputError(
            f"{path}: corrupted cache, the content does not match its checksum, expected an unchanged file: "
            "extract the latents again"
        )
    return path

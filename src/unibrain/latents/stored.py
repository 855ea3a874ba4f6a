"""`StoredLatents`: latents that stay on disk, or on an object store, and are read in blocks of columns."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.columns import LatentColumns
from unibrain.latents.latents import LATENT_NAMES, Latents, rows_of
from unibrain.latents.manifest import GROUP, MANIFEST, checked, parse_manifest, read_manifest

__all__ = ["StoredLatents", "open_latents", "reopen_latents"]


@dataclass(frozen=True)
class StoredLatents:
    """The four latents of a set of images, where they are stored.

    Attributes
    ----------
    folder : str
        The folder, or the address on an object store.
    manifest_sha256 : str
        Checksum of the manifest, which holds the checksums of the arrays: it stands for their content.
    signature : str
        Checksum of sizes and times of change of the files; empty on an object store.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row; the same image may have several rows.
    shapes : mapping of str to tuple of int
        Shape of one image's latent.
    arrays : mapping of str to array
        Memory maps or zarr arrays of shape (images in the store, dimensions).
    row_numbers : ndarray of shape (n,), int64
        Rows of the store that these latents are, in this order.
    """

    folder: str
    manifest_sha256: str
    signature: str
    stimulus_ids: NDArray[np.int64]
    shapes: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, Any]
    row_numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def columns(self, name: str) -> LatentColumns:
        """One latent, to be read in blocks of columns."""
        return LatentColumns(self.arrays[name], self.row_numbers)

    def at(self, row_numbers: NDArray[np.int64]) -> "StoredLatents":
        """Some of these rows, by position, in that order; nothing is read.

        Raises
        ------
        InputError
            If a position is out of range.
        """
        wrong = row_numbers[(row_numbers < 0) | (row_numbers >= len(self))]
        if len(wrong):
            raise InputError(
                f"{self.folder}: row {wrong[0]} is asked for and there are {len(self)} rows of latents, expected one "
                "of them: extract the latents again"
            )
        return replace(self, stimulus_ids=self.stimulus_ids[row_numbers], row_numbers=self.row_numbers[row_numbers])

    def select(self, stimulus_ids: NDArray[np.int64]) -> "StoredLatents":
        """The rows of `stimulus_ids`, in that order, an id as often as it is named; nothing is read.

        Raises
        ------
        InputError
            If one of them is not there.
        """
        return self.at(rows_of(self.stimulus_ids, stimulus_ids))

    def read(self) -> Latents:
        """All of these rows, in memory, as float32."""
        arrays = []
        for name in LATENT_NAMES:
            columns = self.columns(name)
            array = np.asarray(columns[:, 0 : columns.shape[1]], dtype=np.float32)
            arrays.append(array.reshape(len(self), *self.shapes[name]))
        return Latents(self.stimulus_ids, *arrays)


def open_latents(folder: str | os.PathLike[str], fingerprint: str | None = None, verify: bool = False) -> StoredLatents:
    """Open stored latents without reading them.

    Parameters
    ----------
    folder : path-like or str
        A folder, or the address of one on an object store (``s3://...``; it needs zarr arrays, `fsspec` and its driver
        for that store).
    fingerprint : str, optional
        Fingerprint of the backbone that they must come from.
    verify : bool
        Compare the checksum of every array (reads all of them once). Sizes and shapes are compared in any case. On an
        object store only shapes are.

    Returns
    -------
    StoredLatents

    Raises
    ------
    InputError
        If something is missing, truncated or changed since it was written, or comes from another backbone.
    """
    if "://" in str(folder):
        return _open_address(str(folder), fingerprint)
    path = Path(folder)
    manifest = read_manifest(path)
    _check_backbone(str(path), manifest, fingerprint)
    paths = {name: checked(path, name, manifest, verify) for name in manifest["files"]}
    ids = _npy(paths["stimulus_ids"])
    arrays = {
        name: _npy(paths[name]) if manifest["storage"] == "npy" else _zarr(str(paths[name])) for name in LATENT_NAMES
    }
    return _stored(str(path), (path / MANIFEST).read_bytes(), manifest, np.array(ids), arrays, _signature(path))


def reopen_latents(folder: str | os.PathLike[str], manifest_sha256: str, signature: str) -> StoredLatents:
    """Open latents that were open before, if they are still the same.

    What lies there with the same sizes and times of change is taken to be the same; if a time differs (a copy, or a
    change), all is read and compared with its checksums.

    Parameters
    ----------
    folder : path-like or str
    manifest_sha256, signature : str
        As `StoredLatents` had them.

    Returns
    -------
    StoredLatents

    Raises
    ------
    InputError
        If they are not there, or others.
    """
    stored = open_latents(folder)
    if stored.manifest_sha256 != manifest_sha256:
        raise InputError(
            f"{folder}: other latents than before (their manifest has changed), expected those that the decoder was "
            "fitted to: fit again, or put the former ones back"
        )
    return stored if stored.signature == signature else open_latents(folder, verify=True)


def _stored(
    folder: str,
    text: bytes,
    manifest: Mapping[str, Any],
    ids: NDArray[np.int64],
    arrays: Mapping[str, Any],
    signature: str = "",
) -> StoredLatents:
    flat, shapes = {}, {}
    for name, array in (("stimulus_ids", ids), *arrays.items()):
        known = manifest["files"][name]
        wanted = tuple(known.get("shape") or ())
        # A zarr array is stored flattened, so that a block of columns is a few whole chunks.
        expected = wanted if isinstance(array, np.ndarray) else (*wanted[:1], int(np.prod(wanted[1:])))
        if tuple(array.shape) != expected or np.dtype(array.dtype).name != known.get("dtype"):
            raise InputError(
                f"{folder}: corrupted cache, {name} is {array.dtype} of shape {tuple(array.shape)}, expected "
                f"{known.get('dtype')} of shape {expected}: extract the latents again"
            )
        if name != "stimulus_ids":
            shapes[name] = wanted[1:]
            flat[name] = array.reshape(wanted[0], -1) if isinstance(array, np.ndarray) else array
    checksum = hashlib.sha256(text).hexdigest()
    return StoredLatents(folder, checksum, signature, ids, shapes, flat, np.arange(len(ids)))


def _signature(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(inner for inner in folder.rglob("*") if inner.is_file()):
        status = path.stat()
        whole.update(f"{path.relative_to(folder).as_posix()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return whole.hexdigest()


def _check_backbone(folder: str, manifest: Mapping[str, Any], fingerprint: str | None) -> None:
    if fingerprint is not None and manifest["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}: latents of another backbone ({manifest['backbone']}, {manifest['fingerprint'][:12]}), expected "
            f"fingerprint {fingerprint[:12]}: extract them again with this backbone"
        )


def _npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: corrupted cache ({error}), expected an array: extract the latents again") from error
    return array


def _zarr(location: str) -> Any:
    import zarr

    try:
        return zarr.open_array(location, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{location}: no zarr array can be opened there ({error}), expected one: extract the latents again"
        ) from error


def _open_address(address: str, fingerprint: str | None) -> StoredLatents:
    import io

    import fsspec  # type: ignore[import-untyped]

    address = address.rstrip("/")
    try:
        with fsspec.open(f"{address}/{MANIFEST}", "rb") as file:
            text: bytes = file.read()
        manifest = parse_manifest(text, f"{address}/{MANIFEST}")
        with fsspec.open(f"{address}/stimulus_ids.npy", "rb") as file:
            ids = np.load(io.BytesIO(file.read()), allow_pickle=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{address}: no latents can be read there ({error}), expected a folder of them: check the address, and "
            "that fsspec's driver for it is installed"
        ) from error
    _check_backbone(address, manifest, fingerprint)
    if manifest["storage"] != "zarr":
        raise InputError(
            f"{address}: latents stored as {manifest['storage']}, expected zarr on an object store: extract them with "
            "storage = zarr"
        )
    return _stored(address, text, manifest, ids, {name: _zarr(f"{address}/{GROUP}/{name}") for name in LATENT_NAMES})

"""Latents on disk: a folder with one array per latent (npy or zarr) and a manifest that vouches for them.

`open_latents` opens them without reading, `load_latents` gives arrays. What is read is checked against the manifest
first: sizes and shapes always, checksums unless the caller has just done so. `unibrain.latents.writer` writes them.
"""

import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError
from unibrain.latents.columns import LatentColumns
from unibrain.latents.table import Latents, rows_of, shapes_table
from unibrain.workspace import notebook
from unibrain.workspace.fingerprints import digest, sha256_of

FORMAT = ("unibrain-latents", 3)
MANIFEST = "manifest.json"
ZARR = "arrays.zarr"
IDS = "stimulus_ids"


def array_path(folder: Path, name: str, storage: str) -> Path:
    """Where a folder keeps an array."""
    return folder / ZARR / name if storage == "zarr" and name != IDS else folder / f"{name}.npy"


def _files(path: Path) -> list[Path]:
    """The file of an array, or all files of a zarr array."""
    return [path] if path.is_file() else sorted(inner for inner in path.rglob("*") if inner.is_file())


def checksum_of(path: Path) -> tuple[int, str]:
    """Bytes and checksum of a file, or of all files of a zarr array."""
    if path.is_file():
        return path.stat().st_size, sha256_of(path)
    files = _files(path)
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        sums = list(pool.map(sha256_of, files))
    sizes = [inner.stat().st_size for inner in files]
    names = [inner.relative_to(path).as_posix() for inner in files]
    return sum(sizes), digest(list(zip(names, sizes, sums, strict=True)))


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Manifest of a folder of latents.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict
        Keys ``format``, ``storage`` (``"npy"`` or ``"zarr"``), ``backbone``, ``fingerprint``, ``choices``, and
        ``arrays``: for ``stimulus_ids`` and every latent its ``shape``, ``dtype``, ``bytes`` and ``sha256``.

    Raises
    ------
    InputError
        If there is none, or it is of another version.
    DamagedFileError
        If it is no manifest.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no latents ({MANIFEST} is missing): extract them")
    return _parse_manifest(path.read_bytes(), path)


def _parse_manifest(content: bytes, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
        found = tuple(manifest["format"])
        texts = [manifest["backbone"], manifest["fingerprint"]]
        for name, about in manifest["arrays"].items():
            # File names are made of these.
            texts += [about["sha256"], about["dtype"]]
            if not name.isidentifier() or not all(type(size) is int for size in (*about["shape"], about["bytes"])):
                raise ValueError(name)
        if not all(isinstance(text, str) for text in texts) or IDS not in manifest["arrays"]:
            raise ValueError("texts")
        if found == FORMAT and manifest["storage"] not in ("npy", "zarr"):
            raise ValueError("storage")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(path, f"{path} is damaged or of an older version: extract the latents again") from error
    if found != FORMAT:
        raise InputError(f"{path} is of format {found}, and this version reads {FORMAT}: extract the latents again")
    return dict(manifest)


@dataclass(frozen=True, repr=False)
class StoredLatents:
    """Latents of a set of images, where they are stored.

    Attributes
    ----------
    folder : str
        The folder, or the address on an object store.
    manifest_sha256 : str
        Checksum of the manifest, which holds the checksums of the arrays: it stands for their content.
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
    stimulus_ids: NDArray[np.int64]
    shapes: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, Any]
    row_numbers: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"StoredLatents({self.n} images in {self.folder}: {', '.join(self.names)})"

    def _repr_html_(self) -> str:
        """For notebooks: the shape of each latent, and what it does."""
        title = notebook.paragraph(f"Latents of {self.n:,} images in {self.folder}", bold=True)
        return title + shapes_table(self.shapes)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.stimulus_ids)

    @property
    def names(self) -> tuple[str, ...]:
        """The latents that are there."""
        return tuple(self.shapes)

    def columns(self, name: str) -> LatentColumns:
        """One latent, to be read in blocks of columns."""
        array = self.arrays[name]
        local = not isinstance(array, np.ndarray) and "://" not in self.folder
        return LatentColumns(array, self.row_numbers, array_path(Path(self.folder), name, "zarr") if local else None)

    def at(self, row_numbers: NDArray[np.int64]) -> "StoredLatents":
        """Some of these rows, by position, in that order; nothing is read.

        Raises
        ------
        InputError
            If a position is out of range.
        """
        wrong = row_numbers[(row_numbers < 0) | (row_numbers >= self.n)]
        if len(wrong):
            raise InputError(f"{self.folder} has no row {wrong[0]}, only {self.n} rows: extract the latents again")
        return replace(self, stimulus_ids=self.stimulus_ids[row_numbers], row_numbers=self.row_numbers[row_numbers])

    def select(self, stimulus_ids: NDArray[np.int64]) -> "StoredLatents":
        """The rows of `stimulus_ids`, in that order, an id as often as it is named; nothing is read.

        Raises
        ------
        InputError
            If one of them is missing.
        """
        return self.at(rows_of(self.stimulus_ids, stimulus_ids))

    def read(self) -> Latents:
        """All of these rows, in memory, as float32."""
        arrays = {}
        for name in self.names:
            columns = self.columns(name)
            array = np.empty(columns.shape, dtype=np.float32)
            columns.read_into(array, slice(0, columns.shape[1]))
            arrays[name] = array.reshape(self.n, *self.shapes[name])
        return Latents(self.stimulus_ids, arrays)


def open_latents(folder: str | os.PathLike[str], fingerprint: str | None = None, verify: bool = True) -> StoredLatents:
    """Open stored latents without loading them.

    Parameters
    ----------
    folder : path-like or str
        A folder, or the address of one on an object store (``s3://...``; it needs zarr arrays, `fsspec` and its driver
        for that store).
    fingerprint : str, optional
        Fingerprint of the backbone that they must come from.
    verify : bool
        Compare the checksum of every array, which reads all of them once. Sizes and shapes are compared in any case. On
        an object store only shapes are.

    Returns
    -------
    StoredLatents

    Raises
    ------
    InputError
        If there are none, or they come from another backbone.
    DamagedFileError
        If something is missing, truncated or changed since it was written.
    """
    if "://" in str(folder):
        text, manifest, ids, arrays = _open_address(str(folder).rstrip("/"))
    else:
        path = Path(folder)
        text, manifest = (path / MANIFEST).read_bytes() if (path / MANIFEST).is_file() else b"", read_manifest(path)
        paths = {name: _checked(path, name, manifest, verify) for name in manifest["arrays"]}
        ids = _open_npy(paths.pop(IDS))
        is_npy = manifest["storage"] == "npy"
        arrays = {name: _open_npy(inner) if is_npy else _open_zarr(inner) for name, inner in paths.items()}
    if fingerprint not in (None, manifest["fingerprint"]):
        raise InputError(
            f"{folder}: latents of another backbone ({manifest['backbone']}, {manifest['fingerprint'][:12]}; this one "
            f"is {str(fingerprint)[:12]}): extract them again with this backbone"
        )
    shapes = {}
    for name, array in ((IDS, ids), *arrays.items()):
        about = manifest["arrays"][name]
        whole = tuple(about["shape"])
        # A zarr array is stored flattened, so that a block of columns is a few whole chunks.
        flat = whole if isinstance(array, np.ndarray) else (*whole[:1], int(np.prod(whole[1:])))
        right_type = about["dtype"] in (("int64",) if name == IDS else ("float32", "float16"))
        if not right_type or tuple(array.shape) != flat or str(array.dtype) != about["dtype"] or whole[:1] != ids.shape:
            raise DamagedFileError(
                Path(str(folder), MANIFEST),
                f"{folder}: {name} is {array.dtype} of shape {tuple(array.shape)}, and the manifest says "
                f"{about['dtype']} of shape {flat}: extract the latents again",
            )
        shapes[name] = whole[1:]
    del shapes[IDS]
    flat_arrays = {
        name: array.reshape(len(ids), -1) if isinstance(array, np.ndarray) else array for name, array in arrays.items()
    }
    return StoredLatents(str(folder).rstrip("/"), digest(text), np.array(ids), shapes, flat_arrays, np.arange(len(ids)))


def reopen_latents(folder: str | os.PathLike[str], manifest_sha256: str, verify: bool = True) -> StoredLatents:
    """Open latents that a decoder was fitted to, if they are still the same.

    Parameters
    ----------
    folder : path-like or str
    manifest_sha256 : str
        As `StoredLatents` had it.
    verify : bool
        See `open_latents`.

    Returns
    -------
    StoredLatents

    Raises
    ------
    InputError
        If they are missing, damaged, or others.
    """
    stored = open_latents(folder, verify=verify)
    if stored.manifest_sha256 != manifest_sha256:
        raise InputError(f"{folder} holds other latents than the decoder was fitted to: fit again, or restore them")
    return stored


def load_latents(folder: str | os.PathLike[str], fingerprint: str | None = None, verify: bool = True) -> Latents:
    """Open stored latents as arrays: read-only memory maps of npy files; zarr arrays are read into memory.

    Parameters
    ----------
    folder, fingerprint, verify
        See `open_latents`, which is for what goes through them in blocks.

    Returns
    -------
    Latents

    Raises
    ------
    InputError
        See `open_latents`.
    """
    stored = open_latents(folder, fingerprint, verify)
    if not all(isinstance(array, np.ndarray) for array in stored.arrays.values()):
        return stored.read()
    arrays = {name: array.reshape(stored.n, *stored.shapes[name]) for name, array in stored.arrays.items()}
    return Latents(stored.stimulus_ids, arrays)


def _checked(folder: Path, name: str, manifest: Mapping[str, Any], verify: bool) -> Path:
    """Path of an array that is as the manifest says."""
    path, about = array_path(folder, name, manifest["storage"]), manifest["arrays"][name]
    if not path.exists():
        raise DamagedFileError(path, f"{path} is missing: extract the latents again")
    size = sum(inner.stat().st_size for inner in _files(path))
    if size != about["bytes"]:
        raise DamagedFileError(
            path, f"{path} is truncated ({size} of {about['bytes']} bytes): extract the latents again"
        )
    if verify and checksum_of(path)[1] != about["sha256"]:
        raise DamagedFileError(path, f"{path} was changed or damaged after it was written: extract the latents again")
    return path


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedFileError(path, f"{path} is no array of numbers ({error}): extract the latents again") from error
    return array


def check_zarr(description: bytes, path: str) -> None:
    """Refuse a zarr array that is anything but plain little-endian floats, before zarr looks at it.

    Codecs, filters and storage transformers are programs that a file chooses; old numcodecs even unpickled. None is
    used here, so none is accepted.
    """
    try:
        about = json.loads(description)
        plain = (
            (about["zarr_format"], about["node_type"]) == (3, "array")
            and about["data_type"] in ("float32", "float16")
            and about["codecs"] == [{"name": "bytes", "configuration": {"endian": "little"}}]
            and about["chunk_grid"]["name"] == "regular"
            and about["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and len(about["shape"]) == 2
            and not about.get("storage_transformers")
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        plain = False
    if not plain:
        raise InputError(f"{path} is not a zarr (version 3) array of plain floats: extract the latents again")


def _open_zarr(path: Path) -> Any:
    import zarr

    description = path / "zarr.json"
    check_zarr(description.read_bytes() if description.is_file() else b"", str(path))
    return zarr.open_array(str(path), mode="r", zarr_format=3)


def filesystem_of(address: str) -> tuple[Any, str]:
    """The file system of an object store, and the path of `address` in it."""
    import fsspec  # type: ignore[import-untyped]
    from fsspec.registry import registry  # type: ignore[import-untyped]

    scheme = address.split("://", maxsplit=1)[0]
    if find_spec("obstore") is not None and scheme not in registry:
        from obstore.fsspec import SUPPORTED_PROTOCOLS, register

        if scheme in SUPPORTED_PROTOCOLS and scheme not in ("file", "memory"):
            register(scheme)
    system, path = fsspec.core.url_to_fs(address)
    return system, str(path)


def _open_address(address: str) -> tuple[bytes, dict[str, Any], NDArray[Any], dict[str, Any]]:
    import zarr

    def read(name: str) -> bytes:
        content: bytes = system.cat_file(f"{root}/{name}")
        return content

    try:
        system, root = filesystem_of(address)
        text = read(MANIFEST)
        manifest = _parse_manifest(text, Path(address, MANIFEST))
        if manifest["storage"] != "zarr":
            raise InputError(f"{address}: an object store needs zarr arrays: extract with storage = zarr")
        ids = np.load(io.BytesIO(read(f"{IDS}.npy")), allow_pickle=False)
        arrays = {}
        for name in manifest["arrays"]:
            if name != IDS:
                check_zarr(read(f"{ZARR}/{name}/zarr.json"), f"{address}/{ZARR}/{name}")
                arrays[name] = zarr.open_array(f"{address}/{ZARR}/{name}", mode="r", zarr_format=3)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{address}: no latents can be read there ({error}): check the address, and that fsspec's driver for it is "
            "installed"
        ) from error
    return text, manifest, ids, arrays

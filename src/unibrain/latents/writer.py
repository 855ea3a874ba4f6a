"""Writing latents to disk, part by part: what a stopped writer left is gone on from."""

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.store import FORMAT, IDS, MANIFEST, ZARR, array_path, check_zarr, checksum_of
from unibrain.latents.table import Latents
from unibrain.workspace.files import atomic_folder, write_json
from unibrain.workspace.fingerprints import digest

Storage = Literal["auto", "npy", "zarr"]
Precision = Literal["float32", "float16"]

PROGRESS = "progress.json"
CHUNK = (256, 4096)
"""Images and dimensions of a zarr chunk: 4 MiB of float32, not compressed (latents look like noise)."""

LARGE = 10**9
"""Bytes from which ``"auto"`` stores zarr, whose blocks of columns are whole chunks and need no scattered reads."""

INTERVAL = 5.0
"""Seconds between two records of what is safe: a stopped writer repeats little, and waits for the disk are rare."""


def save_latents(
    folder: str | os.PathLike[str],
    latents: Latents,
    backbone: str,
    fingerprint: str,
    choices: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write latents that are in memory, as npy; `LatentWriter` writes part by part.

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
    writer = LatentWriter(folder, latents.stimulus_ids, backbone, fingerprint, choices, storage="npy", resume=False)
    writer.begin({name: array.shape[1:] for name, array in latents.items()})
    writer.write_rows(0, latents)
    writer.finish()


class LatentWriter:
    """Write latents of known images in parts: batches of rows, or blocks of columns of one latent.

    Parts go into an unfinished folder. `mark` records what is safe there, every few seconds; made again with the same
    arguments, the writer continues from that record. `finish` adds the manifest and moves the folder to its place.

    Parameters
    ----------
    folder : path-like
        Where the latents end up; what it held before is replaced as a whole, at the end.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row.
    backbone, fingerprint : str
        Backbone that made the latents, and sha256 of its weights.
    choices : mapping, optional
        Named choices, for the record.
    storage : {"auto", "npy", "zarr"}
        ``"auto"``: npy below 1 GB (`LARGE`), zarr from there on.
    precision : {"float32", "float16"}
    key : str
        Anything else that decides the content; unfinished work of another key is dropped.
    unfinished : path-like, optional
        The unfinished folder, on the same file system; beside `folder` if it is not given.
    resume : bool
        Whether to go on where an earlier writer stopped.

    Attributes
    ----------
    done : dict of str to int
        What was marked: label to number of rows or columns that are safe.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stimulus_ids: NDArray[np.int64],
        backbone: str,
        fingerprint: str,
        choices: Mapping[str, str | int | float] | None = None,
        *,
        storage: Storage = "auto",
        precision: Precision = "float32",
        key: str = "",
        unfinished: str | os.PathLike[str] | None = None,
        resume: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.unfinished = Path(unfinished or self.folder.with_name(f".{self.folder.name}.unfinished"))
        self._ids = np.ascontiguousarray(stimulus_ids, dtype=np.int64)
        self._about = {"backbone": backbone, "fingerprint": fingerprint, "choices": dict(choices or {})}
        self._wanted, self._dtype = storage, np.dtype(precision)
        self._key = digest(self._about, storage, precision, key, self._ids)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._arrays: dict[str, Any] = {}
        self.done: dict[str, int] = {}
        self._marked, self._resumes = -INTERVAL, resume
        if not (resume and self._resume()):
            self._arrays, self.done = {}, {}
            shutil.rmtree(self.unfinished, ignore_errors=True)

    def _resume(self) -> bool:
        try:
            kept = json.loads((self.unfinished / PROGRESS).read_bytes())
            if kept["key"] != self._key:
                return False
            self._storage: Literal["npy", "zarr"] = kept["storage"]
            self._shapes = {name: tuple(shape) for name, shape in kept["shapes"].items()}
            self._arrays = {name: self._open(name) for name in self._shapes}
            self.done = dict(kept["done"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
            return False
        return True

    def _open(self, name: str) -> Any:
        path, shape = array_path(self.unfinished, name, self._storage), (len(self._ids), *self._shapes[name])
        if self._storage == "npy":
            array: Any = np.load(path, mmap_mode="r+", allow_pickle=False)
        else:
            import zarr

            check_zarr((path / "zarr.json").read_bytes(), str(path))
            array, shape = zarr.open_array(str(path), mode="r+"), (len(self._ids), int(np.prod(shape[1:])))
        if tuple(array.shape) != shape or array.dtype != self._dtype:
            raise ValueError("not the array that was begun")
        return array.reshape(len(self._ids), -1) if self._storage == "npy" else array

    def begin(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make the arrays, unless they are there from before.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            Shape of one image's latent.

        Raises
        ------
        InputError
            If the disk has no room for them (as far as that can be known before).
        """
        if self._arrays:
            return
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        size = sum(int(np.prod(shape)) for shape in self._shapes.values()) * len(self._ids) * self._dtype.itemsize
        self._storage = ("zarr" if size >= LARGE else "npy") if self._wanted == "auto" else self._wanted
        with self._room():
            self.unfinished.mkdir(parents=True, exist_ok=True)
            np.save(self.unfinished / f"{IDS}.npy", self._ids, allow_pickle=False)
            self._arrays = {name: self._create(name) for name in self._shapes}
            self.mark("", 0)

    def _create(self, name: str) -> Any:
        n, shape = len(self._ids), self._shapes[name]
        path = array_path(self.unfinished, name, self._storage)
        if self._storage == "npy":
            array = np.lib.format.open_memmap(path, mode="w+", dtype=self._dtype, shape=(n, *shape))
            if hasattr(os, "posix_fallocate"):
                # A memory map of a sparse file on a full disk is killed by a signal; this is an error instead.
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return array.reshape(n, -1)
        import zarr
        from zarr.codecs import BytesCodec

        width = int(np.prod(shape))
        chunks = (max(1, min(CHUNK[0], n)), max(1, min(CHUNK[1], width)))
        group = zarr.open_group(str(self.unfinished / ZARR), mode="a", zarr_format=3)
        return group.create_array(
            name,
            shape=(n, width),
            chunks=chunks,
            dtype=self._dtype,
            compressors=None,
            serializer=BytesCodec(endian="little"),
        )

    def write_rows(self, start: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write a batch of images from row `start` on, all latents.

        Raises
        ------
        InputError
            If the disk is full, or a value is too large for float16.
        """
        for name, rows in values.items():
            self._put(name, (slice(start, start + len(rows)), slice(None)), rows.reshape(len(rows), -1))

    def write_columns(self, name: str, columns: slice, values: NDArray[Any]) -> None:
        """Write a block of columns of one latent, for all images; see `write_rows`."""
        self._put(name, (slice(None), columns), values)

    def _put(self, name: str, where: tuple[slice, slice], values: NDArray[Any]) -> None:
        with np.errstate(over="ignore"):
            stored = np.asarray(values, dtype=self._dtype)
        if self._dtype == np.float16 and not np.isfinite(stored).all():
            row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0]) + (where[0].start or 0)
            raise InputError(
                f"{self.folder}: latent {name} of image id {self._ids[row]} is beyond float16 (65,504): store float32"
            )
        with self._room():
            self._arrays[name][where] = stored

    def mark(self, label: str, count: int) -> None:
        """Record, now or within `INTERVAL` seconds, that the first `count` rows or columns of `label` are written."""
        self.done[label] = count
        if time.monotonic() - self._marked < INTERVAL:
            return
        with self._room():
            if self._storage == "npy":
                for array in self._arrays.values():
                    array.flush()
            kept = {"key": self._key, "storage": self._storage, "shapes": self._shapes, "done": self.done}
            write_json(self.unfinished / PROGRESS, kept)
        self._marked = time.monotonic()

    def finish(self) -> None:
        """Add the manifest (reads all once for the checksums) and move everything to its place."""
        self._arrays = {}
        with self._room():
            about = {}
            for name, shape in ((IDS, ()), *self._shapes.items()):
                size, checksum = checksum_of(array_path(self.unfinished, name, self._storage))
                dtype = "int64" if name == IDS else self._dtype.name
                whole = [len(self._ids), *shape]
                about[name] = {"shape": whole, "dtype": dtype, "bytes": size, "sha256": checksum}
            manifest = {"format": FORMAT, "storage": self._storage, **self._about, "arrays": about}
            write_json(self.unfinished / MANIFEST, manifest)
            with atomic_folder(self.folder) as temporary:
                temporary.rmdir()
                self.unfinished.replace(temporary)
                (temporary / PROGRESS).unlink()

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = f"run again: it goes on from what is kept in {self.unfinished}"
            if not self._resumes:
                shutil.rmtree(self.unfinished, ignore_errors=True)
                advice = "run again"
            raise InputError(f"{self.folder}: no space left on the disk. Free some space, and {advice}.") from error

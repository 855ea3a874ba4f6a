"""`ChunkFiles`: the chunk files of a local zarr array that are plain numbers, read straight to where they are needed.

Through zarr a block of columns passes memory four times before its rows are picked; from the files, once. Streaming
targets shares the processor's cores with the products, so what reading takes, the products lose.
"""

import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["FORETOLD", "ChunkFiles"]

FORETOLD = hasattr(os, "posix_fadvise")
"""Whether this system can be told what will be read next."""

MOST_PIECES = 1024
"""So many pieces of memory every POSIX system of today fills with one call (IOV_MAX)."""


class ChunkFiles:
    """Chunks of a two-dimensional zarr array, format 3, without compression, filters or shards, on a local disk.

    Parameters
    ----------
    array : zarr.Array
        One that `are_plain` is true for.

    Attributes
    ----------
    chunks : tuple of int
        Rows and columns of a chunk. Files at an edge hold whole chunks, too.
    dtype : numpy.dtype
        As stored.
    """

    def __init__(self, array: Any) -> None:
        self._folder, self._key = Path(array.store.root) / array.path, array.metadata.encode_chunk_key
        self._fill = array.fill_value
        self.chunks: tuple[int, int] = (int(array.chunks[0]), int(array.chunks[1]))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    @staticmethod
    def are_plain(array: Any) -> bool:
        """Whether the chunks of this array are files of its numbers as this machine holds them.

        Parameters
        ----------
        array : zarr.Array or ndarray
        """
        if isinstance(array, np.ndarray):
            return False
        from zarr.codecs import BytesCodec
        from zarr.storage import LocalStore

        return (
            isinstance(array.store, LocalStore)
            and array.ndim == 2
            and array.metadata.zarr_format == 3
            and not (array.compressors or array.filters or array.shards)
            and array.serializer == BytesCodec(endian=sys.byteorder)
        )

    def empty(self) -> NDArray[Any]:
        """Memory for a chunk."""
        return np.empty(self.chunks, dtype=self.dtype)

    def read(self, row: int, column: int, chunk: NDArray[Any]) -> None:
        """Read a chunk.

        Parameters
        ----------
        row, column : int
            Which one, counted in chunks.
        chunk : ndarray
            From `empty`; overwritten.

        Raises
        ------
        InputError
            If its file is truncated.
        """
        path = self._path(row, column)
        try:
            with path.open("rb") as file:
                count = file.readinto(chunk.data.cast("B"))
        except FileNotFoundError:
            # zarr writes no file for a chunk that holds nothing but the fill value.
            chunk.fill(self._fill)
            return
        if count != chunk.nbytes:
            raise InputError(
                f"{path}: corrupted cache, {count} bytes found, expected {chunk.nbytes}: extract the latents again"
            )

    def read_rows(self, row: int, column: int, numbers: NDArray[np.int64], out: NDArray[Any]) -> bool:
        """Read some rows of a chunk, where the system can put each of them to its place while it reads the file.

        Parameters
        ----------
        row, column : int
            Which chunk.
        numbers : ndarray of shape (m,), int64
            Rows in the chunk.
        out : ndarray of shape (m, columns of a chunk)
            Contiguous, of `dtype`.

        Returns
        -------
        bool
            False if that could not be done, and `read` has to be used: the rows do not ascend, the file is missing or
            short, or the system has no such call.
        """
        steps = np.diff(numbers)
        if not hasattr(os, "preadv") or len(numbers) > MOST_PIECES // 2 or (steps < 1).any():
            return False
        edges = [0, *(np.flatnonzero(steps > 1) + 1).tolist(), len(numbers)]
        row_bytes, at = out.nbytes // len(out), 0
        pieces: list[Any] = []
        # Rows between the wanted ones are read too, to where nobody looks: cheaper than another call.
        nowhere = memoryview(bytearray(row_bytes * max(int(numbers[0]), int(steps.max(initial=1)) - 1)))
        for start, stop in pairwise(edges):
            pieces.append(nowhere[: row_bytes * (int(numbers[start]) - at)])
            pieces.append(out[start:stop].data.cast("B"))
            at = int(numbers[stop - 1]) + 1
        try:
            file = os.open(self._path(row, column), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return os.preadv(file, pieces, 0) == at * row_bytes
        finally:
            os.close(file)

    def foretell(self, row: int, column: int) -> None:
        """Tell the system that a chunk will be read soon: it fetches it from the disk while the processor works.

        Does nothing where the system cannot be told (`FORETOLD`), or there is no such file.

        Parameters
        ----------
        row, column : int
            Which one, counted in chunks.
        """
        if not FORETOLD:
            return
        try:
            file = os.open(self._path(row, column), os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)

    def _path(self, row: int, column: int) -> Path:
        path: Path = self._folder / self._key((row, column))
        return path

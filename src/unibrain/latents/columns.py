"""`LatentColumns`: one stored latent of some images, read in blocks of columns.

Through zarr, a block of columns passes memory several times before its rows are picked. Here each chunk file is read
into the processor's cache, and its rows are copied from there to their place. Streaming shares the cores with the
matrix products, so that counts.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError

ROWS_AT_ONCE = 256
"""Rows that are picked from a memory map in one go."""

MOST = 0.25
"""Share of a chunk's rows from which on it is read as a whole: fewer are picked from a memory map."""


class LatentColumns:
    """One latent of some images, one row per image, of which blocks of columns can be read.

    Parameters
    ----------
    array : memory map or zarr.Array of shape (images in the store, dimensions)
    rows : ndarray of shape (n,), int64
        Rows of the store, in the order in which they are wanted.
    folder : pathlib.Path, optional
        Where the chunk files of a local zarr array lie. Its chunks must be plain numbers (see `store.check_zarr`).

    Attributes
    ----------
    shape : tuple of int
        (n, dimensions).
    dtype : numpy.dtype
        As stored, float16 or float32.
    chunk_columns : int
        Columns that lie together on disk: blocks of a multiple of them are read without waste. 1 for memory maps.
    """

    def __init__(self, array: Any, rows: NDArray[np.int64], folder: Path | None = None) -> None:
        self._array, self._rows, self._folder = array, rows, folder
        self.shape: tuple[int, int] = (len(rows), int(array.shape[1]))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self._chunks: tuple[int, int] = (ROWS_AT_ONCE, 1) if isinstance(array, np.ndarray) else array.chunks
        self.chunk_columns = int(self._chunks[1])
        in_chunk = rows // self._chunks[0]
        self._by_chunk = [(int(chunk), np.flatnonzero(in_chunk == chunk)) for chunk in np.unique(in_chunk)]

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[Any]:
        """Read ``[:, start:stop]``."""
        rows, columns = key
        columns = slice(*columns.indices(self.shape[1]))
        out = np.empty((self.shape[0], columns.stop - columns.start), dtype=self.dtype)
        self.read_into(out, columns)
        return out[rows]

    def read_into(self, out: NDArray[Any], columns: slice) -> None:
        """Read all rows of a block of columns.

        Parameters
        ----------
        out : ndarray of shape (n, columns)
            Filled; of any float type.
        columns : slice
            With start and stop, without step.

        Raises
        ------
        DamagedFileError
            If a chunk is truncated.
        """
        if isinstance(self._array, np.ndarray):
            for start in range(0, len(self._rows), ROWS_AT_ONCE):
                some = slice(start, start + ROWS_AT_ONCE)
                out[some] = self._array[self._rows[some], columns]
        elif self._folder is None:
            out[...] = np.asarray(self._array[:, columns])[self._rows]
        else:
            for chunk, places in self._by_chunk:
                self._read_chunks(chunk, places, out, columns)

    def _read_chunks(self, chunk: int, places: NDArray[np.int64], out: NDArray[Any], columns: slice) -> None:
        height, width = self._chunks
        local = self._rows[places] - chunk * height
        # Rows that stay neighbours are copied straight to their place.
        rows = slice(places[0], places[-1] + 1) if places[-1] - places[0] == len(places) - 1 else places
        whole = np.empty(self._chunks, self.dtype) if len(local) >= MOST * height else None
        for column in self._overlapping(columns):
            start, stop = max(columns.start, column * width), min(columns.stop, (column + 1) * width)
            values = self._chunk(chunk, column, whole)[:, start - column * width : stop - column * width]
            there = out[:, start - columns.start : stop - columns.start]
            if whole is None:
                there[rows] = values[local]
            else:
                # Row by row: an index of rows would copy all of them once more.
                for place, row in zip(places.tolist(), local.tolist(), strict=True):
                    there[place] = values[row]

    def _chunk(self, row: int, column: int, whole: NDArray[Any] | None) -> NDArray[Any]:
        """A chunk as a memory map, or read into `whole`."""
        path = self._path(row, column)
        try:
            if whole is None:
                return np.memmap(path, self.dtype, "r", shape=self._chunks)
            with path.open("rb", buffering=0) as file:
                if file.readinto(whole.data) != whole.nbytes:
                    raise ValueError("fewer bytes than a chunk has")
            return whole
        except FileNotFoundError:
            # zarr writes no file for a chunk that holds nothing but the fill value.
            return np.broadcast_to(np.asarray(self._array.fill_value, self.dtype), self._chunks)
        except ValueError as error:
            raise DamagedFileError(path, f"{path} is truncated: extract the latents again") from error

    def _overlapping(self, columns: slice) -> range:
        return range(columns.start // self._chunks[1], -(-columns.stop // self._chunks[1]))

    def _path(self, row: int, column: int) -> Path:
        assert self._folder is not None
        return self._folder / "c" / str(row) / str(column)

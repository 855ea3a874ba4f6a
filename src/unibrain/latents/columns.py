"""`LatentColumns`: one stored latent of some images, read in blocks of columns."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents.chunk_files import FORETOLD, ChunkFiles

__all__ = ["LatentColumns"]

ROWS_AT_ONCE = 256
"""Rows that are picked from a memory map before they are put into place."""

Places = slice | NDArray[np.int64]
"""Which rows of a block: neighbours, or any."""


class LatentColumns:
    """One latent of some images, flattened to one row per image, of which blocks of columns can be read.

    Parameters
    ----------
    array : memory map or zarr.Array of shape (images in the store, dimensions)
    rows : ndarray of shape (n,), int64
        Rows of the store, in the order in which they are wanted.

    Attributes
    ----------
    shape : tuple of int
        (n, dimensions).
    dtype : numpy.dtype
        As stored, float16 or float32.
    foretold : bool
        Whether `foretell` can tell the system what will be read next.
    chunk_columns : int
        Columns that lie together on disk; blocks of a multiple of them are read without waste. 1 for memory maps.
    """

    def __init__(self, array: Any, rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape: tuple[int, int] = (len(rows), int(array.shape[1]))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.chunk_columns = 1 if isinstance(array, np.ndarray) else int(array.chunks[1])
        self._files = ChunkFiles(array) if ChunkFiles.are_plain(array) else None
        self._chunk_rows = list(_by_chunk(rows, self._files.chunks[0])) if self._files else []
        self._spare: list[NDArray[Any]] = []

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
        InputError
            If a file is truncated.
        """
        for part in self.parts(out, columns):
            part()

    def parts(self, out: NDArray[Any], columns: slice) -> list[Callable[[], None]]:
        """What `read_into` does, in parts that may be done in any order and side by side.

        Parameters
        ----------
        out, columns
            See `read_into`.

        Returns
        -------
        list of callable
            Each fills some rows of `out`, and raises what `read_into` raises.
        """
        if self._files is not None:
            return [
                partial(self._read_chunks, self._files, row, places, out, columns) for row, places in self._chunk_rows
            ]
        if isinstance(self._array, np.ndarray):
            starts = range(0, len(self._rows), ROWS_AT_ONCE)
            return [partial(self._pick, slice(start, start + ROWS_AT_ONCE), out, columns) for start in starts]
        return [partial(self._read_all, out, columns)]

    @property
    def foretold(self) -> bool:
        """See `LatentColumns`."""
        return self._files is not None and FORETOLD

    def foretell(self, columns: slice) -> None:
        """Let the system fetch a block of columns from the disk while the processor works on something else.

        Parameters
        ----------
        columns : slice
            With start and stop, as `read_into` will be asked for. Nothing happens unless `foretold`.
        """
        if self._files is not None:
            for row, _ in self._chunk_rows:
                for column in _overlapping(columns, self._files.chunks[1]):
                    self._files.foretell(row, column)

    def _read_chunks(self, files: ChunkFiles, row: int, places: Places, out: NDArray[Any], columns: slice) -> None:
        height, width = files.chunks
        local = self._rows[places] - row * height
        # Fresh memory is cleared by the system page by page, which takes as long as reading into it.
        chunk = self._spare.pop() if self._spare else files.empty()
        for column in _overlapping(columns, width):
            start, stop = max(columns.start, column * width), min(columns.stop, (column + 1) * width)
            target = out[:, start - columns.start : stop - columns.start]
            whole = stop - start == width and isinstance(places, slice) and out.dtype == files.dtype
            if whole and target.flags.c_contiguous and files.read_rows(row, column, local, target[places]):
                continue
            files.read(row, column, chunk)
            target[places] = chunk[local, start - column * width : stop - column * width]
        self._spare.append(chunk)

    def _pick(self, some: slice, out: NDArray[Any], columns: slice) -> None:
        out[some] = self._array[self._rows[some], columns]

    def _read_all(self, out: NDArray[Any], columns: slice) -> None:
        out[...] = np.asarray(self._array[:, columns])[self._rows]


def _overlapping(columns: slice, width: int) -> range:
    """Numbers of the chunks that a block of columns lies in."""
    return range(columns.start // width, -(-columns.stop // width))


def _by_chunk(rows: NDArray[np.int64], height: int) -> Iterator[tuple[int, Places]]:
    """For each row of chunks that is needed, its number, and which of `rows` lie in it."""
    order = np.argsort(rows, kind="stable")
    chunks = rows[order] // height
    for places in np.split(order, np.flatnonzero(np.diff(chunks)) + 1):
        if not len(places):
            continue
        neighbours = bool((np.diff(places) == 1).all())
        yield int(rows[places[0]]) // height, slice(int(places[0]), int(places[-1]) + 1) if neighbours else places

"""`Targets`: one latent as a matrix of which blocks of columns are read ahead while others are multiplied."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Never, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.columns import LatentColumns
from unibrain.latents.latents import Latents
from unibrain.latents.stored import StoredLatents

__all__ = [
    "MAX_BLOCK_BYTES",
    "TargetReader",
    "Targets",
    "as_targets",
    "block_width",
    "flat",
    "shapes_of",
    "targets_of",
    "varying",
]

READERS = 4
"""Threads that copy a block from the system's memory: more do not copy faster."""

MAX_BLOCK_BYTES = 2**28
"""Largest block of targets that is read at once: 256 MiB. Larger ones multiply no faster, and start later."""


class TargetReader(Protocol):
    """Targets of shape (n, t), in memory or on disk; blocks of columns are read by slicing."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    @property
    def dtype(self) -> Any:
        """Type of the elements: float16, float32 or float64."""

    def __getitem__(self, index: Any, /) -> Any:
        """``reader[:, start:stop]`` is an ndarray of shape (n, stop - start)."""


class Targets:
    """Targets of n images in memory or on disk.

    Parameters
    ----------
    reader : TargetReader
        Array, memory map or `unibrain.latents.columns.LatentColumns` of shape (n, t).
    name : str
        What a message calls them.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row.

    Attributes
    ----------
    shape : tuple of int
        (n, t).
    dtype : numpy.dtype
        As stored.
    compute : numpy.dtype
        In which products are computed: float64 for float64 targets, float32 for all others.
    """

    def __init__(self, reader: TargetReader, name: str, stimulus_ids: NDArray[np.int64]) -> None:
        self._reader, self.name, self._ids = reader, name, stimulus_ids
        self.shape = (int(reader.shape[0]), int(reader.shape[1]))
        self.dtype: np.dtype[Any] = np.dtype(reader.dtype)
        self.compute: np.dtype[Any] = np.result_type(self.dtype, np.float32)

    @property
    def in_memory(self) -> bool:
        """True if blocks are views of an array in memory that need no conversion."""
        return type(self._reader) is np.ndarray and self.dtype == self.compute

    @property
    def chunk_columns(self) -> int:
        """Columns that lie together on disk."""
        return int(getattr(self._reader, "chunk_columns", 1))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """``[:, start:stop]``, as stored."""
        return np.asarray(self._reader[key])

    @property
    def foretold(self) -> bool:
        """True if the system itself reads ahead when it is told what comes next."""
        return isinstance(self._reader, LatentColumns) and self._reader.foretold

    def blocks(self, width: int, begin: int = 0) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Blocks of columns; while one is worked on, the next is fetched from where it is stored.

        Parameters
        ----------
        width : int
            Columns of a block, at least 1.
        begin : int
            First column.

        Yields
        ------
        slice, ndarray of shape (n, width or less)
            In `compute`'s precision. Blocks share memory: one is valid until the next is asked for.
        """
        slices = [slice(start, min(start + width, self.shape[1])) for start in range(begin, self.shape[1], width)]
        if self.in_memory:
            yield from ((block, self[:, block]) for block in slices)
        elif isinstance(self._reader, LatentColumns) and self._reader.foretold:
            yield from self._foretold_blocks(self._reader, slices)
        else:
            yield from self._blocks_ahead(slices)

    def _foretold_blocks(self, reader: LatentColumns, slices: Sequence[slice]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The system fetches the next block from the disk; several threads then copy it from the system's memory.

        Threads that copy while BLAS multiplies would take turns with its threads, which wait for each other.
        """
        buffer = self._buffer(slices)
        with ThreadPoolExecutor(READERS, "read") as pool:
            for block, following in zip_longest(slices, slices[1:]):
                values = self._view(buffer, block)
                for done in [pool.submit(part) for part in reader.parts(values, block)]:
                    done.result()
                if following is not None:
                    reader.foretell(following)
                yield block, values

    def _blocks_ahead(self, slices: Sequence[slice]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """A thread reads and converts the next block: for object stores and memory maps."""
        buffers = [self._buffer(slices) for _ in slices[:2]]
        with ThreadPoolExecutor(1, "read-ahead") as pool:
            ahead = [pool.submit(self._read, block, buffers[0]) for block in slices[:1]]
            for number, block in enumerate(slices):
                values = ahead.pop().result()
                if number + 1 < len(slices):
                    ahead.append(pool.submit(self._read, slices[number + 1], buffers[(number + 1) % 2]))
                yield block, values

    def _buffer(self, slices: Sequence[slice]) -> NDArray[Any]:
        widest = max((block.stop - block.start for block in slices), default=0)
        return np.empty(self.shape[0] * widest, dtype=self.compute)

    def _view(self, buffer: NDArray[Any], block: slice) -> NDArray[Any]:
        n, width = self.shape[0], block.stop - block.start
        return buffer[: n * width].reshape(n, width)

    def _read(self, block: slice, buffer: NDArray[Any]) -> NDArray[Any]:
        values = self._view(buffer, block)
        if isinstance(self._reader, LatentColumns):
            self._reader.read_into(values, block)
        else:
            values[...] = self._reader[:, block]
        return values

    def own_blocks(self, width: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """What `blocks` yields, yours to change: of targets in memory, copies."""
        for block, values in self.blocks(width):
            yield block, values.copy() if self.in_memory else values

    def take(self, columns: NDArray[np.int64], memory: float) -> NDArray[Any]:
        """Some columns, reading all blocks once.

        Parameters
        ----------
        columns : ndarray of int64
            Ascending.
        memory : float
            Bytes for the blocks.

        Returns
        -------
        ndarray of shape (n, len(columns))
            In `compute`'s precision.
        """
        taken = np.empty((self.shape[0], len(columns)), dtype=self.compute)
        for block, values in self.blocks(block_width(self, 1, memory)):
            first, last = np.searchsorted(columns, [block.start, block.stop])
            taken[:, first:last] = values[:, columns[first:last] - block.start]
        return taken

    def refuse(self, block: slice, values: NDArray[Any]) -> Never:
        """Raise `InputError` that names the first value that is not finite in a block of targets."""
        wrong = np.argwhere(~np.isfinite(values))
        row, column = (int(wrong[0][0]), int(wrong[0][1]) + block.start) if len(wrong) else (0, block.start)
        found = "holds a NaN or infinite value" if len(wrong) else "sums up to more than its precision can hold"
        raise InputError(
            f"latent {self.name} of image id {self._ids[row]} {found} (row {row}, target {column}, in the block of "
            f"targets {block.start} to {block.stop - 1}), expected finite ones: extract the latents again"
        )


def flat(latent: NDArray[Any]) -> NDArray[Any]:
    """One row per image: (n, ...) to (n, dimensions), without a copy where the array is contiguous."""
    return latent.reshape(len(latent), int(np.prod(latent.shape[1:])))


def as_targets(reader: TargetReader, name: str = "of the regression") -> Targets:
    """A reader as targets; row numbers stand for image ids."""
    return reader if isinstance(reader, Targets) else Targets(reader, name, np.arange(reader.shape[0]))


def varying(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns are not the same in all rows: told by the range, since a mean is rounded.

    Parameters
    ----------
    values : ndarray of shape (n, t)

    Returns
    -------
    ndarray of shape (t,), bool
    """
    varies: NDArray[np.bool_] = np.ptp(values[:64], axis=0) > 0
    # A few rows tell it of nearly all columns; the others are looked at as a whole.
    doubtful = np.flatnonzero(~varies)
    varies[doubtful] = np.ptp(values[:, doubtful], axis=0) > 0
    return varies


def targets_of(latents: Latents | StoredLatents) -> dict[str, Targets]:
    """The four latents as targets."""
    names = shapes_of(latents)
    if isinstance(latents, StoredLatents):
        return {name: Targets(latents.columns(name), name, latents.stimulus_ids) for name in names}
    return {name: Targets(flat(latents[name]), name, latents.stimulus_ids) for name in names}


def shapes_of(latents: Latents | StoredLatents) -> Mapping[str, tuple[int, ...]]:
    """Shape of one image's latent, by name."""
    if isinstance(latents, StoredLatents):
        return latents.shapes
    return {name: array.shape[1:] for name, array in latents.items()}


def block_width(targets: Targets, rows: int, memory: float, taken: float = 0.0) -> int:
    """Columns of a block, so that all that streaming holds fits into `memory`.

    Parameters
    ----------
    targets : Targets
        Of shape (n, t).
    rows : int
        Rows of the operator that multiplies them.
    memory : float
        Bytes.
    taken : float
        Bytes of it that are taken already (operators).

    Returns
    -------
    int
        At least 1 and at most t; a multiple of `Targets.chunk_columns` where at least one chunk fits.

    Raises
    ------
    InputError
        If not even one column fits.
    """
    n, t = targets.shape
    item = targets.compute.itemsize
    # The block that is multiplied, perhaps one that is read and what it is gathered from, and the products.
    ahead = n * (2 * item + 2 * targets.dtype.itemsize)
    read = 0 if targets.in_memory else n * item if targets.foretold else ahead
    column = read + 3 * rows * item
    width = int(min((memory - taken) / column, MAX_BLOCK_BYTES / (n * item), t))
    if memory - taken < column:
        raise InputError(
            f"memory is {memory / 1e9:g} GB, expected at least {(taken + column) / 1e9:.2g} GB for {n} training images "
            f"and {rows} rows: raise memory, or predict fewer scans at a time"
        )
    width, chunk = max(1, width), targets.chunk_columns
    return width // chunk * chunk if width >= chunk else width

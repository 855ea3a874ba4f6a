"""What a decoder is fitted to, in memory or on disk, and its products with operators, block by block of columns.

Nearly all the work of fitting and predicting is here. A ridge prediction is linear in the targets,
``mean + W (Y - mean)``. Centring W instead of Y (each row less its mean) gives the same, and with one more row of
``1 / n`` below it the same product yields the mean: the targets are multiplied as they are read, once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.latents import LatentColumns, Latents, StoredLatents
from unibrain.regression.ridge import Backend, column_blocks
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import ahead

MAX_BLOCK_BYTES = 2**28
"""Largest block of targets that is read at once: 256 MiB. Larger ones multiply no faster, and start later."""

LARGEST = float(np.finfo(np.float32).max)
"""Numbers beyond it are no measurements: gains and stored latents are float32."""

ARRAY = "y"
"""Name of the targets of a decoder that is fitted to one array."""


class InvalidArrayError(InputError, ValueError):
    """An array that cannot be used; scikit-learn's tools expect a `ValueError` for it."""


TargetReader = NDArray[Any] | LatentColumns
"""Targets of shape (n, t), in memory or on disk: ``reader[:, start:stop]`` is an array of float16, 32 or 64."""


class Targets:
    """Targets of n images under one name, with `ids`, the image of each row; read in blocks of columns.

    Products are computed in `compute`: float64 for float64 targets, float32 for all others.
    """

    def __init__(self, reader: TargetReader, name: str, ids: NDArray[np.int64]) -> None:
        self._reader, self.name, self.ids = reader, name, ids
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
        return np.asarray(self._reader[key])

    def slices(self, width: int) -> list[slice]:
        """All columns, in blocks of up to `width`."""
        t = self.shape[1]
        return [slice(start, min(start + width, t)) for start in range(0, t, width)]

    def blocks(self, width: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Blocks of up to `width` columns in the precision of products; one is valid until the next is asked for."""
        return self.read(self.slices(width))

    def read(self, slices: Sequence[slice]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Some blocks, as `blocks` gives them; while one is worked on, a thread reads the next."""
        n = self.shape[0]
        if self.in_memory:
            yield from ((block, self[:, block]) for block in slices)
            return
        widest = max(block.stop - block.start for block in slices)
        buffers = cycle(np.empty((2, n * widest), dtype=self.compute))

        def fill(block: slice) -> tuple[slice, NDArray[Any]]:
            values = next(buffers)[: n * (block.stop - block.start)].reshape(n, -1)
            if isinstance(self._reader, LatentColumns):
                self._reader.read_into(values, block)
            else:
                values[...] = self._reader[:, block]
            return block, values

        yield from ahead(map(fill, slices))

    def take(self, columns: NDArray[np.int64], memory: float) -> NDArray[Any]:
        """Some columns (ascending numbers), reading all blocks once."""
        taken = np.empty((self.shape[0], len(columns)), dtype=self.compute)
        for block, values in self.blocks(block_width(self, 1, memory)):
            first, last = np.searchsorted(columns, [block.start, block.stop])
            taken[:, first:last] = values[:, columns[first:last] - block.start]
        return taken

    def refuse(self, block: slice, values: NDArray[Any]) -> Never:
        """Raise `InvalidArrayError` that names the first value of a block that no product can use."""
        wrong = np.argwhere(~(np.abs(values.astype(np.float64)) <= LARGEST))
        row, column = (int(wrong[0][0]), int(wrong[0][1])) if len(wrong) else (0, 0)
        found = "is NaN, infinite or beyond float32" if len(wrong) else "is in a column whose sum is beyond float32"
        raise InvalidArrayError(
            f"{self.name}: the value of image id {self.ids[row]} (row {row}, target {column + block.start}) {found}. "
            "Extract the latents again, or correct the targets."
        )


@dataclass(frozen=True, eq=False)
class TrainingTargets(Mapping[str, Targets]):
    """Named targets of the same images, and the kind of thing that they came from and predictions are given as."""

    kind: Literal["array", "mapping", "latents"]
    ids: NDArray[np.int64]
    shapes: Mapping[str, tuple[int, ...]]
    readers: Mapping[str, TargetReader]
    stored: StoredLatents | None = None

    def __getitem__(self, name: str) -> Targets:
        return Targets(self.readers[name], name, self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)

    def give(self, flat: Mapping[str, NDArray[Any]], ids: NDArray[np.int64]) -> Any:
        """Predictions of shape (m, t) by name, as what the decoder was fitted to: an array, a dict, or `Latents`."""
        shaped = {name: flat[name].reshape(len(ids), *self.shapes[name]) for name in self}
        if self.kind == "array":
            return shaped[ARRAY]
        return shaped if self.kind == "mapping" else Latents(ids, shaped)


def training_targets(Y: Any, groups: ArrayLike | None = None) -> TrainingTargets:
    """Take an array, a mapping of name to array, `Latents` or `StoredLatents` as named targets.

    `groups` are the images of the rows; by default those of the latents, or each row on its own.
    """
    if isinstance(Y, StoredLatents):
        stored = {name: Y.columns(name) for name in Y.names}
        return TrainingTargets("latents", _image_ids(groups, Y), dict(Y.shapes), stored, Y)
    if Y is None:
        raise InvalidArrayError("A decoder requires y to be passed, but the target y is None.")
    kind: Literal["array", "mapping", "latents"] = "latents" if isinstance(Y, Latents) else "mapping"
    if not isinstance(Y, Mapping):
        kind, Y = "array", {ARRAY: Y}
    if not Y:
        raise InvalidArrayError("There are no targets. Give at least one array.")
    arrays = {str(name): _as_array(array, str(name)) for name, array in Y.items()}
    n = len(next(iter(arrays.values())))
    ids = _image_ids(groups, Y) if kind == "latents" else _group_numbers(groups, n)
    for name, array in arrays.items():
        if len(array) != len(ids):
            raise InvalidArrayError(f"{name} has {len(array)} rows for {len(ids)} images. Give one row each.")
    flat = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
    made = TrainingTargets(kind, ids, {name: array.shape[1:] for name, array in arrays.items()}, flat)
    for targets in made.values():
        for block in column_blocks(*targets.shape):
            values = targets[:, block]
            if not float(np.abs(values).max()) <= LARGEST:
                targets.refuse(block, values)
    return made


def _as_array(array: Any, name: str) -> NDArray[Any]:
    from sklearn.utils import check_array

    try:
        checked: NDArray[Any] = check_array(
            array, ensure_2d=False, allow_nd=True, ensure_all_finite=False, dtype=[np.float64, np.float32, np.float16]
        )
    except ValueError as error:
        raise InvalidArrayError(f"{name}: {str(error).splitlines()[0]}") from error
    if 0 in checked.shape:
        raise InvalidArrayError(f"{name} has shape {checked.shape}, which holds no value. Give one row per image.")
    return checked


def _group_numbers(groups: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Any labels as numbers; each row on its own without them."""
    labels = np.arange(n) if groups is None else np.asarray(groups).reshape(-1)
    if len(labels) != n:
        raise InvalidArrayError(f"There are {len(labels)} groups for {n} rows of targets. Give one per scan.")
    return labels.astype(np.int64) if labels.dtype.kind in "iu" else np.unique(labels, return_inverse=True)[1]


def _image_ids(groups: ArrayLike | None, latents: Latents | StoredLatents) -> NDArray[np.int64]:
    """Ids of the latents, which say to which image each row belongs; given ones must agree."""
    known = np.asarray(latents.stimulus_ids, dtype=np.int64)
    if groups is not None:
        given = _group_numbers(groups, len(known))
        rows = np.flatnonzero(given != known)
        if len(rows):
            raise InvalidArrayError(
                f"Row {rows[0]} is image id {given[rows[0]]} in the scans and {known[rows[0]]} in the latents. Select "
                "the latents by the scans' stimulus ids."
            )
    return known


def varying(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns are not the same in all rows: told by the range, since a mean is rounded."""
    varies: NDArray[np.bool_] = np.ptp(values[:64], axis=0) > 0
    # A few rows tell it of nearly all columns; the others are looked at as a whole.
    doubtful = np.flatnonzero(~varies)
    varies[doubtful] = np.ptp(values[:, doubtful], axis=0) > 0
    return varies


def block_width(targets: Targets, rows: int, memory: float, taken: float = 0.0) -> int:
    """Columns of a block, so that all that streaming holds fits into `memory` bytes, of which some are `taken`.

    `rows` are those of the operator. A multiple of `Targets.chunk_columns` where at least one chunk fits.
    """
    n, t = targets.shape
    item = targets.compute.itemsize
    # The block that is multiplied and the one that is read, and the products.
    column = (0 if targets.in_memory else 2 * n * item) + 3 * rows * item
    if memory - taken < column:
        raise InputError(
            f"memory is {memory / 1e9:g} GB, but {n} training images and {rows} rows take {(taken + column) / 1e9:.2g} "
            "GB. Raise memory, or predict fewer scans at a time."
        )
    width = max(1, int(min((memory - taken) / column, MAX_BLOCK_BYTES / (n * item), t)))
    chunk = targets.chunk_columns
    return width // chunk * chunk if width >= chunk else width


class Operators:
    """Centred operators of shape (m + 1, n), one per penalty, ready to be multiplied with targets.

    The last row of every product is the mean of the targets. `alpha` is the penalty of each target, or that of all.
    """

    def __init__(
        self,
        by_alpha: Mapping[float, NDArray[np.float64]],
        alpha: NDArray[np.float64],
        compute: np.dtype[Any],
        backend: Backend,
    ) -> None:
        weights = []
        for value in np.unique(alpha):
            operator = by_alpha[float(value)]
            m, n = operator.shape
            centred = np.empty((m + 1, n), dtype=compute)
            centred[:m] = operator - operator.mean(axis=1, keepdims=True)
            centred[m] = 1 / n
            weights.append(centred)
        self._set(weights, alpha, backend)

    def _set(self, weights: Sequence[NDArray[Any]], alpha: NDArray[np.float64], backend: Backend) -> None:
        self._needed, self._choice = np.unique(alpha, return_inverse=True)
        self._weights, self._alpha, self._backend = weights, alpha, backend
        self._placed: list[Any] = []
        self._compute, self.rows = weights[0].dtype, len(weights[0])
        self.bytes = sum(each.nbytes for each in weights)

    def save(self, path: Path) -> None:
        """Write them for other processes."""
        from safetensors.numpy import save_file

        parts = {f"weights.{number}": each for number, each in enumerate(self._weights)}
        with atomic_path(path) as temporary:
            save_file(parts | {"alpha": self._alpha}, temporary)

    @classmethod
    def load(cls, path: Path, backend: Backend) -> "Operators":
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        parts, found = load_file(path), cls.__new__(cls)
        alpha = parts.pop("alpha")
        found._set([parts[f"weights.{number}"] for number in range(len(parts))], alpha, backend)
        return found

    def serve(self, alpha: NDArray[np.float64], compute: np.dtype[Any]) -> bool:
        """Whether they hold for other targets, too: all of one penalty, the same, and of the same precision."""
        return len(self._needed) == 1 and np.array_equal(np.unique(alpha), self._needed) and compute == self._compute

    def multiply(self, columns: slice | NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
        """Product of shape (rows, columns), each target with the operator of its own penalty."""
        if not self._placed:
            self._placed = [self._backend.place(each) for each in self._weights]
        choice = self._choice[columns] if len(self._placed) > 1 else self._choice[:1]
        found = np.unique(choice)
        if len(found) == 1:
            return self._backend.multiply(self._placed[int(found[0])], values)
        product = np.empty((self.rows, values.shape[1]), dtype=values.dtype)
        for number in found:
            own = np.flatnonzero(choice == number)
            neighbours = own[-1] - own[0] + 1 == len(own)
            # Tokens are runs of columns, which are multiplied as they lie; scattered targets are gathered.
            where: Any = slice(int(own[0]), int(own[-1]) + 1) if neighbours else own
            product[:, where] = self._backend.multiply(self._placed[int(number)], values[:, where])
        return product


def products(
    operators: Operators, targets: Targets, memory: float
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Multiply block after block of targets, reading each once.

    Yields the columns, operators times centred targets of shape (m, columns), the mean of the targets, and the targets.
    A target that is not finite is refused.
    """
    for block, values in targets.read(blocks_for(operators, targets, memory)):
        product = block_product(operators, targets, block, values)
        yield block, product[:-1], product[-1], values


def blocks_for(operators: Operators, targets: Targets, memory: float) -> list[slice]:
    """The blocks in which targets are multiplied: the same whoever does it."""
    return targets.slices(block_width(targets, operators.rows, memory, operators.bytes))


def block_product(operators: Operators, targets: Targets, block: slice, values: NDArray[Any]) -> NDArray[Any]:
    """One block of `products`, of shape (m + 1, columns); the last row is the mean of the targets."""
    product = operators.multiply(block, values)
    # One value that is not finite makes the mean of its column so: no other look at the targets is needed.
    if not np.isfinite(product[-1]).all():
        targets.refuse(block, values)
    return product


def mean_square(values: NDArray[Any], mean: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Mean squared deviation of each column from `mean` (zero by default), added up in float64, some rows at a time."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), 256):
        part = values[start : start + 256] if mean is None else values[start : start + 256] - mean
        total += np.einsum("ij,ij->j", part, part)
    found: NDArray[np.float64] = total / len(values)
    return found


def variance(values: NDArray[Any], mean: NDArray[Any]) -> NDArray[np.float64]:
    """Variance of each column about its mean; exactly 0 for constant ones."""
    found = mean_square(values, mean)
    # The mean of a constant column may be off by a rounding error; only where that could be, it is looked at again.
    doubtful = np.flatnonzero(found <= 1e-8 * np.square(mean, dtype=np.float64))
    found[doubtful[~varying(values[:, doubtful])]] = 0.0
    return found

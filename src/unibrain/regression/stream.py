"""Operators times targets, in blocks of columns: nearly all the work of fitting and predicting.

A ridge prediction is linear in the targets, ``mean + W (Y - mean)``. Centring W instead of Y (each row less its mean)
gives the same, and with one more row of ``1 / n`` below it the same product yields the mean: the targets are multiplied
as they are read, once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.backend import Backend, NumpyBackend
from unibrain.regression.targets import Targets, as_targets, block_width, varying

__all__ = ["Operators", "apply_operator", "products", "variance"]


class Operators:
    """Centred operators, one per penalty, ready to be multiplied with targets.

    Parameters
    ----------
    by_alpha : mapping of float to ndarray of shape (m, n), float64
        Operator of each penalty.
    alpha : ndarray of shape (t,) or (1,), float64
        Penalty of each target, or that of all.
    compute : numpy.dtype
        Precision of the products.
    backend : Backend

    Attributes
    ----------
    rows : int
        m + 1: the last row of every product is the mean of the targets.
    bytes : int
        Memory that all operators take.
    """

    def __init__(
        self,
        by_alpha: Mapping[float, NDArray[np.float64]],
        alpha: NDArray[np.float64],
        compute: np.dtype[Any],
        backend: Backend,
    ) -> None:
        self._needed, self._choice = np.unique(alpha, return_inverse=True)
        self._compute, self._backend = compute, backend
        self._placed = []
        self.rows, self.bytes = 0, 0
        for value in self._needed:
            operator = by_alpha[float(value)]
            m, n = operator.shape
            weights = np.empty((m + 1, n), dtype=compute)
            weights[:m] = operator - operator.mean(axis=1, keepdims=True)
            weights[m] = 1 / n
            self.rows, self.bytes = m + 1, self.bytes + weights.nbytes
            self._placed.append(backend.place(weights))

    def serve(self, alpha: NDArray[np.float64], compute: np.dtype[Any]) -> bool:
        """Whether they hold for other targets, too: all of one penalty, the same, and of the same precision."""
        return len(self._placed) == 1 and np.array_equal(np.unique(alpha), self._needed) and compute == self._compute

    def multiply(self, block: slice, values: NDArray[Any]) -> NDArray[Any]:
        """Product of shape (rows, columns of the block), each target with the operator of its own penalty."""
        if len(self._placed) == 1:
            return self._backend.multiply(self._placed[0], values)
        return self._multiply(self._choice[block], values)

    def multiply_columns(self, columns: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
        """The same for targets that need not be neighbours."""
        if len(self._placed) == 1:
            return self._backend.multiply(self._placed[0], values)
        return self._multiply(self._choice[columns], values)

    def _multiply(self, choice: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
        found = np.unique(choice)
        if len(found) == 1:
            return self._backend.multiply(self._placed[int(found[0])], values)
        product = np.empty((self.rows, values.shape[1]), dtype=values.dtype)
        for number in found:
            columns = np.flatnonzero(choice == number)
            neighbours = columns[-1] - columns[0] + 1 == len(columns)
            # Tokens are runs of columns, which are multiplied as they lie; scattered targets are gathered.
            where: Any = slice(int(columns[0]), int(columns[-1]) + 1) if neighbours else columns
            product[:, where] = self._backend.multiply(self._placed[int(number)], values[:, where])
        return product


def products(
    operators: Operators, targets: Targets, memory: float, begin: int = 0
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Multiply block after block of targets, reading each once.

    Parameters
    ----------
    operators : Operators
    targets : Targets
        Of shape (n, t).
    memory : float
        Bytes for blocks and operators.
    begin : int
        First column.

    Yields
    ------
    block : slice
        Columns.
    centred : ndarray of shape (m, columns)
        Operator times centred targets; yours to change.
    mean : ndarray of shape (columns,)
        Mean of the targets.
    values : ndarray of shape (n, columns)
        The targets.

    Raises
    ------
    InputError
        If a target is not finite (named by row and block), or one column does not fit into `memory`.
    """
    width = block_width(targets, operators.rows, memory, operators.bytes)
    for block, values in targets.blocks(width, begin):
        product = operators.multiply(block, values)
        # One value that is not finite makes the mean of its column so: no other look at the targets is needed.
        if not np.isfinite(product[-1]).all():
            targets.refuse(block, values)
        yield block, product[:-1], product[-1], values


def variance(values: NDArray[Any], mean: NDArray[Any]) -> NDArray[np.float64]:
    """Mean squared deviation of each column, some rows at a time, added up in float64."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), 256):
        deviation = values[start : start + 256] - mean
        total += np.einsum("ij,ij->j", deviation, deviation)
    found: NDArray[np.float64] = total / len(values)
    # The mean of a constant column may be off by a rounding error; only where that could be, it is looked at again.
    doubtful = np.flatnonzero(found <= 1e-8 * np.square(mean, dtype=np.float64))
    found[doubtful[~varying(values[:, doubtful])]] = 0.0
    return found


def apply_operator(
    operator: NDArray[np.float64],
    targets: Any,
    gain: NDArray[Any] | None = None,
    memory: float = 2e9,
) -> NDArray[Any]:
    """Predict all targets of one array or reader with one operator.

    Parameters
    ----------
    operator : ndarray of shape (m, n), float64
        From `unibrain.regression.ridge.Factorisation.operator` or `CholeskyFactor.operator`.
    targets : ndarray or reader of shape (n, t)
        Training targets, not centred, any float type.
    gain : ndarray of shape (t,), optional
        Factor on the centred prediction of each target.
    memory : float
        Bytes that operator and blocks may take.

    Returns
    -------
    ndarray of shape (m, t)
        Predictions, in the targets' precision (float32 for float16 targets).
    """
    if len(operator) and operator.shape[1] != targets.shape[0]:
        raise InputError(
            f"an operator for {operator.shape[1]} images meets targets of {targets.shape[0]}, expected as many: "
            "use the training targets"
        )
    columns = as_targets(targets)
    operators = Operators({1.0: operator}, np.ones(1), columns.compute, NumpyBackend())
    predictions = np.empty((len(operator), columns.shape[1]), dtype=columns.compute)
    for block, centred, mean, _ in products(operators, columns, memory):
        if gain is not None:
            centred *= np.asarray(gain[block], dtype=centred.dtype)
        predictions[:, block] = centred + mean
    return predictions

"""Linear kernels of scans, added up in float64 over blocks of voxels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.regression.backend import Backend, NumpyBackend

__all__ = ["centred_kernel", "column_blocks", "cross_kernel"]

BLOCK_BYTES = 2**26
"""Largest block of columns that is held in float64 at once: 64 MiB."""


def column_blocks(rows: int, columns: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Cut the columns of a matrix into blocks that fit into `block_bytes` as float64.

    Parameters
    ----------
    rows, columns : int
        Shape of the matrix.
    block_bytes : int
        Bytes that a block may take. A block has at least one column.

    Yields
    ------
    slice
        Consecutive column ranges that cover all columns.

    Examples
    --------
    >>> list(column_blocks(rows=10, columns=5, block_bytes=160))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    width = max(1, block_bytes // (8 * max(1, rows)))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def centred_kernel(
    X: NDArray[Any], weights: NDArray[np.float64] | None = None, backend: Backend | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear kernel of the centred rows, and their mean.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Training scans, any float type; may be a memory map.
    weights : ndarray of shape (p,), float64, optional
        Factor on the product of each voxel with itself, at least 0; 1 if not given. Banded ridge: the inverse penalty
        of each voxel's band.
    backend : Backend, optional
        Where it is computed; NumPy's BLAS if not given.

    Returns
    -------
    kernel : ndarray of shape (n, n), float64
        ``(X - mean) @ diag(weights) @ (X - mean).T``.
    mean : ndarray of shape (p,), float64
        Mean over rows.
    """
    n, p = X.shape
    mean = np.empty(p)

    def blocks() -> Iterator[NDArray[np.float64]]:
        for block in column_blocks(n, p):
            columns = np.array(X[:, block], dtype=np.float64, order="C")
            mean[block] = columns.mean(axis=0)
            columns -= mean[block]
            if weights is not None:
                columns *= np.sqrt(weights[block])
            yield columns

    return (backend or NumpyBackend()).gram(blocks(), n), mean


def cross_kernel(
    X_new: NDArray[Any],
    X: NDArray[Any],
    mean: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    backend: Backend | None = None,
) -> NDArray[np.float64]:
    """Linear kernel between new rows and training rows, both centred with the training mean.

    Parameters
    ----------
    X_new : ndarray of shape (m, p)
        New scans.
    X : ndarray of shape (n, p)
        Training scans.
    mean : ndarray of shape (p,), float64
        From `centred_kernel`.
    weights, backend
        As for `centred_kernel`.

    Returns
    -------
    ndarray of shape (m, n), float64
    """
    backend = backend or NumpyBackend()
    kernel = np.zeros((len(X_new), len(X)))
    for block in column_blocks(len(X_new) + len(X), X.shape[1]):
        new = np.ascontiguousarray(X_new[:, block], dtype=np.float64) - mean[block]
        if weights is not None:
            new *= weights[block]
        train = np.array(X[:, block], dtype=np.float64, order="C")
        train -= mean[block]
        kernel += backend.multiply(backend.place(new), train.T)
    return kernel

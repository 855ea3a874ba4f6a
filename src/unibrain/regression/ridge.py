"""Ridge regression in the dual form, as pure functions over arrays.

Ridge with an intercept predicts ``y_mean + (x - x_mean) Xc' (Xc Xc' + alpha I)^-1 (Y - y_mean)``, where ``Xc`` are the
centred training scans (Saunders, Gammerman and Vovk, 1998, "Ridge regression learning algorithm in dual variables").
The part in front of the targets is one matrix of shape (new scans, training images), the same for every target. So all
targets share one kernel and one factorisation, and the weights (voxels x targets: 17 GB for one subject of NSD) are
never formed.

Kernels are accumulated and factorised in float64 whatever the data are: that costs no more than a float32 product (the
kernel is symmetric) and keeps small penalties exact. Products with the targets, which are nearly all the work, run in
the targets' own precision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = [
    "Factorisation",
    "apply_operator",
    "centred_kernel",
    "column_blocks",
    "cross_kernel",
    "factorise",
    "prediction_operator",
]

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


def centred_kernel(X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear kernel of the centred rows, and their mean.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Training scans, any float type; may be a memory map.

    Returns
    -------
    kernel : ndarray of shape (n, n), float64
        ``(X - mean) @ (X - mean).T``.
    mean : ndarray of shape (p,), float64
        Mean over rows.
    """
    n, p = X.shape
    kernel = np.zeros((n, n))
    mean = np.empty(p)
    for block in column_blocks(n, p):
        columns = np.ascontiguousarray(X[:, block], dtype=np.float64)
        mean[block] = columns.mean(axis=0)
        columns = columns - mean[block]
        kernel += columns @ columns.T
    return kernel, mean


def cross_kernel(X_new: NDArray[Any], X: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear kernel between new rows and training rows, both centred with the training mean.

    Parameters
    ----------
    X_new : ndarray of shape (m, p)
        New scans.
    X : ndarray of shape (n, p)
        Training scans.
    mean : ndarray of shape (p,), float64
        From `centred_kernel`.

    Returns
    -------
    ndarray of shape (m, n), float64
    """
    kernel = np.zeros((len(X_new), len(X)))
    for block in column_blocks(len(X_new) + len(X), X.shape[1]):
        new = np.ascontiguousarray(X_new[:, block], dtype=np.float64) - mean[block]
        train = np.ascontiguousarray(X[:, block], dtype=np.float64) - mean[block]
        kernel += new @ train.T
    return kernel


@dataclass(frozen=True)
class Factorisation:
    """Eigendecomposition of a centred training kernel: one of them serves every alpha.

    A Cholesky factor is three to ten times faster to compute, but holds for one alpha only; here the latents have one
    alpha each, and choosing them looks at a whole grid.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n,), float64
        Ascending, never negative.
    eigenvectors : ndarray of shape (n, n), float64
        One per column.
    """

    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]

    def project(self, cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cross kernel in the eigenbasis: (m, n) to (m, n). It is common to all alphas."""
        projected: NDArray[np.float64] = cross @ self.eigenvectors
        return projected

    def operator(self, projected: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """Prediction operator ``K(new, train) (K + alpha I)^-1``.

        Parameters
        ----------
        projected : ndarray of shape (m, n), float64
            From `project`.
        alpha : float
            Penalty, above 0.

        Returns
        -------
        ndarray of shape (m, n), float64
            Multiply it with centred training targets to get centred predictions.

        Raises
        ------
        InputError
            If `alpha` is not above 0.
        """
        if not (np.isfinite(alpha) and alpha > 0):
            raise InputError(f"alpha is {alpha}, expected a finite penalty above 0: choose another alpha")
        operator: NDArray[np.float64] = (projected / (self.eigenvalues + alpha)) @ self.eigenvectors.T
        return operator


def factorise(kernel: NDArray[np.float64]) -> Factorisation:
    """Eigendecomposition of a symmetric positive semi-definite kernel.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float64

    Returns
    -------
    Factorisation
    """
    from scipy.linalg import eigh

    eigenvalues, eigenvectors = eigh(kernel, check_finite=False, driver="evd")
    # A centred kernel has rank below n: its zero eigenvalues come back as rounding errors of either sign.
    # C order, as after saving and loading: BLAS rounds differently for another layout.
    return Factorisation(np.maximum(eigenvalues, 0.0), np.ascontiguousarray(eigenvectors))


def prediction_operator(kernel: NDArray[np.float64], cross: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Prediction operator for one alpha, from a Cholesky factor: the cheap way where no other alpha is asked for.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float64
        From `centred_kernel`.
    cross : ndarray of shape (m, n), float64
        From `cross_kernel`.
    alpha : float
        Penalty, above 0.

    Returns
    -------
    ndarray of shape (m, n), float64
        Equal to `Factorisation.operator` up to rounding.
    """
    from scipy.linalg import cho_factor, cho_solve

    penalised = kernel.copy()
    penalised[np.diag_indices_from(penalised)] += alpha
    factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
    operator: NDArray[np.float64] = cho_solve(factor, cross.T, check_finite=False).T
    return operator


def apply_operator(
    operator: NDArray[np.float64],
    targets: NDArray[Any],
    gain: NDArray[Any] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> NDArray[Any]:
    """Predict all targets, reading them once, in blocks of columns.

    Parameters
    ----------
    operator : ndarray of shape (m, n), float64
        From `Factorisation.operator`.
    targets : ndarray of shape (n, t)
        Training targets, not centred, any float type; may be a memory map.
    gain : ndarray of shape (t,), optional
        Factor on the centred prediction of each target.
    block_bytes : int
        Bytes that a block of targets may take in float64.

    Returns
    -------
    ndarray of shape (m, t)
        Predictions, in the targets' precision (float32 for float16 targets).
    """
    dtype = np.result_type(targets.dtype, np.float32)
    weights = operator.astype(dtype)
    predictions = np.empty((len(operator), targets.shape[1]), dtype=dtype)
    for block in column_blocks(len(targets), targets.shape[1], block_bytes):
        columns = np.ascontiguousarray(targets[:, block], dtype=dtype)
        mean = columns.mean(axis=0, dtype=np.float64)
        centred = weights @ (columns - mean.astype(dtype))
        if gain is not None:
            centred *= np.asarray(gain[block], dtype=dtype)
        predictions[:, block] = centred + mean.astype(dtype)
    return predictions

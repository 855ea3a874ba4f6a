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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.backend import Backend, NumpyBackend
from unibrain.regression.kernels import centred_kernel, column_blocks, cross_kernel

__all__ = [
    "CholeskyFactor",
    "Factorisation",
    "Solver",
    "centred_kernel",
    "column_blocks",
    "cross_kernel",
    "factorise",
    "factorise_once",
]


class Solver(Protocol):
    """What stands for ``(K + alpha I)^-1``, for one alpha or for any."""

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """Operators ``cross (K + alpha I)^-1`` of shape (m, n), by alpha."""

    def inverse_rows(self, rows: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
        """Rows of ``(K + alpha I)^-1``, of shape (len(rows), n)."""


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

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """Operators of several penalties; see `Solver`."""
        projected = self.project(cross)
        return {alpha: self.operator(projected, alpha) for alpha in alphas}

    def inverse_rows(self, rows: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
        """Rows of ``(K + alpha I)^-1``; see `Solver`."""
        found: NDArray[np.float64] = (self.eigenvectors[rows] / (self.eigenvalues + alpha)) @ self.eigenvectors.T
        return found


@dataclass(frozen=True)
class CholeskyFactor:
    """Cholesky factor of ``K + alpha I``: the cheap way where one alpha, known beforehand, serves all targets.

    Attributes
    ----------
    alpha : float
        The penalty.
    factor : ndarray of shape (n, n), float64
        Lower triangular.
    """

    alpha: float
    factor: NDArray[np.float64]

    def _solve(self, right: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        from scipy.linalg import cho_solve

        if alpha != self.alpha:
            raise InputError(f"alpha is {alpha:g}, expected {self.alpha:g} as in the fit: fit again with that alpha")
        # The transpose of rows is columns, as LAPACK wants them: no copy of the factor.
        found: NDArray[np.float64] = cho_solve((self.factor.T, False), right, check_finite=False)
        return found

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """The operator of its one penalty; see `Solver`."""
        return {alpha: self._solve(cross.T, alpha).T for alpha in alphas}

    def inverse_rows(self, rows: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
        """Rows of ``(K + alpha I)^-1``; see `Solver`."""
        unit = np.zeros((len(self.factor), len(rows)))
        unit[rows, np.arange(len(rows))] = 1
        return self._solve(unit, alpha).T


def factorise(kernel: NDArray[np.float64], backend: Backend | None = None) -> Factorisation:
    """Eigendecomposition of a symmetric positive semi-definite kernel.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float64
    backend : Backend, optional
        Where it is computed; LAPACK if not given.

    Returns
    -------
    Factorisation
    """
    eigenvalues, eigenvectors = (backend or NumpyBackend()).eigh(kernel)
    # A centred kernel has rank below n: its zero eigenvalues come back as rounding errors of either sign.
    # C order, as after saving and loading: BLAS rounds differently for another layout.
    return Factorisation(np.maximum(eigenvalues, 0.0), np.ascontiguousarray(eigenvectors))


def factorise_once(
    kernel: NDArray[np.float64], alpha: float, backend: Backend | None = None
) -> "CholeskyFactor | Factorisation":
    """Factorise for one penalty alone.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float64
        Overwritten.
    alpha : float
        Penalty above 0.
    backend : Backend, optional
        Where it is computed; LAPACK if not given.

    Returns
    -------
    CholeskyFactor or Factorisation
        The latter where the penalty is so small beside the kernel that rounding leaves no Cholesky factor.

    Raises
    ------
    InputError
        If `alpha` is not above 0.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise InputError(f"alpha is {alpha}, expected a finite penalty above 0: choose another alpha")
    backend = backend or NumpyBackend()
    if alpha < 1e-11 * np.trace(kernel):
        return factorise(kernel, backend)
    kernel[np.diag_indices_from(kernel)] += alpha
    return CholeskyFactor(alpha, np.ascontiguousarray(backend.cholesky(kernel)))

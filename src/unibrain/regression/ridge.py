"""Ridge regression in the dual form: kernels, their factorisations, and what these predict.

Ridge with an intercept predicts ``y_mean + (x - x_mean) Xc' (Xc Xc' + alpha I)^-1 (Y - y_mean)``, where ``Xc`` are the
centred training scans (Saunders, Gammerman and Vovk, 1998, "Ridge regression learning algorithm in dual variables").
The part in front of the targets is one matrix of shape (new scans, training images), the same for every target. So all
targets share one kernel and one factorisation, and the weights (voxels x targets: 17 GB for one subject of NSD) are
never formed.

Kernels are accumulated and factorised in float64 whatever the data are: that costs no more than a float32 product (the
kernel is symmetric) and keeps small penalties exact. Products with the targets, which are nearly all the work, run in
the targets' own precision (`unibrain.regression.targets`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.backend import Backend, NumpyBackend

BLOCK_BYTES = 2**26
"""Largest block of columns that is held in float64 at once: 64 MiB."""


def column_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut the columns of a matrix into blocks of at most `BLOCK_BYTES` in float64, and at least one column."""
    width = max(1, BLOCK_BYTES // (8 * max(1, rows)))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def centred_kernel(
    X: NDArray[Any], weights: NDArray[np.float64] | None = None, backend: Backend | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(X - mean) @ diag(weights) @ (X - mean).T`` of shape (n, n), and the mean over rows, of shape (voxels,).

    Banded ridge weights each voxel with the inverse penalty of its band; ordinary ridge has no weights.
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
    """Kernel of shape (m, n) between new and training scans, both less the training mean."""
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


@dataclass(frozen=True)
class Factorisation:
    """Eigendecomposition of a centred training kernel, with ascending eigenvalues: one of them serves every alpha."""

    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of training scans."""
        return len(self.eigenvalues)

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """``cross (K + alpha I)^-1`` of shape (m, n), by alpha: times centred targets, they are centred predictions."""
        projected = cross @ self.eigenvectors
        return {alpha: (projected / (self.eigenvalues + alpha)) @ self.eigenvectors.T for alpha in alphas}


@dataclass(frozen=True)
class CholeskyFactor:
    """Lower triangular factor of ``K + alpha I``: three to ten times faster to compute, but for one alpha only."""

    alpha: float
    factor: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of training scans."""
        return len(self.factor)

    def solve(self, right: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """``(K + alpha I)^-1 right``."""
        from scipy.linalg import cho_solve

        if alpha != self.alpha:
            raise InputError(f"alpha is {alpha:g}, but the kernel was factorised for {self.alpha:g}. Fit again.")
        # The transpose of rows is columns, as LAPACK wants them: no copy of the factor.
        found: NDArray[np.float64] = cho_solve((self.factor.T, False), right, check_finite=False)
        return found

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """See `Factorisation`."""
        return {alpha: self.solve(cross.T, alpha).T for alpha in alphas}


Solver = Factorisation | CholeskyFactor
"""What stands for ``(K + alpha I)^-1``, for any alpha or for one."""


def factorise(kernel: NDArray[np.float64], backend: Backend | None = None) -> Factorisation:
    """Eigendecomposition of a symmetric positive semi-definite kernel."""
    eigenvalues, eigenvectors = (backend or NumpyBackend()).eigh(kernel)
    # A centred kernel has rank below n: its zero eigenvalues come back as rounding errors of either sign.
    # C order, as after saving and loading: BLAS rounds differently for another layout.
    return Factorisation(np.maximum(eigenvalues, 0.0), np.ascontiguousarray(eigenvectors))


def factorise_once(kernel: NDArray[np.float64], alpha: float, backend: Backend | None = None) -> Solver:
    """Factorise for one penalty alone; overwrites the kernel.

    Where the penalty is so small beside the kernel that rounding leaves no Cholesky factor, it is decomposed.
    """
    backend = backend or NumpyBackend()
    if alpha < 1e-11 * np.trace(kernel):
        return factorise(kernel, backend)
    kernel[np.diag_indices_from(kernel)] += alpha
    return CholeskyFactor(alpha, np.ascontiguousarray(backend.cholesky(kernel)))


@dataclass(frozen=True)
class System:
    """One factorised kernel, the targets that it predicts, and the weight of each voxel in it (None without bands)."""

    names: tuple[str, ...]
    weights: NDArray[np.float64] | None
    solver: Solver

    def operators(
        self,
        scans: NDArray[Any],
        betas: NDArray[Any],
        mean: NDArray[np.float64],
        alphas: Iterable[float],
        backend: Backend,
    ) -> dict[float, NDArray[np.float64]]:
        """Operators of shape (scans, training images), by alpha; `betas` and `mean` are those of training."""
        return self.solver.operators(cross_kernel(scans, betas, mean, self.weights, backend), alphas)

"""`System`: one kernel, its factorisation, and the latents that share it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.regression.backend import Backend
from unibrain.regression.ridge import Solver, cross_kernel

__all__ = ["System", "pack_lower", "unpack_lower"]


@dataclass(frozen=True)
class System:
    """What precedes the targets in a prediction.

    Attributes
    ----------
    latents : tuple of str
        The latents that it predicts.
    weights : ndarray of shape (voxels,), float64, or None
        Factor on each voxel's part of the kernel; None for ordinary ridge. In banded ridge the inverse penalty of the
        voxel's band.
    solver : Solver
        Factorisation of the kernel of the training scans.
    """

    latents: tuple[str, ...]
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
        """Operators of shape (scans, training images), by alpha.

        Parameters
        ----------
        scans : ndarray of shape (m, voxels)
        betas : ndarray of shape (n, voxels)
            The training scans.
        mean : ndarray of shape (voxels,)
            Their mean.
        alphas : iterable of float
        backend : Backend
        """
        return self.solver.operators(cross_kernel(scans, betas, mean, self.weights, backend), alphas)


def pack_lower(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower triangle row by row: half the size. Shape (n, n) to (n (n + 1) / 2,)."""
    n = len(factor)
    packed = np.empty(n * (n + 1) // 2)
    for row in range(n):
        start = row * (row + 1) // 2
        packed[start : start + row + 1] = factor[row, : row + 1]
    return packed


def unpack_lower(packed: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `pack_lower` packed, zeros above the diagonal."""
    n = int((np.sqrt(8 * len(packed) + 1) - 1) / 2)
    factor = np.zeros((n, n))
    for row in range(n):
        start = row * (row + 1) // 2
        factor[row, : row + 1] = packed[start : start + row + 1]
    return factor

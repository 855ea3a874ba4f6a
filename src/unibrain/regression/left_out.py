"""Predictions of training images by a ridge that never saw them, in closed form from one factorisation of all of them.

With the residual operator ``R = alpha (K + alpha I)^-1 - 1/n`` of all n rows, the residuals of a group b of rows,
predicted by a ridge (with its own intercept and its own mean of the scans) that was fitted without them, are
``R[b, b]^-1 R[b] Y``. For single rows this is PRESS (Allen, 1974, "The relationship between variable selection and data
augmentation and a method for prediction"); for folds, An, Liu and Venkatesh (2007, "Fast cross-validation algorithms
for least squares support vector machine and kernel ridge regression"). It equals refitting, and nothing of a group
enters the prediction for it. The intercept is exact too: ``R Y`` are the residuals of a penalised fit of weights and a
free intercept, and the fit without b is the fit of all rows in which the targets of b are their own predictions.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import Factorisation
from unibrain.regression.splits import batches, split_images

__all__ = [
    "batch_residuals",
    "deviation_rows",
    "leave_out_operator",
    "left_out_residuals",
    "residual_rows",
    "solve_own",
]

SMALLEST_PIVOT = 1e-12
"""Residual operators have eigenvalues between 0 and 1; below this, float64 has fewer than four digits of them left."""


def left_out_residuals(
    factorisation: Factorisation, held_out: Sequence[NDArray[np.int64]], alpha: float, rotated: NDArray[Any]
) -> NDArray[Any]:
    """Residuals of every row, predicted without its group.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    held_out : sequence of ndarray of int64
        Groups of rows that are left out together; every row in one of them.
    alpha : float
        Penalty above 0.
    rotated : ndarray of shape (n, t), float32 or float64
        ``eigenvectors.T @ targets``, of targets less their mean over all rows. It is the same for every alpha.

    Returns
    -------
    ndarray of shape (n, t)
        Target less prediction, in the dtype of `rotated`.

    Raises
    ------
    InputError
        If alpha is too small for the kernel, so that rounding would decide.
    """
    residual = np.empty_like(rotated)
    for rows in batches(held_out):
        residual[rows.ravel()] = next(batch_residuals(factorisation, rows, [alpha], rotated))
    return residual


def batch_residuals(
    factorisation: Factorisation, rows: NDArray[np.int64], alphas: Iterable[float], rotated: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """Residuals of some rows, predicted without their group, for one alpha after the other.

    Parameters
    ----------
    factorisation, rotated
        As for `left_out_residuals`.
    rows : ndarray of shape (groups, size), int64
        Groups of rows that are left out together (`unibrain.regression.splits.batches`).
    alphas : iterable of float
        Penalties above 0.

    Yields
    ------
    ndarray of shape (groups * size, t)
        For each alpha; see `left_out_residuals`.

    Raises
    ------
    InputError
        If an alpha is too small for the kernel.
    """
    vectors = factorisation.eigenvectors[rows.ravel()]
    factors = vectors.astype(rotated.dtype, copy=False)
    for alpha in alphas:
        shrinkage = alpha / (factorisation.eigenvalues + alpha)
        own = _own(vectors, rows.shape, shrinkage)
        product = (factors * shrinkage.astype(rotated.dtype)) @ rotated
        yield solve_own(own, product.reshape(*rows.shape, -1), alpha).reshape(product.shape)


def residual_rows(
    factorisation: Factorisation, held_out: Sequence[NDArray[np.int64]], alpha: float, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Operator from all targets to the left-out residuals of some rows.

    Where few rows are looked at and the targets are many, it is cheaper than rotating all targets.

    Parameters
    ----------
    factorisation, held_out, alpha
        As for `left_out_residuals`.
    rows : ndarray of shape (m,), int64
        Different row numbers.

    Returns
    -------
    ndarray of shape (m, n), float64
        Multiply it with the targets; its rows sum to zero, so that centring them is needed for precision only.

    Raises
    ------
    InputError
        If alpha is too small for the kernel.
    """
    n = len(factorisation.eigenvalues)
    position = np.full(n, -1)
    position[rows] = np.arange(len(rows))
    projected = np.empty((len(rows), n))
    sums = np.empty(len(rows))
    shrinkage = alpha / (factorisation.eigenvalues + alpha)
    for groups in batches([group for group in held_out if (position[group] >= 0).any()]):
        scaled = factorisation.eigenvectors[groups.ravel()]
        own = _own(scaled, groups.shape, shrinkage)
        scaled *= shrinkage
        wanted = position[groups] >= 0
        # Of one large fold only the wanted columns of the inverse are solved for.
        columns = np.flatnonzero(wanted.any(axis=0))
        identity = np.broadcast_to(np.eye(groups.shape[1])[:, columns], (len(groups), groups.shape[1], len(columns)))
        weights = np.swapaxes(solve_own(own, identity, alpha), 1, 2)
        keep = wanted[:, columns]
        target = position[groups[:, columns][keep]]
        projected[target] = (weights @ scaled.reshape(*groups.shape, n))[keep]
        sums[target] = weights.sum(axis=2)[keep]
    return projected @ factorisation.eigenvectors.T - sums[:, None] / n


def leave_out_operator(
    factorisation: Factorisation,
    stimulus_ids: NDArray[np.int64],
    alpha: float,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """What predicts training rows without their own image.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row; at least two different ones.
    alpha : float
        Penalty above 0.
    rows : ndarray of shape (m,), int64, optional
        The rows to predict, all by default. Applied to the targets, a sample of a few hundred is as cheap as predicting
        a few hundred scans.

    Returns
    -------
    ndarray of shape (m, n), float64
        Multiply it with the targets to get each row's prediction less the mean of the other images' targets.

    Raises
    ------
    InputError
        If alpha is too small for the kernel, or there is only one image.
    """
    rows = np.arange(len(stimulus_ids)) if rows is None else rows
    held_out = split_images(stimulus_ids, "loo")
    residual = residual_rows(factorisation, held_out, alpha, rows)
    return deviation_rows(held_out, len(stimulus_ids), rows) - residual


def deviation_rows(held_out: Sequence[NDArray[np.int64]], n: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Operator from all targets to the targets of some rows less the mean of the rows outside their group.

    Parameters
    ----------
    held_out : sequence of ndarray of int64
        Groups of rows that are left out together.
    n : int
        Number of all rows.
    rows : ndarray of shape (m,), int64

    Returns
    -------
    ndarray of shape (m, n), float64
    """
    group_of = np.empty(n, dtype=np.int64)
    for number, group in enumerate(held_out):
        group_of[group] = number
    others = n - np.bincount(group_of)[group_of[rows]]
    operator: NDArray[np.float64] = (group_of != group_of[rows][:, None]) / -others[:, None]
    operator[np.arange(len(rows)), rows] = 1.0
    return operator


def solve_own(own: NDArray[np.float64], right: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Solve the positive definite systems of the groups that are left out.

    Parameters
    ----------
    own : ndarray of shape (groups, rows, rows), float64
        Blocks of the residual operator.
    right : ndarray of shape (groups, rows, t)
    alpha : float
        For the message only.

    Returns
    -------
    ndarray of shape (groups, rows, t)
        In the dtype of `right`.

    Raises
    ------
    InputError
        If a block is singular but for rounding.
    """
    from scipy.linalg import cho_solve

    try:
        factors = np.sqrt(own) if own.shape[1] == 1 and own.min() > 0 else np.linalg.cholesky(own)
    except np.linalg.LinAlgError:
        factors = np.zeros_like(own)
    smallest = float(np.diagonal(factors, axis1=1, axis2=2).min()) ** 2
    if smallest < SMALLEST_PIVOT:
        raise InputError(
            f"alpha {alpha:g} is too small beside the scans' kernel: predictions of images left out would be rounding "
            "errors, expected a penalty that shrinks: leave the smallest alphas out of the grid"
        )
    solution: NDArray[Any]
    if own.shape[1] == 1:
        solution = right / own
    elif len(own) == 1:
        # The factor is exact to double precision; with single-precision targets, the solution need not be.
        factor = factors[0].astype(right.dtype, copy=False)
        solution = cho_solve((factor, True), right[0], check_finite=False)[None]
    else:
        solution = np.linalg.solve(own, right)
    return solution.astype(right.dtype, copy=False)


def _own(vectors: NDArray[np.float64], shape: tuple[int, ...], shrinkage: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blocks of the residual operator, of shape (groups, rows, rows), from the eigenvectors of groups of rows."""
    n = len(shrinkage)
    own: NDArray[np.float64]
    if shape[1] == 1:
        own = np.einsum("ij,ij->i", vectors * shrinkage, vectors)[:, None, None]
    else:
        scaled = vectors * np.sqrt(shrinkage)
        # A product with its own transpose is half the work.
        grouped = scaled.reshape(*shape, n)
        own = (scaled @ scaled.T)[None] if len(grouped) == 1 else grouped @ np.swapaxes(grouped, 1, 2)
    own -= 1 / n
    return own

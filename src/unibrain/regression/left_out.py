"""Predictions of training images by a ridge that never saw them, in closed form from one factorisation of all of them.

With the residual operator ``R = alpha (K + alpha I)^-1 - 1/n`` of all n rows, the residuals of a group b of rows,
predicted by a ridge (with its own intercept and its own mean of the scans) that was fitted without them, are
``R[b, b]^-1 R[b] Y``. For single rows this is PRESS (Allen, 1974, "The relationship between variable selection and data
augmentation and a method for prediction"); for folds, An, Liu and Venkatesh (2007, "Fast cross-validation algorithms
for least squares support vector machine and kernel ridge regression"). It equals refitting, and nothing of a group
enters the prediction for it. The intercept is exact too: ``R Y`` are the residuals of a penalised fit of weights and a
free intercept, and the fit without b is the fit of all rows in which the targets of b are their own predictions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import Factorisation, column_blocks
from unibrain.regression.splits import batches, split_images

__all__ = [
    "deviation_rows",
    "leave_out_moments",
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
        scaled, own, root = _own(factorisation, rows, alpha)
        scaled *= root
        product = scaled.astype(rotated.dtype, copy=False) @ rotated
        residual[rows.ravel()] = solve_own(own, product.reshape(*rows.shape, -1), alpha).reshape(product.shape)
    return residual


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
    for groups in batches([group for group in held_out if (position[group] >= 0).any()]):
        scaled, own, root = _own(factorisation, groups, alpha)
        scaled *= root
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
        The rows to predict, all by default. A sample of a few hundred makes `leave_out_moments` as cheap as predicting
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


def leave_out_moments(operator: NDArray[np.float64], targets: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Variance of what is predicted for images left out, and of the targets, per dimension.

    Parameters
    ----------
    operator : ndarray of shape (m, n), float64
        From `leave_out_operator`.
    targets : ndarray or reader of shape (n, t)
        One latent, flattened; read once, in blocks of columns.

    Returns
    -------
    predicted, true : ndarray of shape (t,), float64
        Mean over the m predicted rows, and over all n rows, of the squared deviation from the training mean.
    """
    n, count = targets.shape
    dtype = np.result_type(targets.dtype, np.float32)
    weights = operator.astype(dtype)
    predicted, true = np.zeros(count), np.zeros(count)
    for block in column_blocks(n, count):
        columns = np.ascontiguousarray(targets[:, block], dtype=dtype)
        columns = columns - columns.mean(axis=0, dtype=np.float64).astype(dtype)
        predicted[block] = np.mean((weights @ columns) ** 2, axis=0, dtype=np.float64)
        true[block] = np.mean(columns**2, axis=0, dtype=np.float64)
    return predicted, true


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


def _own(
    factorisation: Factorisation, rows: NDArray[np.int64], alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvectors of groups of rows times the roots of their shrinkage, blocks of the residual operator, and roots."""
    n = len(factorisation.eigenvalues)
    root = np.sqrt(alpha / (factorisation.eigenvalues + alpha))
    scaled = factorisation.eigenvectors[rows.ravel()] * root
    if rows.shape[1] == 1:
        own = np.einsum("ij,ij->i", scaled, scaled)[:, None, None]
    elif len(rows) == 1:
        # A product with its own transpose: half the work.
        own = (scaled @ scaled.T)[None]
    else:
        grouped = scaled.reshape(*rows.shape, n)
        own = grouped @ np.swapaxes(grouped, 1, 2)
    return scaled, own - 1 / n, root

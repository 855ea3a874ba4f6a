"""Predictions of training images by a ridge that never saw them, in closed form from one factorisation of all of them.

With the residual operator ``R = alpha (K + alpha I)^-1 - 1/n`` of all n rows, the residuals of a group b of rows,
predicted by a ridge (with its own intercept and its own mean of the scans) that was fitted without them, are
``R[b, b]^-1 R[b] Y``. For single rows this is PRESS (Allen, 1974, "The relationship between variable selection and data
augmentation and a method for prediction"); for folds, An, Liu and Venkatesh (2007, "Fast cross-validation algorithms
for least squares support vector machine and kernel ridge regression"). It equals refitting, and nothing of a group
enters the prediction for it. The intercept is exact too: ``R Y`` are the residuals of a penalised fit of weights and a
free intercept, and the fit without b is the fit of all rows in which the targets of b are their own predictions.
"""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import CholeskyFactor, Factorisation, Solver, too_small

Scheme = int | Literal["loo"]
"""Number of folds, or ``"loo"``: leave out one image (all its repeats) at a time."""

Groups = Sequence[NDArray[np.int64]]
"""Rows that are left out together, group by group; every row is in exactly one."""

BATCH_ROWS = 1024
"""Small groups are worked on together, up to this many rows."""

SINGLE_CONDITION = 1e3
"""Largest eigenvalue over alpha up to which targets in single precision get all of the arithmetic in it."""

SMALLEST_PIVOT = 1e-12
"""Residual operators have eigenvalues between 0 and 1; below this, float64 has fewer than four digits of them left."""


def split_images(ids: NDArray[np.int64], scheme: Scheme, seed: int = 0) -> list[NDArray[np.int64]]:
    """Rows that are left out together; rows of the same image stay together, and ascend.

    Not scikit-learn's splitters: these deal images to folds by their size and not by `seed` alone, and make an index of
    all other rows for every image that is left out, which takes n^2 steps.

    Examples
    --------
    >>> [rows.tolist() for rows in split_images(np.array([7, 3, 7]), "loo")]
    [[1], [0, 2]]
    """
    images, image_of_row = np.unique(ids, return_inverse=True)
    if len(images) < 2:
        raise InputError(f"All training scans are of {len(images)} image. Add images: one is to be left out.")
    if scheme == "loo":
        return np.split(np.argsort(image_of_row, kind="stable"), np.cumsum(np.bincount(image_of_row))[:-1])
    if not isinstance(scheme, Integral) or isinstance(scheme, bool) or not 2 <= scheme <= len(images):
        raise InputError(
            f"folds is {scheme!r}. Choose 'loo' or a number from 2 to {len(images)}, the number of training images."
        )
    fold_of_image = np.random.default_rng(seed).permutation(len(images)) % scheme
    return [np.flatnonzero(fold_of_image[image_of_row] == fold) for fold in range(scheme)]


def sample_rows(ids: NDArray[np.int64], images: int, seed: int) -> NDArray[np.int64]:
    """All rows, ascending, of so many images, drawn by `seed`; all rows if there are no more images."""
    present = np.unique(ids)
    if images < len(present):
        present = np.random.default_rng(seed).choice(present, images, replace=False)
    return np.flatnonzero(np.isin(ids, present))


def batches(held_out: Groups) -> Iterator[NDArray[np.int64]]:
    """Stack groups of the same size, one per row, so that thousands of small ones are worked on at once."""
    sizes = np.array([len(rows) for rows in held_out])
    for size in np.unique(sizes):
        groups = np.stack([held_out[int(group)] for group in np.flatnonzero(sizes == size)])
        step = max(1, BATCH_ROWS // int(size))
        for start in range(0, len(groups), step):
            yield groups[start : start + step]


def left_out_residuals(
    factorisation: Factorisation,
    held_out: Groups,
    alpha: float,
    rotated: NDArray[Any],
    beside: NDArray[Any],
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Rows, and residuals of shape (rows, t), of all groups predicted without their group, in the dtype of `beside`.

    Of targets less their mean over all rows, `rotated` is ``targets.T @ basis``, and `beside` what is left of them
    beside the basis: 0 if it is complete. Both are the same for every alpha.
    """
    # In single precision the residuals are off by its rounding times the condition, whatever the blocks are in.
    mild = factorisation.largest <= SINGLE_CONDITION * alpha
    dtype = beside.dtype if mild else np.dtype(np.float64)
    root = factorisation.root(alpha, dtype)
    halved = root.half(np.array(rotated, dtype=dtype)).astype(beside.dtype, copy=False)
    for groups in batches(held_out):
        rows = groups.ravel()
        vectors: NDArray[Any] = factorisation.basis[rows].astype(dtype, copy=False)
        outside = _outside(factorisation, vectors, groups.shape)
        own = _own_blocks(factorisation, root.half(vectors), outside, groups.shape, alpha)
        product = vectors.astype(beside.dtype, copy=False) @ halved.T
        product *= beside.dtype.type(alpha)
        if not factorisation.complete:
            product += beside[rows]
        yield rows, solve_own(own, product.reshape(*groups.shape, -1), alpha).reshape(product.shape)


def left_out_operator(solver: Solver, held_out: Groups, alpha: float, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """What predicts some training rows without their group, as an operator of shape (rows, n) on all targets.

    Its products are the predictions less the mean of the targets that were kept. Where few rows are looked at and the
    targets are many, it is cheaper than `left_out_residuals`.
    """
    position = np.full(solver.n, -1)
    position[rows] = np.arange(len(rows))
    projected, sums = np.empty((len(rows), solver.n)), np.empty(len(rows))
    for groups in batches([group for group in held_out if (position[group] >= 0).any()]):
        scaled, own = _residual_rows(solver, groups, alpha)
        wanted = position[groups] >= 0
        # Of one large fold only the wanted columns of the inverse are solved for.
        columns = np.flatnonzero(wanted.any(axis=0))
        identity = np.broadcast_to(np.eye(groups.shape[1])[:, columns], (len(groups), groups.shape[1], len(columns)))
        weights = np.swapaxes(solve_own(own, identity, alpha), 1, 2)
        keep = wanted[:, columns]
        target = position[groups[:, columns][keep]]
        projected[target] = (weights @ scaled.reshape(*groups.shape, solver.n))[keep]
        sums[target] = weights.sum(axis=2)[keep]
    if isinstance(solver, Factorisation) and solver.complete:
        projected = projected @ solver.basis.T
    # Predictions and not residuals: in single precision, small predictions would drown in the latter.
    return deviation_operator(held_out, solver.n, rows) - (projected - sums[:, None] / solver.n)


def _residual_rows(
    solver: Solver, groups: NDArray[np.int64], alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of ``R + 1/n`` (of a complete `Factorisation`, in its basis), and the groups' own blocks of R."""
    if isinstance(solver, CholeskyFactor):
        unit = np.zeros((solver.n, groups.size))
        unit[groups.ravel(), np.arange(groups.size)] = 1
        found = alpha * solver.solve(unit, alpha).T
        own = np.take_along_axis(found.reshape(*groups.shape, solver.n), groups[:, None, :], axis=2) - 1 / solver.n
        return found, own
    root, vectors = solver.root(alpha), solver.basis[groups.ravel()]
    outside = _outside(solver, vectors, groups.shape)
    half = root.half(vectors.copy())
    own = _own_blocks(solver, half, outside, groups.shape, alpha)
    whole = root.rest(half)
    whole *= alpha
    if not solver.complete:
        whole = (whole - vectors) @ solver.basis.T
        whole[np.arange(groups.size), groups.ravel()] += 1
    return whole, own


def _outside(factorisation: Factorisation, vectors: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | float:
    """Blocks of the projection beside the basis, from its rows; 0 if it is complete."""
    return 0.0 if factorisation.complete else np.eye(shape[1]) - _squares(vectors, shape)


def _own_blocks(
    factorisation: Factorisation,
    half: NDArray[Any],
    outside: NDArray[Any] | float,
    shape: tuple[int, ...],
    alpha: float,
) -> NDArray[Any]:
    """Blocks of R, of shape (groups, rows, rows), from the groups' rows of the basis, solved half."""
    own = _squares(half, shape)
    own *= alpha
    own += outside - 1 / factorisation.n
    return own


def _squares(rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Products of each group's rows with each other, of shape (groups, rows, rows)."""
    squares: NDArray[Any]
    grouped = rows.reshape(*shape, -1)
    if shape[1] == 1:
        squares = np.einsum("ij,ij->i", rows, rows)[:, None, None]
    elif len(grouped) == 1:
        # A product with its own transpose is half the work.
        squares = (rows @ rows.T)[None]
    else:
        squares = grouped @ np.swapaxes(grouped, 1, 2)
    return squares


def solve_own(own: NDArray[Any], right: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Solve the positive definite systems of the groups that are left out, in the dtype of `right`."""
    from scipy.linalg import cho_solve

    try:
        factors = np.sqrt(own) if own.shape[1] == 1 and own.min() > 0 else np.linalg.cholesky(own)
    except np.linalg.LinAlgError:
        factors = np.zeros_like(own)
    smallest = float(np.diagonal(factors, axis1=1, axis2=2).min()) ** 2
    if not smallest >= SMALLEST_PIVOT:
        raise too_small(alpha)
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


def deviations(held_out: Groups, columns: NDArray[Any]) -> NDArray[Any]:
    """Targets, given less their mean over all rows, less the mean of the rows that were not left out with them."""
    true = np.empty_like(columns)
    for rows in held_out:
        true[rows] = columns[rows] + columns[rows].sum(axis=0) / (len(columns) - len(rows))
    return true


def deviation_operator(held_out: Groups, n: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Operator from all targets to the `deviations` of some rows."""
    group_of = np.empty(n, dtype=np.int64)
    for number, group in enumerate(held_out):
        group_of[group] = number
    others = n - np.bincount(group_of)[group_of[rows]]
    operator: NDArray[np.float64] = (group_of != group_of[rows][:, None]) / -others[:, None]
    operator[np.arange(len(rows)), rows] = 1.0
    return operator

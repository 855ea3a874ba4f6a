"""Scores of every alpha on training images that were left out.

What it costs for n rows, a alphas, K folds, c columns and t targets, beyond the one eigendecomposition:

- scoring all rows on c columns: ``2 n^2 c`` to rotate the columns, and per alpha ``n^3 / K`` for the blocks of the
  residual operator, ``2 n^2 c`` for the residuals and ``2 n^2 c / K`` to solve (leaving out one image, only the
  second).
  Groups share all of it: an alpha per token costs what its columns cost, not a factorisation;
- scoring m rows on all t targets: per alpha ``n^3 / K + 2 m n^2`` for the operator, and ``2 m n t`` to apply it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.left_out import batch_residuals, deviation_rows, residual_rows
from unibrain.regression.ridge import Factorisation
from unibrain.regression.sketches import Sketch
from unibrain.regression.splits import batches
from unibrain.regression.targets import TargetReader, as_targets, block_width, varying
from unibrain.workspace.progress import track

__all__ = ["alpha_grid", "deviations", "sample_rows", "score_alphas", "score_targets"]

Curves = tuple[NDArray[np.float64], NDArray[np.float64]]
"""R squared and correlation, each of shape (groups, alphas)."""


def alpha_grid(alphas: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The penalties, ascending and each once.

    Raises
    ------
    InputError
        If there is none, or one is not finite and above 0.
    """
    grid: NDArray[np.float64] = np.unique(np.asarray(alphas, dtype=np.float64))
    if not len(grid):
        raise InputError("alphas is empty, expected at least one penalty above 0: leave it at its default")
    wrong = grid[~(np.isfinite(grid) & (grid > 0))]
    if len(wrong):
        raise InputError(f"alphas holds {wrong[0]:g}, expected finite penalties above 0: choose positive numbers")
    return grid


def deviations(held_out: Sequence[NDArray[np.int64]], columns: NDArray[Any]) -> NDArray[Any]:
    """Targets less the mean of the rows that were not left out with them.

    Parameters
    ----------
    held_out : sequence of ndarray of int64
        Groups of rows that are left out together; every row in one of them.
    columns : ndarray of shape (n, c)
        Targets less their mean over all rows.

    Returns
    -------
    ndarray of shape (n, c)
    """
    true = np.empty_like(columns)
    for rows in held_out:
        true[rows] = columns[rows] + columns[rows].sum(axis=0) / (len(columns) - len(rows))
    return true


def score_alphas(
    factorisation: Factorisation,
    held_out: Sequence[NDArray[np.int64]],
    sketch: Sketch,
    alphas: NDArray[np.float64],
    verbose: bool = False,
) -> dict[str, Curves]:
    """Score every alpha on all rows, by a sketch of the targets.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    held_out : sequence of ndarray of int64
        Groups of rows that are left out together (`unibrain.regression.splits`).
    sketch : Sketch
        Columns that stand for the targets.
    alphas : ndarray of shape (a,), float64
        From `alpha_grid`.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    dict of str to (ndarray, ndarray), each of shape (groups, a)
        R squared (one minus the squared error over the squared deviation from the mean of the rows kept, both summed
        over rows and the group's columns) and correlation of predicted and true deviations across rows (mean over the
        group's columns that vary). Both are 0 where nothing varies.

    Raises
    ------
    InputError
        If an alpha is too small for the kernel.
    """
    true = deviations(held_out, sketch.columns)
    rotated = factorisation.eigenvectors.T.astype(true.dtype, copy=False) @ sketch.columns
    moments = np.zeros((3, len(alphas), true.shape[1]))
    groups = list(batches(held_out))
    for rows in track(groups, "choose alphas", unit="group of rows") if verbose else groups:
        own = true[rows.ravel()]
        for step, residual in enumerate(batch_residuals(factorisation, rows, alphas.tolist(), rotated)):
            moments[:, step] += _moments(residual, own - residual, own)
    total = _sum_of_products(true, true) * sketch.varies
    error, predicted, product = moments * sketch.varies
    cosine = _cosine(product, predicted, total)
    curves = {}
    for name, edges in sketch.groups.items():
        starts, whole = edges[:-1], slice(edges[0], edges[-1])
        sums = [
            np.add.reduceat(array[..., whole], starts - edges[0], axis=-1)
            for array in (error, total, cosine, sketch.varies.astype(np.float64))
        ]
        curves[name] = _r2(sums[0], sums[1]).T, (sums[2] / np.maximum(sums[3], 1)).T
    return curves


def sample_rows(stimulus_ids: NDArray[np.int64], images: int, seed: int) -> NDArray[np.int64]:
    """All rows of some images, drawn by seed; all rows if there are no more images.

    Parameters
    ----------
    stimulus_ids : ndarray of shape (n,), int64
    images : int
        At least 2.
    seed : int

    Returns
    -------
    ndarray of int64
        Ascending.
    """
    present = np.unique(stimulus_ids)
    if images < len(present):
        present = np.random.default_rng(seed).choice(present, images, replace=False)
    return np.flatnonzero(np.isin(stimulus_ids, present))


def score_targets(
    factorisation: Factorisation,
    held_out: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64],
    targets: Mapping[str, TargetReader],
    alphas: NDArray[np.float64],
    verbose: bool = False,
    memory: float = 2e9,
) -> dict[str, Curves]:
    """Score every alpha for every single target, on some rows, reading the targets once.

    Parameters
    ----------
    factorisation, held_out, alphas, verbose
        As for `score_alphas`.
    rows : ndarray of shape (m,), int64
        The rows that are scored, from `sample_rows`.
    targets : mapping of str to reader of shape (n, t)
    memory : float
        Bytes for the operators of all alphas and for blocks of targets.

    Returns
    -------
    dict of str to (ndarray, ndarray), each of shape (t, a)
        See `score_alphas`; a group is one target here.

    Raises
    ------
    InputError
        If an alpha is too small for the kernel.
    """
    n, m = len(factorisation.eigenvalues), len(rows)
    dtype = np.result_type(np.float32, *(reader.dtype for reader in targets.values()))
    stacked = np.empty((len(alphas) + 1, m, n), dtype=dtype)
    deviation = deviation_rows(held_out, n, rows)
    stacked[0] = deviation
    for step, alpha in enumerate(alphas):
        # Predictions and not residuals: in single precision, small predictions would drown in the latter.
        stacked[step + 1] = deviation - residual_rows(factorisation, held_out, float(alpha), rows)
    operator = stacked.reshape(-1, n)
    average = np.full((1, n), 1 / n, dtype=dtype)
    curves = {}
    for name, reader in targets.items():
        latent = as_targets(reader, name)
        t = latent.shape[1]
        r2, correlation = np.zeros((t, len(alphas))), np.zeros((t, len(alphas)))
        # Beside the products, their squares and products with each other are held, in part in double precision.
        width = block_width(latent, 3 * len(operator), memory, operator.nbytes)
        blocks: Iterable[tuple[slice, NDArray[Any]]] = latent.own_blocks(width)
        if verbose:
            blocks = track(blocks, f"choose alphas of {name}", total=-(-t // width), unit="block")
        for block, values in blocks:
            varies = varying(values)
            # Rows of the operator sum to zero: this is for precision, and need not be exact itself.
            values -= average @ values
            values[:, ~varies] = 0
            true, *predictions = (operator @ values).reshape(len(alphas) + 1, m, -1)
            total = _sum_of_products(true, true)
            for step, prediction in enumerate(predictions):
                error, predicted, product = _moments(true - prediction, prediction, true)
                r2[block, step] = _r2(error, total)
                correlation[block, step] = _cosine(product, predicted, total)
        curves[name] = r2, correlation
    return curves


def _moments(residual: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Per column: squared residual, squared prediction, and prediction times truth."""
    pairs = (residual, residual), (predicted, predicted), (predicted, true)
    return tuple(_sum_of_products(first, second) for first, second in pairs)


def _sum_of_products(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum(first * second, axis=0, dtype=np.float64)
    return total


def _r2(error: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.divide(error, total, out=np.ones_like(error), where=np.broadcast_to(total > 0, error.shape))
    return 1 - share


def _cosine(
    product: NDArray[np.float64], predicted: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    norm = np.sqrt(predicted * total)
    cosine: NDArray[np.float64] = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
    return cosine

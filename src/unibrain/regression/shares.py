"""Which band of voxels carries how much of a prediction: explained variance, split among bands.

The product measure (Pratt, 1987; Dupré la Tour et al., 2022): with a prediction that is the sum of what the bands add,
the share of band b is ``sum(p_b (2 y - p)) / sum(y^2)``. The shares sum to the explained variance of the whole
prediction. A band that tells nothing has a share near 0, or below 0 where its noise harms the prediction.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.regression.alpha_scores import deviations
from unibrain.regression.bands import combine_kernels
from unibrain.regression.left_out import solve_own
from unibrain.regression.splits import batches

__all__ = ["left_out_band_predictions", "split_r2"]


def split_r2(true: NDArray[Any], predictions: Sequence[NDArray[Any]], per_target: bool = False) -> NDArray[np.float64]:
    """Split the explained variance among bands.

    Parameters
    ----------
    true : ndarray of shape (n, t)
        Targets, as deviations from the mean that predictions start from.
    predictions : sequence of ndarray of shape (n, t)
        What each band adds to the prediction.
    per_target : bool
        A share for every target; otherwise squares are summed over targets first.

    Returns
    -------
    ndarray of shape (bands,) or (bands, t), float64
        Sums to one minus squared error over squared deviation; 0 where a target does not vary.
    """
    rest = 2 * true - sum(predictions)
    carried = np.stack([np.sum(prediction * rest, axis=0, dtype=np.float64) for prediction in predictions])
    total = np.sum(true * true, axis=0, dtype=np.float64)
    if not per_target:
        carried, total = carried.sum(axis=1), total.sum()
    return np.divide(carried, total, out=np.zeros_like(carried), where=np.broadcast_to(total > 0, carried.shape))


def left_out_band_predictions(
    kernels: Sequence[NDArray[Any]],
    weights: NDArray[np.float64],
    alpha: float,
    held_out: Sequence[NDArray[np.int64]],
    columns: NDArray[Any],
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """What each band adds to the predictions of images that were left out, in closed form.

    With residuals ``e`` of a group b that was left out, the dual weights of the ridge without it are
    ``R (Y - e) / alpha``, zero for b (see `unibrain.regression.left_out` for R); each band's kernel applies them.

    Parameters
    ----------
    kernels : sequence of ndarray of shape (n, n)
        Centred kernel of each band.
    weights : ndarray of shape (bands,), float64
    alpha : float
        Penalty above 0.
    held_out : sequence of ndarray of int64
        Groups of rows that are left out together.
    columns : ndarray of shape (n, t)
        Targets less their mean over all rows.

    Returns
    -------
    true : ndarray of shape (n, t), float64
        Targets less the mean of the rows that were kept.
    predictions : list of ndarray of shape (n, t), float64
        For each band; they sum to the prediction less that mean.

    Raises
    ------
    InputError
        If alpha is too small for the kernel.
    """
    from scipy.linalg import cho_factor, cho_solve

    n = len(columns)
    columns = np.asarray(columns, dtype=np.float64)
    penalised = combine_kernels(kernels, weights)
    penalised[np.diag_indices(n)] += alpha
    factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
    residual = alpha * cho_solve(factor, np.eye(n), check_finite=False) - 1 / n
    own_residuals = residual @ columns
    through = [kernel @ own_residuals for kernel in kernels]
    predictions = [np.empty_like(columns) for _ in kernels]
    for rows in batches(held_out):
        own = residual[rows[:, :, None], rows[:, None, :]]
        error = solve_own(own, own_residuals[rows], alpha)
        back = np.swapaxes(residual[rows], 1, 2)
        for kernel, whole, weight, prediction in zip(kernels, through, weights, predictions, strict=True):
            part = whole[rows] - (kernel[rows] @ back) @ error
            # Less the mean over the rows that were kept: those of a centred kernel sum to zero with the ones left out.
            part += part.sum(axis=1, keepdims=True) / (n - rows.shape[1])
            prediction[rows] = float(weight) / alpha * part
    return deviations(held_out, columns), predictions

"""The one look at the training targets that a fit takes: their spread, and that of predictions of images left out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.regression.alpha_scores import sample_rows
from unibrain.regression.backend import Backend
from unibrain.regression.left_out import deviation_rows, leave_out_operator, solve_own
from unibrain.regression.rescale import Rescaling, gains
from unibrain.regression.ridge import Factorisation, Solver
from unibrain.regression.splits import batches, split_images
from unibrain.regression.stream import Operators, products, variance
from unibrain.regression.targets import Targets

__all__ = ["EXACT_IMAGES", "SAMPLED_IMAGES", "fit_gain", "left_out_operators", "measured_rows"]

EXACT_IMAGES = 4096
"""Up to this many training images, each of them is left out once to measure the gain."""

SAMPLED_IMAGES = 1024
"""Of more images, so many, drawn by seed. All 8,859 of NSD would cost nine times the prediction of its test set; the
variance of one dimension is known to 4 % from 1,024, that of a token of 768 dimensions far better."""


def measured_rows(stimulus_ids: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows that are predicted without their image: all, or those of `SAMPLED_IMAGES` images drawn by `seed`."""
    images = len(np.unique(stimulus_ids))
    return sample_rows(stimulus_ids, images if images <= EXACT_IMAGES else SAMPLED_IMAGES, seed)


def left_out_operators(
    solver: Solver, stimulus_ids: NDArray[np.int64], rows: NDArray[np.int64], alphas: Iterable[float]
) -> dict[float, NDArray[np.float64]]:
    """What predicts some training rows without their own image, for each alpha.

    Parameters
    ----------
    solver : Solver
        Of the centred kernel of all n rows.
    stimulus_ids : ndarray of shape (n,), int64
    rows : ndarray of shape (m,), int64
        All rows of some images, ascending.
    alphas : iterable of float

    Returns
    -------
    dict of float to ndarray of shape (m, n), float64
        See `unibrain.regression.left_out.leave_out_operator`.
    """
    if isinstance(solver, Factorisation):
        return {alpha: leave_out_operator(solver, stimulus_ids, alpha, rows) for alpha in alphas}
    n, operators = len(stimulus_ids), {}
    wanted = np.zeros(n, dtype=bool)
    wanted[rows] = True
    position = np.cumsum(wanted) - 1
    held_out = split_images(stimulus_ids, "loo")
    for alpha in alphas:
        residual = alpha * solver.inverse_rows(rows, alpha) - 1 / n
        for groups in batches([group for group in held_out if wanted[group[0]]]):
            place = position[groups]
            own = residual[place[:, :, None], groups[:, None, :]]
            residual[place.ravel()] = solve_own(own, residual[place], alpha).reshape(place.size, n)
        operators[alpha] = deviation_rows(held_out, n, rows) - residual
    return operators


def fit_gain(
    targets: Targets,
    shape: tuple[int, ...],
    solver: Solver,
    stimulus_ids: NDArray[np.int64],
    alpha: NDArray[np.float64],
    rescale: Rescaling,
    seed: int,
    memory: float,
    backend: Backend,
) -> NDArray[np.float32]:
    """Read one latent once: refuse values that are not finite, and measure what rescaling needs.

    Parameters
    ----------
    targets : Targets
        Of shape (n, t).
    shape : tuple of int
        Of one image's latent.
    solver : Solver
    stimulus_ids : ndarray of shape (n,), int64
    alpha : ndarray of shape (t,) or (1,)
    rescale : Rescaling
    seed : int
        Of the images that are left out, where not all are.
    memory : float
        Bytes for blocks and operators.
    backend : Backend

    Returns
    -------
    ndarray of shape (t,), float32
        Gain of each target (see `unibrain.regression.rescale.gains`); for ``"test"`` the deviation of the targets.

    Raises
    ------
    InputError
        If a target is not finite.
    """
    n, t = targets.shape
    needed = [float(value) for value in np.unique(alpha)]
    if rescale.startswith("train"):
        rows = measured_rows(stimulus_ids, seed)
        by_alpha = left_out_operators(solver, stimulus_ids, rows, needed)
    else:
        by_alpha, alpha = {1.0: np.zeros((0, n))}, np.ones(1)
    operators = Operators(by_alpha, alpha, targets.compute, backend)
    del by_alpha
    predicted, true = np.zeros(t), np.zeros(t)
    for block, centred, mean, values in products(operators, targets, memory):
        if rescale == "none":
            continue
        true[block] = variance(values, mean)
        if len(centred):
            predicted[block] = _mean_square(centred)
    if rescale == "test":
        return np.sqrt(true).astype(np.float32)
    return gains(predicted, true, shape, rescale)


def _mean_square(values: NDArray[Any]) -> NDArray[np.float64]:
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), 256):
        part = values[start : start + 256]
        total += np.einsum("ij,ij->j", part, part)
    found: NDArray[np.float64] = total / len(values)
    return found

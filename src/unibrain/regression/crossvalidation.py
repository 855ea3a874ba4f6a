"""Predicting training images that were left out: to choose alpha, and to see how large honest predictions are.

Both come from the one factorisation of all training images, in closed form. With the residual operator
``R = alpha (K + alpha I)^-1 - 1/n``, the residuals of a group b of rows, predicted by a ridge (with intercept) that was
fitted without them, are ``R[b, b]^-1 R[b] Y``. For single rows this is PRESS (Allen, 1974, "The relationship between
variable selection and data augmentation and a method for prediction"). It equals refitting, and nothing of a group
enters the prediction for it.

Alpha is chosen by K folds. How large the predictions of the chosen alpha are is measured by leaving out one image at a
time: ridge shrinks the more, the fewer images it is fitted to, so that folds would understate what the decoder of all
images predicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import Factorisation, column_blocks
from unibrain.workspace.progress import track

__all__ = ["AlphaCurve", "alpha_curves", "leave_out_moments", "leave_out_operator", "split_folds"]

SAMPLED_TARGETS = 512
"""How many dimensions of a latent the choice of its alpha looks at, drawn by seed."""


@dataclass(frozen=True)
class AlphaCurve:
    """How well each alpha predicted the images that were left out.

    Attributes
    ----------
    alphas : tuple of float
        The penalties, ascending.
    r2 : tuple of float
        Explained variance: one minus the squared error over the squared deviation from the training mean, both summed
        over images and dimensions; at most 1.
    correlation : tuple of float
        Correlation across images of predicted and true deviations from the training mean, mean over the dimensions
        that vary; -1 to 1.
    targets : int
        Number of dimensions that were looked at.
    """

    alphas: tuple[float, ...]
    r2: tuple[float, ...]
    correlation: tuple[float, ...]
    targets: int

    @property
    def best(self) -> float:
        """The alpha with the highest `r2`; the largest of them if several are equal."""
        return max(zip(self.r2, self.alphas, strict=True))[1]

    @property
    def at_edge(self) -> bool:
        """True if `best` is the smallest or largest alpha, so that a wider grid might hold a better one."""
        return self.best in (self.alphas[0], self.alphas[-1])


def split_folds(stimulus_ids: NDArray[np.int64], folds: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Rows that each fold leaves out; rows of the same image stay together.

    Parameters
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row.
    folds : int
        Number of folds, at least 2 and at most the number of images.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    list of ndarray of int64
        Row numbers, ascending; every row is in exactly one fold.

    Raises
    ------
    InputError
        If there are fewer than two folds, or more folds than images.
    """
    images, image_of_row = np.unique(stimulus_ids, return_inverse=True)
    if folds < 2:
        raise InputError(f"folds is {folds}, expected at least 2: choose 2 to {len(images)} folds")
    if folds > len(images):
        raise InputError(
            f"{folds} folds for {len(images)} training images, expected at most one fold per image: "
            "choose fewer folds or add images"
        )
    fold_of_image = np.random.default_rng(seed).permutation(len(images)) % folds
    return [np.flatnonzero(fold_of_image[image_of_row] == fold) for fold in range(folds)]


def alpha_curves(
    factorisation: Factorisation,
    held_out: Sequence[NDArray[np.int64]],
    latents: Mapping[str, NDArray[Any]],
    alphas: Sequence[float],
    sampled_targets: int = SAMPLED_TARGETS,
    seed: int = 0,
    verbose: bool = False,
) -> dict[str, AlphaCurve]:
    """Score every alpha on the images that each fold leaves out.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    held_out : sequence of ndarray of int64
        Rows that each fold leaves out, from `split_folds`.
    latents : mapping of str to ndarray of shape (n, t)
        Flattened latents; may be memory maps.
    alphas : sequence of float
        Penalties above 0.
    sampled_targets : int
        Of a latent with more dimensions, this many are drawn (without replacement) and stand for all.
    seed : int
        Seed of that draw.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    dict of str to AlphaCurve
    """
    n = len(factorisation.eigenvalues)
    # One matrix for all latents, so that what an alpha costs is paid once for all four.
    samples = [_sample(targets, sampled_targets, seed) for targets in latents.values()]
    targets = np.concatenate(samples, axis=1)
    targets -= targets.mean(axis=0)
    true = np.empty_like(targets)
    for rows in held_out:
        # Less the mean of the rows that the fold keeps. The mean over all rows is zero.
        true[rows] = targets[rows] + targets[rows].sum(axis=0) / (n - len(rows))
    rotated = factorisation.eigenvectors.T @ targets

    grid = tuple(sorted(float(alpha) for alpha in alphas))
    error, predicted_square, product = (np.zeros((len(grid), targets.shape[1])) for _ in range(3))
    for step, alpha in enumerate(track(grid, "choose alphas", unit="alpha") if verbose else grid):
        shrinkage = alpha / (factorisation.eigenvalues + alpha)
        residual = factorisation.eigenvectors @ (shrinkage[:, None] * rotated)
        for rows in held_out:
            vectors = factorisation.eigenvectors[rows]
            residual[rows] = np.linalg.solve((vectors * shrinkage) @ vectors.T - 1 / n, residual[rows])
        predicted = true - residual
        error[step] = np.einsum("ij,ij->j", residual, residual)
        predicted_square[step] = np.einsum("ij,ij->j", predicted, predicted)
        product[step] = np.einsum("ij,ij->j", predicted, true)

    true_square = np.einsum("ij,ij->j", true, true)
    ends = np.cumsum([sample.shape[1] for sample in samples])
    curves = {}
    for name, end, sample in zip(latents, ends, samples, strict=True):
        # Dimensions that do not vary, but for rounding of their mean, have nothing to predict.
        varies = np.flatnonzero(np.ptp(sample, axis=0) > 0) + end - sample.shape[1]
        total, norm = true_square[varies].sum(), np.sqrt(predicted_square[:, varies] * true_square[varies])
        correlation = np.divide(product[:, varies], norm, out=np.zeros_like(norm), where=norm > 0)
        r2 = 1 - error[:, varies].sum(axis=1) / total if len(varies) else np.zeros(len(grid))
        means = correlation.mean(axis=1) if len(varies) else np.zeros(len(grid))
        curves[name] = AlphaCurve(grid, tuple(map(float, r2)), tuple(map(float, means)), sample.shape[1])
    return curves


def _sample(targets: NDArray[Any], count: int, seed: int) -> NDArray[np.float64]:
    if targets.shape[1] > count:
        columns = np.random.default_rng(seed).choice(targets.shape[1], count, replace=False)
        targets = targets[:, np.sort(columns)]
    return np.asarray(targets, dtype=np.float64)


def leave_out_operator(
    factorisation: Factorisation, stimulus_ids: NDArray[np.int64], alpha: float
) -> NDArray[np.float64]:
    """What predicts every training row without its own image.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row; at least two different ones.
    alpha : float
        Penalty above 0.

    Returns
    -------
    ndarray of shape (n, n), float64
        Multiply it with the targets to get each row's prediction less the mean of the other images' targets.
    """
    n = len(stimulus_ids)
    vectors = factorisation.eigenvectors
    residual = (vectors * (alpha / (factorisation.eigenvalues + alpha))) @ vectors.T - 1 / n
    deviation = np.eye(n)
    order = np.argsort(stimulus_ids, kind="stable")
    starts = np.unique(stimulus_ids[order], return_index=True)[1]
    for rows in np.split(order, starts[1:]):
        own = np.ix_(rows, rows)
        deviation[rows] -= 1 / (n - len(rows))
        deviation[own] += 1 / (n - len(rows))
        residual[rows] = np.linalg.solve(residual[own], residual[rows])
    return deviation - residual


def leave_out_moments(operator: NDArray[np.float64], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Variance of what is predicted for images left out, and of the targets, per dimension.

    Parameters
    ----------
    operator : ndarray of shape (n, n), float64
        From `leave_out_operator`.
    targets : ndarray of shape (n, t)
        One latent, flattened; may be a memory map; read once, in blocks of columns.

    Returns
    -------
    predicted, true : ndarray of shape (t,), float64
        Mean over images of the squared deviation from the training mean.
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

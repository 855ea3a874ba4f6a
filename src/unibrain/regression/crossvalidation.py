"""Choosing alpha inside the training set: K folds, one eigendecomposition per fold, all alphas at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import Factorisation, column_blocks, factorise

__all__ = ["AlphaCurve", "Fold", "alpha_curve", "factorise_fold", "out_of_fold_moments", "split_folds"]

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
        Pearson correlation across images, mean over the dimensions that vary; -1 to 1.
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


@dataclass(frozen=True)
class Fold:
    """One split of the training images, factorised.

    Attributes
    ----------
    train, held_out : ndarray of int64
        Row numbers.
    factorisation : Factorisation
        Of the kernel of `train`, centred with the mean of `train` only.
    projected : ndarray of shape (held out, train), float64
        The held-out rows' kernel in the eigenbasis.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    factorisation: Factorisation
    projected: NDArray[np.float64]


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
            f"{folds} folds for {len(images)} training images, expected at most one fold per image: choose fewer folds or add images"
        )
    fold_of_image = np.random.default_rng(seed).permutation(len(images)) % folds
    return [np.flatnonzero(fold_of_image[image_of_row] == fold) for fold in range(folds)]


def factorise_fold(kernel: NDArray[np.float64], held_out: NDArray[np.int64]) -> Fold:
    """Factorise the kernel of the rows that are not held out.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float64
        Linear kernel of all rows, centred with any mean (`unibrain.regression.ridge.centred_kernel`).
    held_out : ndarray of int64
        Row numbers to leave out.

    Returns
    -------
    Fold
        Its kernels are centred with the mean of the fold's own training rows: nothing of the rows left out enters.
    """
    train = np.setdiff1d(np.arange(len(kernel), dtype=np.int64), held_out)
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held_out, train)]
    # Subtracting the mean of the training rows from every row, written in terms of inner products.
    column, grand = inner.mean(axis=0), inner.mean()
    outer = outer - outer.mean(axis=1, keepdims=True) - column + grand
    factorisation = factorise(inner - column[:, None] - column + grand)
    return Fold(train, held_out, factorisation, factorisation.project(outer))


def alpha_curve(
    folds: Sequence[Fold],
    targets: NDArray[Any],
    alphas: Sequence[float],
    sampled_targets: int = SAMPLED_TARGETS,
    seed: int = 0,
) -> AlphaCurve:
    """Score every alpha on the images that each fold leaves out.

    Parameters
    ----------
    folds : sequence of Fold
        From `factorise_fold`.
    targets : ndarray of shape (n, t)
        One latent, flattened; may be a memory map.
    alphas : sequence of float
        Penalties above 0.
    sampled_targets : int
        If the latent has more dimensions, this many are drawn (without replacement) and stand for all.
    seed : int
        Seed of that draw.

    Returns
    -------
    AlphaCurve
    """
    count = targets.shape[1]
    if count > sampled_targets:
        targets = targets[:, np.sort(np.random.default_rng(seed).choice(count, sampled_targets, replace=False))]
    dtype = np.result_type(targets.dtype, np.float32)
    targets = np.asarray(targets, dtype=dtype)
    grid = tuple(sorted(float(alpha) for alpha in alphas))

    error = np.zeros(len(grid))
    total = 0.0
    true_square = np.zeros(targets.shape[1])
    predicted_square, product = (np.zeros((len(grid), targets.shape[1])) for _ in range(2))
    for fold in folds:
        mean = targets[fold.train].mean(axis=0, dtype=np.float64).astype(dtype)
        rotated = fold.factorisation.eigenvectors.T.astype(dtype) @ (targets[fold.train] - mean)
        true = targets[fold.held_out] - mean
        true_square += np.einsum("ij,ij->j", true, true)
        total += float(np.sum(true**2, dtype=np.float64))
        for row, alpha in enumerate(grid):
            predicted = (fold.projected / (fold.factorisation.eigenvalues + alpha)).astype(dtype) @ rotated
            error[row] += np.sum((true - predicted) ** 2, dtype=np.float64)
            predicted_square[row] += np.einsum("ij,ij->j", predicted, predicted)
            product[row] += np.einsum("ij,ij->j", predicted, true)

    r2 = 1 - error / total if total > 0 else np.zeros(len(grid))
    norm = np.sqrt(predicted_square * true_square)
    correlation = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)[:, true_square > 0]
    means = correlation.mean(axis=1) if correlation.size else np.zeros(len(grid))
    return AlphaCurve(grid, tuple(map(float, r2)), tuple(map(float, means)), targets.shape[1])


def out_of_fold_moments(
    folds: Sequence[Fold], targets: NDArray[Any], alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean square of what was predicted for images left out, and of what was true, per dimension.

    Parameters
    ----------
    folds : sequence of Fold
        Folds that leave out every row once.
    targets : ndarray of shape (n, t)
        One latent, flattened; read once, in blocks of columns.
    alpha : float
        Penalty above 0.

    Returns
    -------
    predicted, true : ndarray of shape (t,), float64
        Mean over images of the squared deviation from the fold's training mean.
    """
    n, count = targets.shape
    dtype = np.result_type(targets.dtype, np.float32)
    operators = [fold.factorisation.operator(fold.projected, alpha).astype(dtype) for fold in folds]
    predicted, true = np.zeros(count), np.zeros(count)
    for block in column_blocks(n, count):
        columns = np.asarray(targets[:, block], dtype=dtype)
        for fold, operator in zip(folds, operators, strict=True):
            mean = columns[fold.train].mean(axis=0, dtype=np.float64).astype(dtype)
            predicted[block] += np.sum((operator @ (columns[fold.train] - mean)) ** 2, axis=0, dtype=np.float64)
            true[block] += np.sum((columns[fold.held_out] - mean) ** 2, axis=0, dtype=np.float64)
    return predicted / n, true / n

"""How well latents are predicted: correlation across images, per latent and per region."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import (
    Backend,
    centred_kernel,
    choose_backend,
    cross_kernel,
    factorise,
    factorise_once,
    factorise_scans,
)
from unibrain.regression.targets import Operators, block_width, training_targets
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

SAMPLED_TARGETS = 4096
"""Dimensions of a latent that accuracy per region is measured on, drawn by seed 0, if it has more.

All 273,664 of the official backbone would take one full prediction for each region; the mean of a few thousand
correlations is known to 0.01.
"""

CHEAPER = 20
"""Cholesky factors that cost as much as one eigendecomposition."""

SMALL_REGION = 0.25
"""Voxels per scan up to which decomposing their products is cheaper than a Cholesky factor of the scans' kernel."""

MEMORY = 1e9
"""Bytes for blocks of latents that are compared."""


def latent_accuracy(predicted: Any, true: Any) -> dict[str, float]:
    """Mean over a latent's dimensions of Pearson's r across images.

    Parameters
    ----------
    predicted : Latents, StoredLatents, or mapping of str to ndarray of shape (n, ...)
        What a decoder predicted for at least two images (a run's folder ``predicted``, opened with
        `unibrain.latents.open_latents`).
    true : Latents, StoredLatents, or mapping of str to ndarray of shape (n, ...)
        The true latents of the same images in the same order; it may have further latents.

    Returns
    -------
    dict of str to float
        Latent name to mean correlation, -1 to 1. Dimensions that are constant in `true` are skipped (there is nothing
        to predict); those that are constant only in `predicted` count as 0. A latent of constant dimensions has 0.

    Raises
    ------
    InputError
        If the images or shapes differ, or there are fewer than two images.
    """
    found, truth = training_targets(predicted), training_targets(true)
    if not np.array_equal(found.ids, truth.ids):
        raise InputError(
            "The predicted and the true latents are not of the same images in the same order. Select the true latents "
            "by the predicted ones' stimulus ids."
        )
    if len(truth.ids) < 2:
        raise InputError(f"Correlation across images needs two, and there are {len(truth.ids)}. Decode more scans.")
    accuracy = {}
    for name in found:
        if found.shapes[name] != truth.shapes.get(name):
            raise InputError(
                f"Latent {name} is predicted in shape {found.shapes[name]}, and {truth.shapes.get(name)} in truth. "
                "Use latents of one backbone."
            )
        total, count = 0.0, 0
        width = min(block_width(targets[name], 1, MEMORY) for targets in (found, truth))
        for (_, p), (_, t) in zip(found[name].blocks(width), truth[name].blocks(width), strict=True):
            summed, varying = _summed_correlation(p.astype(np.float64), t.astype(np.float64))
            total, count = total + summed, count + varying
        accuracy[name] = total / count if count else 0.0
    return accuracy


def region_accuracy(
    decoder: "BrainDecoder", regions: Mapping[str, NDArray[np.bool_]], X: ArrayLike, true: Any
) -> tuple[tuple[str, str, float], ...]:
    """Prediction accuracy of each latent from the voxels of each region alone, with the decoder's penalties.

    For each region the decoder is fitted again to its training scans, to the region's voxels only. Each target keeps
    the penalty that the decoder has for it and, in banded ridge, for the band of each voxel. Because the scale of a
    kernel grows with its voxels, penalties are multiplied by the region's share of all voxels; so a region of all
    voxels is the decoder itself. A region whose bands have weight 0 predicts nothing: its accuracy is 0.

    Parameters
    ----------
    decoder : BrainDecoder
        Fitted.
    regions : mapping of str to ndarray of shape (voxels,), bool
    X : array-like of shape (m, voxels)
        Scans of at least two test images.
    true : Latents, StoredLatents, or mapping of str to ndarray of shape (m, ...)
        Latents of the same images in the same order.

    Returns
    -------
    tuple of (latent, region, correlation)
        The regions in their order; see `latent_accuracy`. Regions without a voxel are left out.

    Raises
    ------
    InputError
        If scans and latents do not belong together, or there are fewer than two.
    """
    scans, truth = np.asarray(X), training_targets(true)
    absent = [name for name in decoder.targets_ if truth.shapes.get(name) != decoder.targets_.shapes[name]]
    if scans.shape != (len(truth.ids), decoder.n_features_in_) or len(scans) < 2 or absent:
        raise InputError(
            f"Scans of shape {scans.shape} and {len(truth.ids)} images and latents {', '.join(truth)} do not test a "
            f"decoder of {decoder.n_features_in_} voxels and {', '.join(decoder.targets_)}. Give two images or more."
        )
    backend, memory = choose_backend(decoder.device), decoder.memory * 1e9
    columns, known, wanted = {}, {}, {}
    for name, targets in decoder.targets_.items():
        t, rng = targets.shape[1], np.random.default_rng(0)
        columns[name] = np.arange(t) if t <= SAMPLED_TARGETS else np.sort(rng.choice(t, SAMPLED_TARGETS, replace=False))
        known[name] = targets.take(columns[name], memory)
        wanted[name] = truth[name].take(columns[name], memory).astype(np.float64)
    found = {}
    present = {region: mask for region, mask in regions.items() if mask.any()}
    for region, mask in track(list(present.items()), "accuracy per region", unit="region"):
        for system in decoder.systems_:
            weights = None if system.weights is None else system.weights[mask]
            if weights is not None and not weights.any():
                continue
            alphas = {name: mask.mean() * decoder.alphas_[name] for name in system.names}
            alphas = {name: alpha if len(alpha) == 1 else alpha[columns[name]] for name, alpha in alphas.items()}
            needed = np.unique(np.concatenate(list(alphas.values())))
            by_alpha = _fit(decoder.betas_[:, mask], scans[:, mask], weights, needed, backend)
            for name, alpha in alphas.items():
                operators = Operators(by_alpha, alpha, known[name].dtype, backend)
                predicted = operators.multiply(slice(0, len(columns[name])), known[name])[:-1]
                total, count = _summed_correlation(predicted.astype(np.float64), wanted[name])
                found[name, region] = total / count if count else 0.0
    return tuple((name, region, found.get((name, region), 0.0)) for region in present for name in known)


def _fit(
    betas: NDArray[Any],
    scans: NDArray[Any],
    weights: NDArray[np.float64] | None,
    alphas: NDArray[np.float64],
    backend: Backend,
) -> dict[float, NDArray[np.float64]]:
    """Operators of ridges fitted to some voxels, by alpha."""
    needed = [float(alpha) for alpha in alphas]
    if weights is None and betas.shape[1] <= SMALL_REGION * len(betas):
        factorisation, mean = factorise_scans(betas, backend, min(needed))
        return factorisation.operators(cross_kernel(scans, betas, mean, backend=backend), needed)
    kernel, mean = centred_kernel(betas, weights, backend)
    cross = cross_kernel(scans, betas, mean, weights, backend)
    if len(needed) > CHEAPER:
        return factorise(kernel, backend, min(needed)).operators(cross, needed)
    return {alpha: factorise_once(kernel.copy(), alpha, backend).operators(cross, [alpha])[alpha] for alpha in needed}


def _summed_correlation(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, int]:
    """Sum over columns of the correlation across rows, and how many columns of `true` vary."""
    varies = np.ptp(true, axis=0) > 0
    # Compared by range and not by variance: the mean of equal numbers may be off by a rounding error.
    both = varies & (np.ptp(predicted, axis=0) > 0)
    p, t = predicted[:, both], true[:, both]
    p, t = p - p.mean(axis=0), t - t.mean(axis=0)
    # Scaled first: squares of very small deviations would underflow.
    p, t = p / np.abs(p).max(axis=0, initial=0), t / np.abs(t).max(axis=0, initial=0)
    norm = np.linalg.norm(p, axis=0) * np.linalg.norm(t, axis=0)
    return float(np.sum(np.einsum("ij,ij->j", p, t) / norm)), int(varies.sum())

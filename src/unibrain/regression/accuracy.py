"""How well latents are predicted: correlation across images, per latent and per region."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.backend import NumpyBackend
from unibrain.regression.kernels import centred_kernel, column_blocks, cross_kernel
from unibrain.regression.ridge import factorise_once
from unibrain.regression.stream import Operators, products
from unibrain.regression.targets import Targets, targets_of
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.scans.subject import Subject

__all__ = ["SAMPLED_TARGETS", "latent_accuracy", "region_accuracy"]

SAMPLED_TARGETS = 4096
"""Dimensions of a latent that accuracy per region is measured on, if it has more."""


def latent_accuracy(predicted: Latents, true: Latents) -> dict[str, float]:
    """Mean over a latent's dimensions of Pearson's r across images.

    Parameters
    ----------
    predicted, true : Latents
        Of the same images in the same order, at least two.

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
    if not np.array_equal(predicted.stimulus_ids, true.stimulus_ids):
        raise InputError(
            f"{len(predicted)} predicted and {len(true)} true latents are not of the same images in the same order: "
            "select the true latents by the predicted ones' stimulus ids"
        )
    if len(true) < 2:
        raise InputError(
            f"{len(true)} test images, expected at least two to correlate across images: decode more scans"
        )
    accuracy = {}
    for name, truth in true.items():
        if predicted[name].shape != truth.shape:
            raise InputError(
                f"latent {name} is predicted in shape {predicted[name].shape}, expected {truth.shape}: "
                "use latents of one backbone"
            )
        flat_predicted, flat_true = predicted[name].reshape(len(true), -1), truth.reshape(len(true), -1)
        total, count = 0.0, 0
        for block in column_blocks(*flat_true.shape):
            p, t = (np.asarray(flat[:, block], dtype=np.float64) for flat in (flat_predicted, flat_true))
            summed, varying = _summed_correlation(p, t)
            total, count = total + summed, count + varying
        accuracy[name] = total / count if count else 0.0
    return accuracy


def region_accuracy(
    subject: "Subject",
    latents: Latents | StoredLatents,
    alphas: Mapping[str, float],
    memory: float = 2.0,
    sampled_targets: int = SAMPLED_TARGETS,
    seed: int = 0,
) -> tuple[tuple[str, str, float], ...]:
    """Prediction accuracy of each latent from the voxels of each region alone.

    Parameters
    ----------
    subject : Subject
        With training images and at least two test images.
    latents : Latents or StoredLatents
        Of all its images (and perhaps more). Read once for all regions, in blocks.
    alphas : mapping of str to float
        Penalty of each latent for all voxels. A region gets its share of it by number of voxels, because the scale of
        the kernel of z-scored voxels grows with their number.
    memory : float
        Gigabytes (10**9 bytes) for blocks of latents, and for operators, each.
    sampled_targets : int
        Of a latent with more dimensions, so many are looked at, drawn by `seed`. All 273,664 of the official backbone
        would take one full prediction for each region; the mean of a few thousand correlations is known to 0.01.
    seed : int

    Returns
    -------
    tuple of (latent, region, correlation)
        Region ``"all"`` (all voxels) first, then the subject's regions in their order; see `latent_accuracy`. Regions
        without a voxel are left out.

    Raises
    ------
    InputError
        If latents of an image are missing, or there are too few images.
    """
    train, test = subject.train, subject.test
    if len(test.stimulus_ids) < 2:
        raise InputError(
            f"{len(test.stimulus_ids)} test images, expected at least two to correlate across images: decode more scans"
        )
    ids, n = np.concatenate([train.stimulus_ids, test.stimulus_ids]), len(train.stimulus_ids)
    known, truth = {}, {}
    for name, targets in targets_of(latents.select(ids)).items():
        t = targets.shape[1]
        rng = np.random.default_rng(seed)
        columns = np.arange(t) if t <= sampled_targets else np.sort(rng.choice(t, sampled_targets, replace=False))
        values = targets.take(columns, memory * 1e9)
        known[name], truth[name] = Targets(values[:n], name, train.stimulus_ids), values[n:]
    masks = {"all": np.ones(subject.betas.shape[1], dtype=bool)}
    masks.update({region: mask for region, mask in subject.regions.items() if mask.any()})
    # Operators of several regions are one matrix, so that one product of the targets serves them all.
    each = 8 * n * len(test.stimulus_ids) * len(LATENT_NAMES)
    most = max(1, int(memory * 1e9 / 2 / each))
    names = list(masks)
    accuracy: dict[tuple[str, str], float] = {}
    for first in track(range(0, len(names), most), "accuracy per region", unit="group of regions"):
        group = names[first : first + most]
        by_latent = _operators(subject, [masks[name] for name in group], alphas)
        for latent in LATENT_NAMES:
            found = _correlations(by_latent.pop(latent), known[latent], truth[latent], len(group), memory)
            accuracy.update({(latent, name): r for name, r in zip(group, found, strict=True)})
    return tuple((latent, name, accuracy[latent, name]) for name in names for latent in LATENT_NAMES)


def _operators(
    subject: "Subject", masks: Sequence[NDArray[np.bool_]], alphas: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Operators of some regions below each other, for each latent."""
    train, test = ~subject.is_test, subject.is_test
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in LATENT_NAMES}
    for mask in masks:
        scans = subject.betas[:, mask]
        kernel, mean = centred_kernel(scans[train])
        cross = cross_kernel(scans[test], scans[train], mean)
        # Latents often share an alpha, and then what precedes the targets is the same.
        found: dict[float, NDArray[np.float64]] = {}
        for name in LATENT_NAMES:
            alpha = float(alphas[name]) * float(mask.mean())
            if alpha not in found:
                found |= factorise_once(kernel.copy(), alpha).operators(cross, [alpha])
            parts[name].append(found[alpha])
    return {name: np.concatenate(operators) for name, operators in parts.items()}


def _correlations(
    operator: NDArray[np.float64], known: Targets, truth: NDArray[Any], regions: int, memory: float
) -> list[float]:
    operators = Operators({1.0: operator}, np.ones(1), known.compute, NumpyBackend())
    totals, count = np.zeros(regions), 0
    for block, centred, _, _ in products(operators, known, memory * 1e9):
        true = np.asarray(truth[:, block], dtype=np.float64)
        for region, predicted in enumerate(np.split(centred, regions)):
            total, varying = _summed_correlation(predicted.astype(np.float64), true)
            totals[region] += total
        count += varying
    return [float(total / count) if count else 0.0 for total in totals]


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

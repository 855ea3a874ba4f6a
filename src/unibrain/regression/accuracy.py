"""How well latents are predicted: correlation across images, per latent and per region."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.regression.ridge import (
    apply_operator,
    centred_kernel,
    column_blocks,
    cross_kernel,
    prediction_operator,
)
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.scans.subject import Subject

__all__ = ["latent_accuracy", "region_accuracy"]


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
            varies = np.ptp(t, axis=0) > 0
            # Compared by range and not by variance: the mean of equal numbers may be off by a rounding error.
            both = varies & (np.ptp(p, axis=0) > 0)
            p, t = p[:, both] - p[:, both].mean(axis=0), t[:, both] - t[:, both].mean(axis=0)
            # Scaled first: squares of very small deviations would underflow.
            p, t = p / np.abs(p).max(axis=0, initial=0), t / np.abs(t).max(axis=0, initial=0)
            norm = np.linalg.norm(p, axis=0) * np.linalg.norm(t, axis=0)
            total += float(np.sum(np.einsum("ij,ij->j", p, t) / norm))
            count += int(varies.sum())
        accuracy[name] = total / count if count else 0.0
    return accuracy


def region_accuracy(
    subject: "Subject", latents: Latents, alphas: Mapping[str, float]
) -> tuple[tuple[str, str, float], ...]:
    """Prediction accuracy of each latent from the voxels of each region alone.

    Parameters
    ----------
    subject : Subject
        With training images and at least two test images.
    latents : Latents
        Of all its images (and perhaps more).
    alphas : mapping of str to float
        Penalty of each latent for all voxels. A region gets its share of it by number of voxels, because the scale of
        the kernel of z-scored voxels grows with their number.

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
    train_latents, test_latents = latents.select(train.stimulus_ids), latents.select(test.stimulus_ids)
    masks = {"all": np.ones(subject.betas.shape[1], dtype=bool)}
    masks.update({region: mask for region, mask in subject.regions.items() if mask.any()})
    accuracy = []
    for region, mask in track(masks.items(), "accuracy per region", unit="region"):
        kernel, mean = centred_kernel(train.betas[:, mask])
        cross = cross_kernel(test.betas[:, mask], train.betas[:, mask], mean)
        # Latents often share an alpha, and then what precedes the targets is the same.
        operators = {
            alpha: prediction_operator(kernel, cross, alpha * float(mask.mean()))
            for alpha in {float(alphas[name]) for name in LATENT_NAMES}
        }
        predicted = Latents(
            test.stimulus_ids,
            **{
                name: apply_operator(operators[float(alphas[name])], latent.reshape(len(latent), -1)).reshape(
                    len(test.stimulus_ids), *latent.shape[1:]
                )
                for name, latent in train_latents.items()
            },
        )
        accuracy += [(name, region, r) for name, r in latent_accuracy(predicted, test_latents).items()]
    return tuple(accuracy)

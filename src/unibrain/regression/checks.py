"""What a fit or a prediction refuses, and the sentence that it says."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.regression.rescale import RESCALINGS
from unibrain.regression.ridge import column_blocks

__all__ = ["as_scans", "check_pairs", "check_parameters", "flat"]


def flat(latent: NDArray[Any]) -> NDArray[Any]:
    """One row per image: (n, ...) to (n, dimensions), without a copy where the array is contiguous."""
    return latent.reshape(len(latent), int(np.prod(latent.shape[1:])))


def check_parameters(alpha: Any, alphas: Sequence[float], rescale: str) -> dict[str, float] | None:
    """Check the parameters of a `BrainDecoder`.

    Parameters
    ----------
    alpha, alphas, rescale
        As the decoder got them.

    Returns
    -------
    dict of str to float, or None
        Penalty of each latent; None if cross-validation is to choose it.

    Raises
    ------
    InputError
        If one of them is out of range.
    """
    if rescale not in RESCALINGS:
        raise InputError(f"rescale is {rescale!r}, expected one of {', '.join(RESCALINGS)}: choose one of them")
    if isinstance(alpha, str):
        if alpha != "cv":
            raise InputError(f"alpha is {alpha!r}, expected 'cv', a number, or a number per latent: choose one of them")
        _check_alphas(alphas, "alphas")
        return None
    if not isinstance(alpha, Mapping):
        given = dict.fromkeys(LATENT_NAMES, float(alpha))
    elif set(alpha) == set(LATENT_NAMES):
        given = {name: float(alpha[name]) for name in LATENT_NAMES}
    else:
        found, expected = ", ".join(sorted(alpha)) or "none", ", ".join(LATENT_NAMES)
        raise InputError(f"alpha names these latents: {found}; expected {expected}: give one number for each")
    _check_alphas(given.values(), "alpha")
    return given


def _check_alphas(alphas: Iterable[float], what: str) -> None:
    values = np.array(list(alphas), dtype=np.float64)
    if not len(values):
        raise InputError(f"{what} is empty, expected at least one penalty above 0: leave it at its default")
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if len(wrong):
        raise InputError(f"{what} holds {wrong[0]:g}, expected finite penalties above 0: choose a positive number")


def as_scans(X: ArrayLike, what: str) -> NDArray[Any]:
    """Scans as a matrix of finite floats.

    Parameters
    ----------
    X : array-like of shape (n, voxels)
    what : str
        What the message calls them.

    Returns
    -------
    ndarray of shape (n, voxels)
        The same memory where `X` is a float array.

    Raises
    ------
    InputError
        If the shape is another, or a value is not finite.
    """
    scans = np.asarray(X)
    if scans.ndim != 2 or scans.shape[1] == 0:
        raise InputError(
            f"the {what} have shape {scans.shape}, expected (images, voxels) with at least one voxel: "
            "pass one row per image"
        )
    if not np.issubdtype(scans.dtype, np.floating):
        scans = scans.astype(np.float64)
    for block in column_blocks(*scans.shape):
        wrong = np.argwhere(~np.isfinite(scans[:, block]))
        if len(wrong):
            raise InputError(
                f"the {what} hold a NaN or infinite value in row {wrong[0][0]}, voxel {wrong[0][1] + block.start}, "
                "expected finite betas: leave that voxel out when preparing the scans"
            )
    return scans


def check_pairs(betas: NDArray[Any], latents: Latents, stimulus_ids: ArrayLike | None) -> None:
    """Check that training scans and latents belong together.

    Parameters
    ----------
    betas : ndarray of shape (n, voxels)
    latents : Latents
    stimulus_ids : array-like of shape (n,), optional
        Image of each scan, where it is known.

    Raises
    ------
    InputError
        If their numbers or ids differ, there are fewer than two, or a latent is not finite.
    """
    if len(betas) != len(latents):
        raise InputError(
            f"{len(betas)} training scans and {len(latents)} rows of latents, expected one row of latents per scan: "
            "select the latents by the scans' stimulus ids"
        )
    images = len(np.unique(latents.stimulus_ids))
    if images < 2:
        raise InputError(f"{images} training images, expected at least two: add training images")
    if stimulus_ids is not None:
        ids = np.asarray(stimulus_ids).reshape(-1)
        if len(ids) != len(betas):
            raise InputError(f"{len(ids)} stimulus ids for {len(betas)} scans, expected one per scan: pass their ids")
        rows = np.flatnonzero(ids != latents.stimulus_ids)
        if len(rows):
            raise InputError(
                f"row {rows[0]} is image id {ids[rows[0]]} in the scans and {latents.stimulus_ids[rows[0]]} in the "
                "latents, expected the same order: select the latents by the scans' stimulus ids"
            )
    for name, latent in latents.items():
        targets = flat(latent)
        for block in column_blocks(*targets.shape):
            rows = np.flatnonzero(~np.isfinite(targets[:, block]).all(axis=1))
            if len(rows):
                raise InputError(
                    f"latent {name} of image id {latents.stimulus_ids[rows[0]]} holds a NaN or infinite value, "
                    "expected finite ones: extract the latents again"
                )

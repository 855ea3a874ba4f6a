"""What a fit or a prediction refuses, and the sentence that it says."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.alpha_choice import PERS
from unibrain.regression.kernels import column_blocks
from unibrain.regression.rescale import RESCALINGS
from unibrain.regression.targets import targets_of

__all__ = ["as_scans", "check_new_scans", "check_pairs", "check_parameters"]


def check_parameters(
    alpha: Any, alphas: Sequence[float], rescale: str, alpha_per: str, memory: float
) -> dict[str, NDArray[np.float64]] | None:
    """Check the parameters of a `BrainDecoder`.

    Parameters
    ----------
    alpha, alphas, rescale, alpha_per, memory
        As the decoder got them.

    Returns
    -------
    dict of str to ndarray, or None
        Penalties of each latent, as they were given (one, or one per target); None if cross-validation is to choose.

    Raises
    ------
    InputError
        If one of them is out of range.
    """
    if rescale not in RESCALINGS:
        raise InputError(f"rescale is {rescale!r}, expected one of {', '.join(RESCALINGS)}: choose one of them")
    if alpha_per not in PERS:
        raise InputError(f"alpha_per is {alpha_per!r}, expected one of {', '.join(PERS)}: choose one of them")
    if not (np.isfinite(memory) and memory > 0):
        raise InputError(f"memory is {memory:g} GB, expected more than 0: leave it at its default of 2")
    if isinstance(alpha, str):
        if alpha != "cv":
            raise InputError(f"alpha is {alpha!r}, expected 'cv', a number, or a number per latent: choose one of them")
        _check_alphas(alphas, "alphas")
        return None
    if not isinstance(alpha, Mapping):
        given = {name: np.atleast_1d(np.asarray(alpha, dtype=np.float64)) for name in LATENT_NAMES}
    elif set(alpha) == set(LATENT_NAMES):
        given = {name: np.atleast_1d(np.asarray(alpha[name], dtype=np.float64)) for name in LATENT_NAMES}
    else:
        found, expected = ", ".join(sorted(alpha)) or "none", ", ".join(LATENT_NAMES)
        raise InputError(f"alpha names these latents: {found}; expected {expected}: give one number for each")
    for values in given.values():
        _check_alphas(values, "alpha")
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


def check_pairs(betas: NDArray[Any], latents: Latents | StoredLatents, stimulus_ids: ArrayLike | None) -> None:
    """Check that training scans and latents belong together.

    Parameters
    ----------
    betas : ndarray of shape (n, voxels)
    latents : Latents or StoredLatents
    stimulus_ids : array-like of shape (n,), optional
        Image of each scan, where it is known.

    Raises
    ------
    InputError
        If their numbers or ids differ, there are fewer than two, or a latent in memory is not finite (stored ones are
        looked at while they are streamed).
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
    if isinstance(latents, Latents):
        for targets in targets_of(latents).values():
            for block in column_blocks(*targets.shape):
                values = targets[:, block]
                if not np.isfinite(values).all():
                    targets.refuse(block, values)


def check_new_scans(
    X: ArrayLike, voxels: int, stimulus_ids: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Scans to predict from, one per row, and their ids.

    Parameters
    ----------
    X : array-like of shape (m, voxels) or (voxels,)
    voxels : int
        Number of voxels in training.
    stimulus_ids : array-like of shape (m,), optional
        Row numbers if not given.

    Raises
    ------
    InputError
        If the number of voxels or of ids is wrong, or a value is not finite.
    """
    scans = as_scans(np.atleast_2d(np.asarray(X)), "scans")
    if scans.shape[1] != voxels:
        raise InputError(
            f"the scans have {scans.shape[1]} voxels, expected {voxels} as in training: "
            "decode with the decoder that was fitted to this subject and mask"
        )
    ids = np.arange(len(scans)) if stimulus_ids is None else np.asarray(stimulus_ids, dtype=np.int64).reshape(-1)
    if len(ids) != len(scans):
        raise InputError(f"{len(ids)} stimulus ids for {len(scans)} scans, expected one per scan: pass their ids")
    return scans, ids

"""Banded ridge inside a `BrainDecoder`: bands from regions, their penalties, and one factorised kernel per choice."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.backend import Backend
from unibrain.regression.banded import BandChoice, choose_bands
from unibrain.regression.bands import make_bands, voxel_scale
from unibrain.regression.kernels import centred_kernel
from unibrain.regression.ridge import factorise_once
from unibrain.regression.systems import System
from unibrain.regression.targets import shapes_of, targets_of

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

__all__ = ["fit_bands"]


def fit_bands(
    decoder: "BrainDecoder",
    betas: NDArray[Any],
    latents: Latents | StoredLatents,
    regions: Mapping[str, NDArray[np.bool_]] | None,
    backend: Backend,
) -> tuple[tuple[System, ...], dict[str, NDArray[np.float64]], BandChoice]:
    """Choose the bands' penalties of each latent, and factorise the kernels that they make.

    Parameters
    ----------
    decoder : BrainDecoder
        For its parameters, `bands` among them.
    betas : ndarray of shape (n, voxels)
    latents : Latents or StoredLatents
    regions : mapping of str to ndarray of shape (voxels,), bool
    backend : Backend

    Returns
    -------
    systems : tuple of System
        One for each different choice; latents that chose the same share one.
    alphas : dict of str to ndarray of shape (1,)
    choice : BandChoice

    Raises
    ------
    InputError
        If penalties are given, regions are missing, or bands do not fit them.
    """
    assert decoder.bands is not None
    if not isinstance(decoder.alpha, str) or decoder.alpha_per != "latent":
        raise InputError(
            f"bands are given with alpha = {decoder.alpha!r} per {decoder.alpha_per}, expected alpha = 'cv' per "
            "latent: penalties of bands are chosen by cross-validation"
        )
    masks = make_bands(regions or {}, decoder.bands, overlap="first")
    # Single precision halves the memory of a kernel per band; the chosen sum is computed again in double.
    kernels = {
        name: centred_kernel(betas[:, mask], backend=backend)[0].astype(np.float32) for name, mask in masks.items()
    }
    choice = choose_bands(
        kernels,
        latents.stimulus_ids,
        targets_of(latents),
        shapes_of(latents),
        decoder.alphas,
        scheme=decoder.folds,
        sampled_targets=decoder.sampled_targets,
        projection=decoder.projection,
        seed=decoder.seed,
        verbose=decoder.verbose,
        memory=decoder.memory * 1e9,
    )
    del kernels
    keys = {
        name: (int(candidate), float(alpha))
        for name, candidate, alpha in zip(choice.latents, choice.chosen, choice.alpha, strict=True)
    }
    systems = []
    for key in dict.fromkeys(keys[name] for name in LATENT_NAMES):
        weights = voxel_scale(masks, choice.candidates[key[0]]) ** 2
        kernel, _ = centred_kernel(betas, weights, backend)
        names = tuple(name for name in LATENT_NAMES if keys[name] == key)
        systems.append(System(names, weights, factorise_once(kernel, key[1], backend)))
    return tuple(systems), {name: np.array([keys[name][1]]) for name in LATENT_NAMES}, choice

"""What a fit decides before it looks at all targets: kernels, their factorisations, and penalties."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.alpha_choice import AlphaChoice, choose_alphas
from unibrain.regression.backend import Backend
from unibrain.regression.banded import BandChoice
from unibrain.regression.banded_fit import fit_bands
from unibrain.regression.ridge import Factorisation, Solver, centred_kernel, factorise, factorise_once
from unibrain.regression.splits import split_images
from unibrain.regression.systems import System
from unibrain.regression.targets import shapes_of, targets_of

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

__all__ = ["FittedSystems", "fit_systems"]


@dataclass(frozen=True)
class FittedSystems:
    """Kernels and penalties of a fit.

    Attributes
    ----------
    systems : tuple of System
    alphas : dict of str to ndarray of shape (1,) or (t,)
        Penalties of each latent.
    choices : dict of str to AlphaChoice
        What they were chosen from.
    bands : BandChoice or None
        What the penalties of bands were chosen from.
    mean : ndarray of shape (voxels,), float64
        Of the training scans.
    """

    systems: tuple[System, ...]
    alphas: dict[str, NDArray[np.float64]]
    choices: dict[str, AlphaChoice]
    bands: BandChoice | None
    mean: NDArray[np.float64]


def fit_systems(
    decoder: "BrainDecoder",
    betas: NDArray[Any],
    latents: Latents | StoredLatents,
    given: dict[str, NDArray[np.float64]] | None,
    regions: Mapping[str, NDArray[np.bool_]] | None,
    backend: Backend,
) -> FittedSystems:
    """Factorise the kernel of the scans, and choose the penalties unless they are given.

    Parameters
    ----------
    decoder : BrainDecoder
        For its parameters.
    betas : ndarray of shape (n, voxels)
    latents : Latents or StoredLatents
    given : dict of str to ndarray, or None
        Penalties of each latent; None to choose them.
    regions : mapping of str to ndarray of bool, optional
        For banded ridge.
    backend : Backend

    Returns
    -------
    FittedSystems

    Raises
    ------
    InputError
        If a parameter is out of range.
    """
    if given is None:
        # Refused before the kernel is computed, which takes a while.
        split_images(latents.stimulus_ids, decoder.folds, decoder.seed)
    else:
        given = _per_target(given, latents)
    if decoder.bands is not None:
        systems, alphas, bands = fit_bands(decoder, betas, latents, regions, backend)
        return FittedSystems(systems, alphas, {}, bands, betas.mean(axis=0, dtype=np.float64))
    kernel, mean = centred_kernel(betas, backend=backend)
    if given is None:
        solver: Solver = factorise(kernel, backend)
        assert isinstance(solver, Factorisation)
        del kernel
        choices = choose_alphas(
            solver,
            latents.stimulus_ids,
            targets_of(latents),
            shapes_of(latents),
            decoder.alphas,
            per=decoder.alpha_per,
            scheme=decoder.folds,
            sampled_targets=decoder.sampled_targets,
            projection=decoder.projection,
            seed=decoder.seed,
            verbose=decoder.verbose,
            memory=decoder.memory * 1e9,
        )
        alphas = {
            name: choice.best if choice.groups == 1 else choice.per_target(choice.targets)
            for name, choice in choices.items()
        }
    else:
        choices, alphas = {}, given
        distinct = np.unique(np.concatenate(list(given.values())))
        # Decomposing costs several times a Cholesky factor, and then serves any penalty.
        if len(distinct) == 1:
            solver = factorise_once(kernel, float(distinct[0]), backend)
        else:
            solver = factorise(kernel, backend)
    return FittedSystems((System(LATENT_NAMES, None, solver),), alphas, choices, None, mean)


def _per_target(
    given: dict[str, NDArray[np.float64]], latents: Latents | StoredLatents
) -> dict[str, NDArray[np.float64]]:
    shapes = shapes_of(latents)
    for name, values in given.items():
        t = int(np.prod(shapes[name]))
        if values.shape not in ((1,), (t,)):
            raise InputError(
                f"alpha of {name} has shape {values.shape}, expected one number or {t}, one per target: correct it"
            )
    return given

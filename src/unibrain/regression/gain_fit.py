"""The one look at the training targets that a fit takes: their spread, and that of predictions of images left out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.regression.alpha_scores import sample_rows
from unibrain.regression.backend import Backend
from unibrain.regression.left_out import deviation_rows, leave_out_operator, solve_own
from unibrain.regression.rescale import Rescaling, gains
from unibrain.regression.ridge import Factorisation, Solver
from unibrain.regression.splits import batches, split_images
from unibrain.regression.stream import Operators, products, variance
from unibrain.regression.systems import System
from unibrain.regression.targets import Targets, shapes_of, targets_of
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

__all__ = ["EXACT_IMAGES", "SAMPLED_IMAGES", "fit_gains", "left_out_operators", "measured_rows"]

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


def fit_gains(
    decoder: "BrainDecoder",
    systems: Sequence[System],
    alphas: Mapping[str, NDArray[np.float64]],
    latents: Latents | StoredLatents,
    backend: Backend,
) -> dict[str, NDArray[np.float32]]:
    """Read all targets once: refuse values that are not finite, and measure what rescaling needs.

    Parameters
    ----------
    decoder : BrainDecoder
        For its parameters.
    systems : sequence of System
    alphas : mapping of str to ndarray of shape (t,) or (1,)
        Penalties of each latent.
    latents : Latents or StoredLatents
    backend : Backend

    Returns
    -------
    dict of str to ndarray of shape (t,), float32
        Gain of each target (see `unibrain.regression.rescale.gains`); for ``"test"`` the deviation of the targets.

    Raises
    ------
    InputError
        If a target is not finite.
    """
    targets, shapes, rescale = targets_of(latents), shapes_of(latents), decoder.rescale
    leave_out = rescale.startswith("train")
    rows = measured_rows(latents.stimulus_ids, decoder.seed)
    found: dict[str, NDArray[np.float32]] = {}
    for system in systems:
        by_alpha: dict[float, NDArray[np.float64]] = {}
        for name in track(system.latents, "rescale latents", unit="latent") if decoder.verbose else system.latents:
            if leave_out:
                alpha = alphas[name]
                needed = [float(value) for value in np.unique(alpha)]
                # Latents often share an alpha. What the next one does not need is dropped, for memory.
                by_alpha = {value: by_alpha[value] for value in needed if value in by_alpha}
                missing = [value for value in needed if value not in by_alpha]
                by_alpha |= left_out_operators(system.solver, latents.stimulus_ids, rows, missing)
            else:
                # No rows but the last, which gives the mean and tells whether all values are finite.
                alpha, by_alpha = np.ones(1), {1.0: np.zeros((0, len(latents)))}
            operators = Operators(by_alpha, alpha, targets[name].compute, backend)
            found[name] = _gain(operators, targets[name], shapes[name], rescale, decoder.memory * 1e9)
    return {name: found[name] for name in LATENT_NAMES}


def _gain(
    operators: Operators, targets: Targets, shape: tuple[int, ...], rescale: Rescaling, memory: float
) -> NDArray[np.float32]:
    t = targets.shape[1]
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

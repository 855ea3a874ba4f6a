"""Banded ridge: groups of voxels that each get a penalty of their own.

A penalty ``alpha / weight`` for the voxels of a band is the ridge of the kernel ``sum of weight * kernel of the band``
with the one penalty alpha, and also the ridge of scans whose voxels were multiplied by the root of their band's weight
(Dupré la Tour, Eickenberg, Nunez-Elizalde and Gallant, 2022, "Feature-space selection with banded ridge regression").
So a prediction stays one kernel and one operator. Weights are scaled to a mean of 1 over the bands: all ones is ridge
without bands, at the same alpha.

Weights and alpha are chosen together by predicting images that were left out, in a seeded random search: candidates on
the simplex are drawn from Dirichlet distributions, some of them sparse; each is tried with the whole grid of alphas.
Each candidate costs one eigendecomposition and what `unibrain.regression.penalties` says, for all latents together.

Whether bands predict better than one penalty is not said here: the best of many candidates on the folds that chose it
is never worse than the first of them. Fit with and without bands, and compare the accuracy on the test images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.leave_out import Groups, Scheme, batches, deviations, solve_own, split_images
from unibrain.regression.penalties import Sample, alpha_grid, sample_targets, score_alphas
from unibrain.regression.ridge import Backend, System, centred_kernel, factorise, factorise_once
from unibrain.regression.targets import TrainingTargets
from unibrain.workspace.progress import track

OTHER = "other"
"""The band of the voxels that are in none."""

CANDIDATES = 20

CONCENTRATIONS = (0.1, 1.0)
"""Of the Dirichlet distributions, in turn: one band or two alone, and any mixture."""


@dataclass(frozen=True, eq=False)
class BandChoice:
    """Weights and penalties of bands, and what each band carries, for each latent.

    Attributes
    ----------
    bands : tuple of str
    latents : tuple of str
    alphas : ndarray of shape (a,), float64
        The grid, ascending.
    candidates : ndarray of shape (c, bands), float64
        Weights that were tried, each with a mean of 1; the first are all ones: no bands.
    r2 : ndarray of shape (c, latents, a), float64
        Explained variance of images left out, by candidate and alpha.
    chosen : ndarray of shape (latents,), int64
        Which candidate each latent uses.
    shares : ndarray of shape (latents, bands), float64
        Explained variance of images left out that each band carries (see `split_r2`); a row sums to `best_r2`.
    scheme : int or "loo"
        Number of folds, or one image left out at a time.
    seed : int
        Seed of folds, sampled dimensions and candidates.
    """

    bands: tuple[str, ...]
    latents: tuple[str, ...]
    alphas: NDArray[np.float64]
    candidates: NDArray[np.float64]
    r2: NDArray[np.float64]
    chosen: NDArray[np.int64]
    shares: NDArray[np.float64]
    scheme: Scheme
    seed: int

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each band in the kernel, of shape (latents, bands)."""
        return self.candidates[self.chosen]

    @property
    def alpha(self) -> NDArray[np.float64]:
        """Penalty that goes with the combined kernel, of shape (latents,)."""
        curves = self.r2[self.chosen, np.arange(len(self.latents))]
        alpha: NDArray[np.float64] = self.alphas[len(self.alphas) - 1 - np.argmax(curves[:, ::-1], axis=1)]
        return alpha

    @property
    def penalties(self) -> NDArray[np.float64]:
        """Penalty of each band's own voxels, of shape (latents, bands): alpha over weight; infinite for weight 0."""
        with np.errstate(divide="ignore"):
            penalties: NDArray[np.float64] = self.alpha[:, None] / self.weights
        return penalties

    @property
    def best_r2(self) -> NDArray[np.float64]:
        """Explained variance of images left out, of shape (latents,), on the folds that chose: an optimistic number."""
        best: NDArray[np.float64] = self.r2[self.chosen, np.arange(len(self.latents))].max(axis=1)
        return best


def make_bands(
    regions: Mapping[str, NDArray[np.bool_]], definition: Mapping[str, Sequence[str]], voxels: int
) -> dict[str, NDArray[np.bool_]]:
    """Put every voxel into exactly one band: the first whose regions hold it, or `OTHER`."""
    if not regions or not definition:
        raise InputError("There are no regions to make bands of. Prepare the scans with regions, or leave bands out.")
    masks: dict[str, NDArray[np.bool_]] = {}
    taken = np.zeros(voxels, dtype=np.bool_)
    for band, names in definition.items():
        if isinstance(names, str) or not names:
            raise InputError(f"bands: {band} is {names!r}. Give the names of one or more regions.")
        absent = [name for name in names if name not in regions]
        if absent:
            raise InputError(f"bands: {band} names region {absent[0]}. This subject has {', '.join(sorted(regions))}.")
        mask = np.logical_or.reduce([regions[name] for name in names])
        if mask.shape != (voxels,):
            raise InputError(
                f"bands: a region of {band} is no mask of {voxels} voxels. Give the regions of these scans."
            )
        if not (mask & ~taken).any():
            raise InputError(f"bands: {band} has no voxel that no band before it has. Leave it out.")
        masks[band] = mask & ~taken
        taken |= mask
    if not taken.all():
        masks[OTHER] = masks.get(OTHER, np.zeros_like(taken)) | ~taken
    return masks


def fit_bands(
    betas: NDArray[Any],
    targets: TrainingTargets,
    masks: Mapping[str, NDArray[np.bool_]],
    alphas: Iterable[float],
    backend: Backend,
    **options: Any,
) -> tuple[tuple[System, ...], dict[str, NDArray[np.float64]], BandChoice]:
    """Choose the bands' penalties of each latent, and factorise the kernels that they make.

    There is one system for each different choice; latents that chose the same share it. `options` are those of
    `choose_bands`.
    """
    # Single precision halves the memory of a kernel per band; the chosen sum is computed again in double.
    kernels = {
        name: centred_kernel(betas[:, mask], backend=backend)[0].astype(np.float32) for name, mask in masks.items()
    }
    choice = choose_bands(kernels, targets, alphas, **options)
    del kernels
    keys = {
        name: (int(candidate), float(alpha))
        for name, candidate, alpha in zip(choice.latents, choice.chosen, choice.alpha, strict=True)
    }
    systems = []
    for key in dict.fromkeys(keys.values()):
        weights = voxel_scale(masks, choice.candidates[key[0]]) ** 2
        kernel, _ = centred_kernel(betas, weights, backend)
        names = tuple(name for name in keys if keys[name] == key)
        systems.append(System(names, weights, factorise_once(kernel, key[1], backend)))
    return tuple(systems), {name: np.array([key[1]]) for name, key in keys.items()}, choice


def choose_bands(
    kernels: Mapping[str, NDArray[Any]],
    targets: TrainingTargets,
    alphas: Iterable[float],
    *,
    candidates: int = CANDIDATES,
    scheme: Scheme = 5,
    sampled_targets: int = 512,
    seed: int = 0,
    verbose: bool = False,
    memory: float = 2e9,
) -> BandChoice:
    """Choose one penalty per band, for each latent; `kernels` are the centred ones of the bands.

    Other parameters are those of `unibrain.regression.penalties.choose_alphas`.
    """
    grid, matrices = alpha_grid(alphas), list(kernels.values())
    held_out = split_images(targets.ids, scheme, seed)
    sample = sample_targets(targets, "latent", sampled_targets, seed, memory)
    tried = dirichlet_weights(candidates if len(matrices) > 1 else 1, len(matrices), seed)
    scores = []
    for row in track(tried, "choose bands", unit="candidate") if verbose else tried:
        curves = score_alphas(factorise(combine_kernels(matrices, row)), held_out, sample, grid)
        scores.append(np.stack([curves[name][0][0] for name in targets]))
    r2 = np.array(scores)
    # The first of several equal candidates.
    chosen = np.argmax(r2.max(axis=2), axis=0)
    shares = np.zeros((len(targets), len(matrices)))
    choice = BandChoice(tuple(kernels), tuple(targets), grid, tried, r2, chosen, shares, scheme, seed)
    return replace(choice, shares=_shares(choice, matrices, held_out, sample))


def dirichlet_weights(count: int, bands: int, seed: int = 0) -> NDArray[np.float64]:
    """Candidate weights of shape (count, bands), with a mean of 1: all ones, then random ones."""
    rng = np.random.default_rng(seed)
    weights = np.ones((count, bands))
    for row in range(1, count):
        concentration = CONCENTRATIONS[(row - 1) % len(CONCENTRATIONS)]
        weights[row] = bands * rng.dirichlet(np.full(bands, concentration))
    return weights


def combine_kernels(kernels: Sequence[NDArray[Any]], weights: Iterable[float]) -> NDArray[np.float64]:
    """Weighted sum of the bands' kernels."""
    combined = np.zeros(kernels[0].shape)
    for kernel, weight in zip(kernels, weights, strict=True):
        combined += float(weight) * kernel
    return combined


def voxel_scale(masks: Mapping[str, NDArray[np.bool_]], weights: Iterable[float]) -> NDArray[np.float64]:
    """Root of the weight of each voxel's band: scans times it make plain ridge a banded one."""
    scale = np.zeros(len(next(iter(masks.values()))))
    for mask, weight in zip(masks.values(), weights, strict=True):
        scale[mask] = np.sqrt(weight)
    return scale


# Which band carries how much


def split_r2(true: NDArray[Any], predictions: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Split the explained variance among bands, shape (bands,): it sums to that of the whole prediction.

    The product measure (Pratt, 1987; Dupré la Tour et al., 2022): with a prediction p that is the sum of what the bands
    add, the share of band b is ``sum(p_b (2 y - p)) / sum(y^2)``, with squares summed over targets too. A band that
    tells nothing has a share near 0, or below 0 where its noise harms the prediction. All 0 if no target varies.
    """
    rest = 2 * true - sum(predictions)
    carried = np.array([np.sum(prediction * rest, axis=0, dtype=np.float64).sum() for prediction in predictions])
    total = np.sum(true * true, axis=0, dtype=np.float64).sum()
    return carried / total if total > 0 else np.zeros_like(carried)


def left_out_band_predictions(
    kernels: Sequence[NDArray[Any]], weights: NDArray[np.float64], alpha: float, held_out: Groups, columns: NDArray[Any]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """What each band adds to the predictions of images that were left out, in closed form.

    With residuals ``e`` of a group b that was left out, the dual weights of the ridge without it are
    ``R (Y - e) / alpha``, zero for b (see `unibrain.regression.leave_out` for R); each band's kernel applies them.
    `columns` are targets less their mean. Returned are targets less the mean of the rows that were kept, and for each
    band its part of the prediction less that mean.
    """
    from scipy.linalg import cho_factor, cho_solve

    n = len(columns)
    columns = np.asarray(columns, dtype=np.float64)
    penalised = combine_kernels(kernels, weights)
    penalised[np.diag_indices(n)] += alpha
    factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
    residual = alpha * cho_solve(factor, np.eye(n), check_finite=False) - 1 / n
    own_residuals = residual @ columns
    through = [kernel @ own_residuals for kernel in kernels]
    predictions = [np.empty_like(columns) for _ in kernels]
    for rows in batches(held_out):
        own = residual[rows[:, :, None], rows[:, None, :]]
        error = solve_own(own, own_residuals[rows], alpha)
        back = np.swapaxes(residual[rows], 1, 2)
        for kernel, whole, weight, prediction in zip(kernels, through, weights, predictions, strict=True):
            part = whole[rows] - (kernel[rows] @ back) @ error
            # Less the mean over the rows that were kept: those of a centred kernel sum to zero with the ones left out.
            part += part.sum(axis=1, keepdims=True) / (n - rows.shape[1])
            prediction[rows] = float(weight) / alpha * part
    return deviations(held_out, columns), predictions


def _shares(
    choice: BandChoice, kernels: Sequence[NDArray[Any]], held_out: Groups, sample: Sample
) -> NDArray[np.float64]:
    shares = np.zeros((len(choice.latents), len(choice.bands)))
    # Latents that share weights and alpha share the inverse of the kernel.
    keys = [(int(candidate), float(alpha)) for candidate, alpha in zip(choice.chosen, choice.alpha, strict=True)]
    for key in dict.fromkeys(keys):
        latents = [latent for latent, own in enumerate(keys) if own == key]
        edges = [sample.groups[choice.latents[latent]] for latent in latents]
        columns = np.concatenate([sample.columns[:, part[0] : part[-1]] for part in edges], axis=1)
        weights = choice.candidates[key[0]]
        true, predictions = left_out_band_predictions(kernels, weights, key[1], held_out, columns)
        stops = np.cumsum([part[-1] - part[0] for part in edges])
        for latent, (start, stop) in zip(latents, zip([0, *stops[:-1]], stops, strict=True), strict=True):
            shares[latent] = split_r2(true[:, start:stop], [part[:, start:stop] for part in predictions])
    return shares

"""Banded ridge: weights of the bands and alpha, chosen together by predicting images that were left out.

A seeded random search (Dupré la Tour et al., 2022): candidates on the simplex are drawn from Dirichlet distributions,
some of them sparse; each is tried with the whole grid of alphas. The first candidate gives all bands the same weight,
so that bands never do worse, on the images left out, than no bands. Each candidate costs one eigendecomposition and
what `unibrain.regression.alpha_scores` says, for all latents together.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.alpha_scores import alpha_grid, score_alphas
from unibrain.regression.bands import combine_kernels
from unibrain.regression.ridge import factorise
from unibrain.regression.shares import left_out_band_predictions, split_r2
from unibrain.regression.sketches import Projection, Sketch, check_targets, sketch_targets
from unibrain.regression.splits import Scheme, split_images
from unibrain.regression.targets import TargetReader
from unibrain.workspace.progress import track

__all__ = ["BandChoice", "choose_bands", "dirichlet_weights"]

CONCENTRATIONS = (0.1, 1.0)
"""Of the Dirichlet distributions, in turn: one band or two alone, and any mixture."""

STEP = 4.0
"""Factor on one band's weight in a round of refinement."""


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
        Which candidate each latent uses; all the same if one was chosen for all.
    shares : ndarray of shape (latents, bands), float64
        Explained variance of images left out that each band carries (`unibrain.regression.shares`); a row sums to the
        latent's explained variance.
    per : {"latent", "all"}
        Whether latents chose on their own.
    settings_ : mapping
        Scheme, seed and the sketch of the targets, as JSON knows them.
    """

    bands: tuple[str, ...]
    latents: tuple[str, ...]
    alphas: NDArray[np.float64]
    candidates: NDArray[np.float64]
    r2: NDArray[np.float64]
    chosen: NDArray[np.int64]
    shares: NDArray[np.float64]
    per: str
    settings_: Mapping[str, Any]

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
        """Explained variance of images left out, of shape (latents,)."""
        best: NDArray[np.float64] = self.r2[self.chosen, np.arange(len(self.latents))].max(axis=1)
        return best

    @property
    def plain_r2(self) -> NDArray[np.float64]:
        """The same with one penalty for all voxels, of shape (latents,)."""
        plain: NDArray[np.float64] = self.r2[0].max(axis=1)
        return plain

    def settings(self) -> dict[str, Any]:
        """All but the arrays, as JSON knows it."""
        return {
            "bands": list(self.bands),
            "latents": list(self.latents),
            "per": self.per,
            "settings_": dict(self.settings_),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays, by the name of the attribute."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "BandChoice":
        """The choice that `settings` and `arrays` were taken from."""
        fields: dict[str, Any] = {**settings, **arrays}
        fields.update(bands=tuple(settings["bands"]), latents=tuple(settings["latents"]))
        return cls(**fields)


def dirichlet_weights(count: int, bands: int, seed: int = 0) -> NDArray[np.float64]:
    """Candidate weights: all ones, then random ones.

    Parameters
    ----------
    count : int
        Number of candidates, at least 1.
    bands : int
    seed : int

    Returns
    -------
    ndarray of shape (count, bands), float64
        At least 0, with a mean of 1 in each row.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((count, bands))
    for row in range(1, count):
        concentration = CONCENTRATIONS[(row - 1) % len(CONCENTRATIONS)]
        weights[row] = bands * rng.dirichlet(np.full(bands, concentration))
    return weights


def choose_bands(
    kernels: Mapping[str, NDArray[Any]],
    stimulus_ids: NDArray[np.int64],
    targets: Mapping[str, TargetReader],
    shapes: Mapping[str, tuple[int, ...]],
    alphas: Sequence[float] | NDArray[np.float64],
    *,
    candidates: int | NDArray[np.float64] = 20,
    refine: int = 0,
    per: Literal["latent", "all"] = "latent",
    scheme: Scheme = 5,
    sampled_targets: int = 512,
    projection: Projection = "sample",
    seed: int = 0,
    verbose: bool = False,
    memory: float = 2e9,
) -> BandChoice:
    """Choose one penalty per band, for each latent or for all together.

    Parameters
    ----------
    kernels : mapping of str to ndarray of shape (n, n)
        Centred kernel of each band (`unibrain.regression.bands.band_kernels`); float32 halves their memory.
    stimulus_ids, targets, shapes, alphas, scheme, sampled_targets, projection, seed, verbose, memory
        As for `unibrain.regression.alpha_choice.choose_alphas`. A band's penalty is alpha over its weight.
    candidates : int or ndarray of shape (c, bands)
        Number of candidates of the random search, or the candidates themselves (all ones are tried in any case).
    refine : int
        Rounds of coordinate search after it: each band's weight times and over `STEP`, around each latent's best. A
        round costs twice as many eigendecompositions as there are bands, for each different best.
    per : {"latent", "all"}
        Whether each latent gets weights of its own (one factorisation each), or the best on average over the latents
        are used for all. Alpha is each latent's own in both.

    Returns
    -------
    BandChoice

    Raises
    ------
    InputError
        If kernels are no centred square matrices of one size, candidates are no weights, a parameter is out of range,
        or there are more folds than images.
    """
    grid = alpha_grid(alphas)
    matrices = list(kernels.values())
    _check_kernels(kernels, len(stimulus_ids))
    if per not in ("latent", "all"):
        raise InputError(f"per is {per!r}, expected 'latent' or 'all': choose one of them")
    check_targets(targets, shapes, len(stimulus_ids))
    held_out = split_images(stimulus_ids, scheme, seed)
    sketch = sketch_targets(targets, shapes, "latent", sampled_targets, projection, seed, memory)

    tried = _as_weights(candidates, len(matrices), seed)
    scores: list[NDArray[np.float64]] = []

    def score(weights: NDArray[np.float64]) -> None:
        for row in track(weights, "choose bands", unit="candidate") if verbose else weights:
            curves = score_alphas(factorise(combine_kernels(matrices, row)), held_out, sketch, grid)
            scores.append(np.stack([curves[name][0][0] for name in targets]))

    score(tried)
    for _ in range(refine):
        neighbours = _neighbours(tried, np.unique(_choose(np.array(scores), per)))
        score(neighbours)
        tried = np.concatenate([tried, neighbours])
    settings = {
        "scheme": scheme,
        "sampled_targets": sampled_targets,
        "projection": projection,
        "seed": seed,
        "refine": refine,
    }
    r2 = np.array(scores)
    no_shares = np.zeros((len(targets), len(matrices)))
    choice = BandChoice(tuple(kernels), tuple(targets), grid, tried, r2, _choose(r2, per), no_shares, per, settings)
    return dataclasses.replace(choice, shares=_shares(choice, matrices, held_out, sketch))


def _shares(
    choice: BandChoice, kernels: Sequence[NDArray[Any]], held_out: Sequence[NDArray[np.int64]], sketch: Sketch
) -> NDArray[np.float64]:
    shares = np.zeros((len(choice.latents), len(choice.bands)))
    # Latents that share weights and alpha share the inverse of the kernel.
    keys = [(int(candidate), float(alpha)) for candidate, alpha in zip(choice.chosen, choice.alpha, strict=True)]
    for key in dict.fromkeys(keys):
        latents = [latent for latent, own in enumerate(keys) if own == key]
        edges = [sketch.groups[choice.latents[latent]] for latent in latents]
        columns = np.concatenate([sketch.columns[:, start:stop] for start, stop in edges], axis=1)
        weights = choice.candidates[key[0]]
        true, predictions = left_out_band_predictions(kernels, weights, key[1], held_out, columns)
        stops = np.cumsum([stop - start for start, stop in edges])
        for latent, (start, stop) in zip(latents, zip([0, *stops[:-1]], stops, strict=True), strict=True):
            shares[latent] = split_r2(true[:, start:stop], [part[:, start:stop] for part in predictions])
    return shares


def _choose(r2: NDArray[np.float64], per: str) -> NDArray[np.int64]:
    """The candidate of each latent; the first of several equal ones."""
    best = r2.max(axis=2)
    if per == "all":
        best = np.repeat(best.mean(axis=1, keepdims=True), best.shape[1], axis=1)
    chosen: NDArray[np.int64] = np.argmax(best, axis=0)
    return chosen


def _neighbours(tried: NDArray[np.float64], centres: NDArray[np.int64]) -> NDArray[np.float64]:
    steps = [
        np.where(np.arange(tried.shape[1]) == band, factor, 1.0)
        for band in range(tried.shape[1])
        for factor in (1 / STEP, STEP)
    ]
    weights: NDArray[np.float64] = np.array([tried[centre] * step for centre in centres for step in steps])
    weights /= weights.mean(axis=1, keepdims=True)
    return weights


def _as_weights(candidates: int | NDArray[np.float64], bands: int, seed: int) -> NDArray[np.float64]:
    if isinstance(candidates, int):
        if candidates < 1:
            raise InputError(f"{candidates} candidates, expected at least 1: try more")
        return dirichlet_weights(candidates if bands > 1 else 1, bands, seed)
    weights = np.asarray(candidates, dtype=np.float64)
    shaped = weights.ndim == 2 and weights.shape[1] == bands and len(weights) > 0
    if not shaped or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any(axis=1).all():
        raise InputError(
            f"the candidates have shape {weights.shape}, expected rows of {bands} finite weights of at least 0, "
            "not all 0: give one weight per band"
        )
    weights = weights / weights.mean(axis=1, keepdims=True)
    plain = np.isclose(weights, 1.0, rtol=1e-12).all(axis=1)
    return np.concatenate([np.ones((1, bands)), weights[~plain]])


def _check_kernels(kernels: Mapping[str, NDArray[Any]], n: int) -> None:
    if not kernels:
        raise InputError("there are 0 bands, expected at least one: define bands by regions")
    for band, kernel in kernels.items():
        if kernel.shape != (n, n):
            raise InputError(
                f"the kernel of band {band} has shape {kernel.shape}, expected ({n}, {n}): compute it from the "
                "training scans"
            )
        size = float(np.trace(kernel))
        # Rounding of a float32 kernel is 1e-7 of its size.
        if not np.isfinite(size) or np.abs(kernel.sum(axis=0, dtype=np.float64)).max() > 1e-5 * max(size, 1e-300):
            raise InputError(
                f"the kernel of band {band} is not centred, expected rows that sum to zero: compute it from centred "
                "scans (band_kernels)"
            )

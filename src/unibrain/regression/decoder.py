"""`BrainDecoder`: four ridge regressions from voxels to latents, scikit-learn style."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from unibrain.errors import InputError
from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.regression.checks import as_scans, check_pairs, check_parameters, flat
from unibrain.regression.crossvalidation import (
    AlphaCurve,
    alpha_curves,
    leave_out_moments,
    leave_out_operator,
    split_folds,
)
from unibrain.regression.rescale import Rescaling, gains
from unibrain.regression.ridge import (
    Factorisation,
    apply_operator,
    centred_kernel,
    cross_kernel,
    factorise,
)
from unibrain.regression.store import load_decoder, save_decoder
from unibrain.workspace.progress import track

__all__ = ["DEFAULT_ALPHAS", "BrainDecoder"]

DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(1, 7, 13))
"""From 10 to 10 million, two per decade: voxels are z-scored, so the kernel's diagonal is near the number of voxels."""

T = TypeVar("T")


class BrainDecoder(BaseEstimator):  # type: ignore[misc]
    """Ridge regression from voxels to the four latents, in the dual form.

    All latents share one kernel and one factorisation. Each has its own penalty. Nothing but training statistics
    enters a prediction, so one scan alone can be decoded, and gives the same result as in company.

    Parameters
    ----------
    alpha : "cv", float or mapping of str to float
        Penalty on the squared weights: chosen per latent by cross-validation inside the training set, one number for
        all latents, or one number per latent name.
    alphas : sequence of float
        The grid that ``"cv"`` chooses from.
    folds : int
        Number of folds of the choice of alpha. Images are dealt to folds by `seed`.
    rescale : {"train", "train_per_dimension", "none"}
        How predictions, which ridge draws towards the training mean, get their natural size back; see
        `unibrain.regression.rescale`.
    sampled_targets : int
        The choice of alpha looks at this many dimensions of each latent, drawn by `seed`.
    seed : int
        Seed of the folds and of the sampled dimensions.
    verbose : bool
        Show progress bars.

    Attributes
    ----------
    alpha_ : dict of str to float
        Penalty of each latent.
    alpha_curve_ : dict of str to AlphaCurve
        What each latent's choice was made from; empty if `alpha` was given.
    gain_ : dict of str to ndarray of shape (dimensions,), float32
        Factor on each dimension's centred prediction.
    n_features_in_ : int
        Number of voxels.
    betas_ : ndarray of shape (n, voxels)
        The training scans.
    betas_mean_ : ndarray of shape (voxels,), float64
        Their mean.
    factorisation_ : Factorisation
        Eigendecomposition of their centred kernel.
    latents_ : Latents
        The training targets.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> betas = rng.standard_normal((20, 30))
    >>> shapes = (2, 4, 4), (8,), (3, 8), (5, 8)
    >>> latents = Latents(np.arange(20), *(rng.standard_normal((20, *shape)) for shape in shapes))
    >>> decoder = BrainDecoder(alpha=10.0).fit(betas, latents)
    >>> decoder.predict(betas[0]).c_image.shape
    (1, 3, 8)
    """

    def __init__(
        self,
        alpha: Literal["cv"] | float | Mapping[str, float] = "cv",
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        folds: int = 5,
        rescale: Rescaling = "train",
        sampled_targets: int = 512,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.folds = folds
        self.rescale = rescale
        self.sampled_targets = sampled_targets
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: ArrayLike, latents: Latents, stimulus_ids: ArrayLike | None = None) -> "BrainDecoder":
        """Fit all four regressions.

        Parameters
        ----------
        X : array-like of shape (n, voxels)
            Training scans, one row per image. Kept, not copied.
        latents : Latents
            Latents of the same n images, in the same order. Kept, not copied; may be memory maps.
        stimulus_ids : array-like of shape (n,), optional
            Image of each scan; if given, it must equal ``latents.stimulus_ids``.

        Returns
        -------
        BrainDecoder
            Itself.

        Raises
        ------
        InputError
            If scans and latents do not belong together, hold NaN or infinite values, or are fewer than two; if a
            parameter is out of range; if there are more folds than images.
        """
        given = check_parameters(self.alpha, self.alphas, self.rescale)
        betas = as_scans(X, "training scans")
        check_pairs(betas, latents, stimulus_ids)

        kernel, mean = centred_kernel(betas)
        factorisation = factorise(kernel)
        curves: dict[str, AlphaCurve] = {}
        if given is None:
            targets = {name: flat(latent) for name, latent in latents.items()}
            held_out = split_folds(latents.stimulus_ids, self.folds, self.seed)
            curves = alpha_curves(
                factorisation, held_out, targets, self.alphas, self.sampled_targets, self.seed, self.verbose
            )
        alpha = {name: curve.best for name, curve in curves.items()} if given is None else given
        gain = self._gains(factorisation, latents, alpha)

        self.alpha_, self.alpha_curve_, self.gain_ = alpha, curves, gain
        self.n_features_in_ = betas.shape[1]
        self.betas_, self.betas_mean_, self.latents_ = betas, mean, latents
        self.factorisation_: Factorisation = factorisation
        return self

    def predict(self, X: ArrayLike, stimulus_ids: ArrayLike | None = None) -> Latents:
        """Predict the four latents of one or many scans.

        Parameters
        ----------
        X : array-like of shape (m, voxels) or (voxels,)
            Scans, prepared like the training scans.
        stimulus_ids : array-like of shape (m,), optional
            Image of each scan, carried into the result; row numbers if it is not given.

        Returns
        -------
        Latents
            Of m rows.

        Raises
        ------
        InputError
            If the number of voxels is not that of the training scans, a value is not finite, or `stimulus_ids` has
            another length.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        scans = as_scans(np.atleast_2d(np.asarray(X)), "scans")
        if scans.shape[1] != self.n_features_in_:
            raise InputError(
                f"the scans have {scans.shape[1]} voxels, expected {self.n_features_in_} as in training: "
                "decode with the decoder that was fitted to this subject and mask"
            )
        ids = np.arange(len(scans)) if stimulus_ids is None else np.asarray(stimulus_ids, dtype=np.int64).reshape(-1)
        if len(ids) != len(scans):
            raise InputError(f"{len(ids)} stimulus ids for {len(scans)} scans, expected one per scan: pass their ids")

        projected = self.factorisation_.project(cross_kernel(scans, self.betas_, self.betas_mean_))
        operators = {alpha: self.factorisation_.operator(projected, alpha) for alpha in set(self.alpha_.values())}
        predictions = []
        for name in self._track(LATENT_NAMES, "predict latents", "latent"):
            targets = self.latents_[name]
            columns = apply_operator(operators[self.alpha_[name]], flat(targets), self.gain_[name])
            predictions.append(columns.reshape(len(scans), *targets.shape[1:]))
        return Latents(ids, *predictions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted decoder to one file (see `unibrain.regression.store.save_decoder`)."""
        check_is_fitted(self)
        save_decoder(path, self.get_params(), vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BrainDecoder":
        """Read a decoder that `save` wrote; it predicts the very same numbers.

        Raises
        ------
        InputError
            If the file is missing, truncated, changed, or no decoder.
        """
        parameters, fitted = load_decoder(path)
        decoder = cls(**parameters)
        decoder.__dict__.update(fitted)
        return decoder

    def _gains(
        self, factorisation: Factorisation, latents: Latents, alpha: Mapping[str, float]
    ) -> dict[str, NDArray[np.float32]]:
        if self.rescale == "none":
            return {name: np.ones(flat(latent).shape[1], dtype=np.float32) for name, latent in latents.items()}
        gain: dict[str, NDArray[np.float32]] = {}
        operators: dict[float, NDArray[np.float64]] = {}
        for name in self._track(LATENT_NAMES, "rescale latents", "latent"):
            if alpha[name] not in operators:
                # One at a time: at NSD's size each is 600 MB.
                operators = {alpha[name]: leave_out_operator(factorisation, latents.stimulus_ids, alpha[name])}
            moments = leave_out_moments(operators[alpha[name]], flat(latents[name]))
            gain[name] = gains(*moments, latents[name].shape[1:], self.rescale)
        return gain

    def _track(self, items: Iterable[T], description: str, unit: str) -> Iterable[T]:
        return track(items, description, unit=unit) if self.verbose else items

"""`BrainDecoder`: four ridge regressions from voxels to latents, scikit-learn style."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from unibrain.latents.latents import LATENT_NAMES, Latents
from unibrain.latents.stored import StoredLatents
from unibrain.latents.writer import Storage
from unibrain.regression.alpha_choice import AlphaChoice
from unibrain.regression.backend import choose_backend
from unibrain.regression.banded import BandChoice
from unibrain.regression.checks import as_scans, check_new_scans, check_pairs, check_parameters
from unibrain.regression.fitting import fit_systems
from unibrain.regression.gain_fit import fit_gains
from unibrain.regression.predict import predict_blocks, predict_to
from unibrain.regression.rescale import Rescaling
from unibrain.regression.sketches import Per, Projection
from unibrain.regression.splits import Scheme
from unibrain.regression.store import load_decoder, save_decoder
from unibrain.regression.systems import System
from unibrain.regression.targets import shapes_of

__all__ = ["DEFAULT_ALPHAS", "BrainDecoder"]

DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(1, 7, 13))
"""From 10 to 10 million, two per decade: voxels are z-scored, so the kernel's diagonal is near the number of voxels."""


class BrainDecoder(BaseEstimator):  # type: ignore[misc]
    """Ridge regression from voxels to the four latents, in the dual form.

    All latents share one kernel and one factorisation (with `bands`, each has its own). Targets may stay on disk: they
    are read in blocks, once per fit and once per prediction. Nothing but training statistics enters a prediction
    (unless `rescale` is ``"test"``), so one scan alone can be decoded, and gives the same result as in company.

    Parameters
    ----------
    alpha : "cv", float or mapping of str to float or array
        Penalty on the squared weights: chosen by cross-validation inside the training set, one number for all latents,
        or one number, or one per target, for each latent name.
    alphas : sequence of float
        The grid that ``"cv"`` chooses from.
    folds : int or "loo"
        Number of folds of the choice of alpha, or leaving out one image at a time. Images are dealt to folds by `seed`;
        repeats of an image stay together.
    rescale : {"train", "train_per_dimension", "none", "test"}
        How predictions, which ridge draws towards the training mean, get their natural size back; see
        `unibrain.regression.rescale`.
    sampled_targets : int
        The choice of alpha looks at this many dimensions of each latent, drawn by `seed`.
    seed : int
        Seed of the folds, of the sampled dimensions, and of the images that are left out to measure the gain.
    verbose : bool
        Show progress bars.
    alpha_per : {"latent", "token", "target"}
        What gets an alpha of its own where ``"cv"`` chooses.
    projection : {"sample", "random"}
        Whether the choice of alpha looks at drawn dimensions, or at random projections of all.
    bands : mapping of str to sequence of str, optional
        Banded ridge: name of a band to the regions that it is made of; each band gets its own penalty, for each latent.
        A voxel in two of them belongs to the first; voxels in none are a band ``"other"``.
    memory : float
        Gigabytes (10**9 bytes) that may be used beside the kernel while targets are streamed.
    device : str
        Where products are computed: ``"cpu"``, or ``"cuda"``.

    Attributes
    ----------
    alphas_ : dict of str to ndarray of shape (1,) or (targets,), float64
        Penalties of each latent.
    alpha_choice_ : dict of str to AlphaChoice
        What each latent's choice was made from; empty if `alpha` was given.
    band_choice_ : BandChoice or None
        With `bands`: the penalties of each latent's bands, what they were chosen from, and what each band carries.
    gain_ : dict of str to ndarray of shape (targets,), float32
        Factor on each dimension's centred prediction (for ``rescale="test"``, the deviation of the targets).
    n_features_in_ : int
        Number of voxels.
    betas_ : ndarray of shape (n, voxels)
        The training scans.
    betas_mean_ : ndarray of shape (voxels,), float64
        Their mean.
    systems_ : tuple of System
        Factorised kernels.
    latents_ : Latents or StoredLatents
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

    alphas_: dict[str, NDArray[np.float64]]
    alpha_choice_: dict[str, AlphaChoice]
    band_choice_: BandChoice | None
    gain_: dict[str, NDArray[np.float32]]
    n_features_in_: int
    betas_: NDArray[Any]
    betas_mean_: NDArray[np.float64]
    systems_: tuple[System, ...]
    latents_: Latents | StoredLatents

    def __init__(
        self,
        alpha: Literal["cv"] | float | Mapping[str, Any] = "cv",
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        folds: Scheme = 5,
        rescale: Rescaling = "train",
        sampled_targets: int = 512,
        seed: int = 0,
        verbose: bool = False,
        alpha_per: Per = "latent",
        projection: Projection = "sample",
        bands: Mapping[str, Sequence[str]] | None = None,
        memory: float = 2.0,
        device: str = "cpu",
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.folds = folds
        self.rescale = rescale
        self.sampled_targets = sampled_targets
        self.seed = seed
        self.verbose = verbose
        self.alpha_per = alpha_per
        self.projection = projection
        self.bands = bands
        self.memory = memory
        self.device = device

    @property
    def alpha_(self) -> dict[str, float]:
        """Penalty of each latent; where its targets have different ones, their geometric mean."""
        return {
            name: float(values[0]) if len(np.unique(values)) == 1 else float(np.exp(np.log(values).mean()))
            for name, values in self.alphas_.items()
        }

    def fit(
        self,
        X: ArrayLike,
        latents: Latents | StoredLatents,
        stimulus_ids: ArrayLike | None = None,
        regions: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> "BrainDecoder":
        """Fit all four regressions.

        Parameters
        ----------
        X : array-like of shape (n, voxels)
            Training scans, one row per image or trial. Kept, not copied.
        latents : Latents or StoredLatents
            Latents of the same n images, in the same order. Kept, not copied; stored ones stay on disk.
        stimulus_ids : array-like of shape (n,), optional
            Image of each scan; if given, it must equal ``latents.stimulus_ids``.
        regions : mapping of str to ndarray of shape (voxels,), bool, optional
            Region name to its voxels; needed for `bands`.

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
        given = check_parameters(self.alpha, self.alphas, self.rescale, self.alpha_per, self.memory)
        backend = choose_backend(self.device)
        betas = as_scans(X, "training scans")
        check_pairs(betas, latents, stimulus_ids)
        fitted = fit_systems(self, betas, latents, given, regions, backend)
        gain = fit_gains(self, fitted.systems, fitted.alphas, latents, backend)
        self.alphas_, self.alpha_choice_, self.band_choice_ = fitted.alphas, fitted.choices, fitted.bands
        self.systems_, self.gain_ = fitted.systems, gain
        self.n_features_in_ = betas.shape[1]
        self.betas_, self.betas_mean_, self.latents_ = betas, fitted.mean, latents
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
        check_is_fitted(self, "systems_")
        scans, ids = check_new_scans(X, self.n_features_in_, stimulus_ids)
        shapes, found = shapes_of(self.latents_), {}
        for name, block, values in predict_blocks(self, scans):
            if name not in found:
                width = int(np.prod(shapes[name]))
                found[name] = np.empty((len(scans), width), dtype=values.dtype)
            found[name][:, block] = values
        return Latents(ids, *(found[name].reshape(len(scans), *shapes[name]) for name in LATENT_NAMES))

    def predict_to(
        self,
        folder: str | os.PathLike[str],
        X: ArrayLike,
        stimulus_ids: ArrayLike | None = None,
        backbone: str = "",
        fingerprint: str = "",
        storage: Storage = "auto",
        unfinished: str | os.PathLike[str] | None = None,
    ) -> None:
        """Predict as `predict` does, straight into a folder of latents, block by block.

        Run again after a stop, it continues at the block.

        Parameters
        ----------
        folder : path-like
            Where the predictions go; open them with `unibrain.latents.load_latents`.
        X, stimulus_ids
            See `predict`.
        backbone, fingerprint : str
            Of the training targets, for the record.
        storage, unfinished
            See `unibrain.latents.writer.LatentWriter`.

        Raises
        ------
        InputError
            As `predict` does, and if the disk is full (what was predicted is kept).
        """
        check_is_fitted(self, "systems_")
        scans, ids = check_new_scans(X, self.n_features_in_, stimulus_ids)
        predict_to(self, folder, scans, ids, backbone, fingerprint, storage, unfinished)

    def save(self, path: str | os.PathLike[str], embed_targets: bool | None = None) -> None:
        """Write the fitted decoder to one file (see `unibrain.regression.store.save_decoder`)."""
        check_is_fitted(self, "systems_")
        save_decoder(path, self.get_params(), vars(self), embed_targets)

    @classmethod
    def load(cls, path: str | os.PathLike[str], targets: str | os.PathLike[str] | None = None) -> "BrainDecoder":
        """Read a decoder that `save` wrote; it predicts the very same numbers.

        Parameters
        ----------
        path : path-like
        targets : path-like, optional
            Folder of the latents that it was fitted to, if they were moved.

        Raises
        ------
        InputError
            If the file is missing, truncated, changed, or no decoder; if the training targets that it refers to are
            missing or changed.
        """
        parameters, fitted = load_decoder(path, targets)
        decoder = cls(**parameters)
        decoder.__dict__.update(fitted)
        return decoder

"""`BrainDecoder`: ridge regressions from voxels to latents, a scikit-learn estimator."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from unibrain.errors import InputError
from unibrain.latents import LatentWriter, Storage
from unibrain.regression.bands import BandChoice, fit_bands, make_bands
from unibrain.regression.blocks import Sharing, each_block
from unibrain.regression.decoder_file import load_decoder, save_decoder
from unibrain.regression.leave_out import Scheme, split_images
from unibrain.regression.penalties import PERS, AlphaChoice, Per, alpha_grid, choose_alphas
from unibrain.regression.rescale import RESCALINGS, Rescaling, fit_gains, rescaled
from unibrain.regression.ridge import (
    Solver,
    System,
    centred_kernel,
    choose_backend,
    column_blocks,
    factorise_once,
    factorise_scans,
)
from unibrain.regression.targets import (
    LARGEST,
    InvalidArrayError,
    Operators,
    TrainingTargets,
    training_targets,
)
from unibrain.workspace.progress import track

DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(1, 7, 13))
"""From 10 to 10 million, two per decade: voxels are z-scored, so the kernel's diagonal is near the number of voxels."""


class BrainDecoder(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression from voxels to latents, or to any other targets, in the dual form.

    All targets share one kernel and one factorisation (with `bands`, each latent has its own). They may stay on disk:
    they are read in blocks, once per fit and once per prediction. Nothing but training statistics enters a prediction
    (unless `rescale` is ``"test"``), so one scan alone can be decoded, and gives the same result as in company.

    Parameters
    ----------
    alpha : "cv", float, array or mapping of str to float or array
        Penalty on the squared weights: chosen by cross-validation inside the training set, one number for all targets,
        one per target, or either of these for each latent name.
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
        Penalties of each latent. Here and below, the name of targets that are one array is ``"y"``.
    alpha_choice_ : dict of str to AlphaChoice
        What each latent's choice was made from; empty if `alpha` was given.
    band_choice_ : BandChoice or None
        With `bands`: the penalties of each latent's bands, what they were chosen from, and what each band carries.
    gain_ : dict of str to ndarray of shape (targets,), float32
        Factor on each dimension's centred prediction (for ``rescale="test"``, the deviation of the targets).
    groups_ : ndarray of shape (n,), int64
        Image of each training scan.
    n_features_in_ : int
        Number of voxels.
    betas_ : ndarray of shape (n, voxels)
        The training scans.
    betas_mean_ : ndarray of shape (voxels,), float64
        Their mean.
    systems_ : tuple of System
        Factorised kernels.
    targets_ : TrainingTargets
        The training targets.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> betas, vectors = rng.standard_normal((20, 30)), rng.standard_normal((20, 3, 8))
    >>> decoder = BrainDecoder(alpha=10.0).fit(betas, vectors)
    >>> decoder.predict(betas[0]).shape
    (1, 3, 8)
    >>> BrainDecoder(alpha=10.0).fit(betas, {"mine": vectors}).predict(betas)["mine"].shape
    (20, 3, 8)
    """

    def __init__(
        self,
        alpha: Literal["cv"] | float | Mapping[str, Any] | NDArray[np.float64] = "cv",
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        folds: Scheme = 5,
        rescale: Rescaling = "train",
        sampled_targets: int = 512,
        seed: int = 0,
        verbose: bool = False,
        alpha_per: Per = "latent",
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
        self.bands = bands
        self.memory = memory
        self.device = device

    @property
    def alpha_(self) -> dict[str, float]:
        """Penalty of each latent; where its targets have different ones, their geometric mean."""
        check_is_fitted(self, "systems_")
        return {
            name: float(values[0]) if len(np.unique(values)) == 1 else float(np.exp(np.log(values).mean()))
            for name, values in self.alphas_.items()
        }

    @property
    def groups_(self) -> NDArray[np.int64]:
        """See the class."""
        check_is_fitted(self, "systems_")
        return self.targets_.ids

    def fit(
        self,
        X: ArrayLike,
        Y: Any,
        groups: ArrayLike | None = None,
        regions: Mapping[str, NDArray[np.bool_]] | None = None,
        sharing: Sharing | None = None,
    ) -> "BrainDecoder":
        """Fit all regressions.

        Parameters
        ----------
        X : array-like of shape (n, voxels)
            Training scans, one row per image or trial. Kept, not copied.
        Y : array-like of shape (n,) or (n, ...), mapping of str to such arrays, Latents, or StoredLatents
            Targets of the same n scans, in the same order. Kept, not copied; stored ones stay on disk.
        groups : array-like of shape (n,), optional
            Image of each scan: scans of one image are left out together. By default the ``stimulus_ids`` of latents,
            which given ones must equal; otherwise each scan is an image of its own.
        regions : mapping of str to ndarray of shape (voxels,), bool, optional
            Region name to its voxels; needed for `bands`.
        sharing : Sharing, optional
            Has several processes share the products with stored targets; see `unibrain.regression.blocks`.

        Returns
        -------
        BrainDecoder
            Itself.

        Raises
        ------
        InputError
            If scans and targets do not belong together, or hold NaN, infinite or complex values, or such as are beyond
            float32; if they are of fewer than two images; if a parameter is out of range; if there are more folds than
            images.

        Warns
        -----
        UserWarning
            If scans are the same in all voxels, or repeat each other.
        """
        backend = choose_backend(self.device)
        self._check_parameters()
        betas, targets = self._scans(X, fitting=True), training_targets(Y, groups)
        if len(betas) != len(targets.ids):
            raise InvalidArrayError(
                f"There are {len(betas)} training scans and {len(targets.ids)} rows of targets. Select the targets by "
                "the scans' stimulus ids."
            )
        given = self._given_alphas(targets)
        # Refused before the kernel is computed, which takes a while.
        split_images(targets.ids, "loo" if given else self.folds, self.seed)
        common: dict[str, Any] = {"seed": self.seed, "verbose": self.verbose, "memory": self.memory * 1e9}
        choosing = {"scheme": self.folds, "sampled_targets": self.sampled_targets, **common}
        choices: dict[str, AlphaChoice] = {}
        band_choice: BandChoice | None = None
        systems: tuple[System, ...]
        if self.bands is not None:
            masks = make_bands(regions or {}, self.bands, betas.shape[1])
            systems, alphas, band_choice = fit_bands(betas, targets, masks, self.alphas, backend, **choosing)
            mean = betas.mean(axis=0, dtype=np.float64)
        else:
            solver: Solver
            if given is None:
                solver, mean = factorise_scans(betas, backend)
                choices = choose_alphas(solver, targets, self.alphas, per=self.alpha_per, **choosing)
                alphas = {name: choice.per_target for name, choice in choices.items()}
            else:
                distinct, alphas = np.unique(np.concatenate(list(given.values()))), given
                if len(distinct) == 1:
                    # Decomposing costs several times a Cholesky factor, and then serves any penalty.
                    kernel, mean = centred_kernel(betas, backend=backend)
                    solver = factorise_once(kernel, float(distinct[0]), backend)
                else:
                    solver, mean = factorise_scans(betas, backend, float(distinct[0]))
            systems = (System(tuple(targets), None, solver),)
        self.gain_ = fit_gains(systems, alphas, targets, self.rescale, self.device, sharing=sharing, **common)
        self.alphas_, self.alpha_choice_, self.band_choice_ = alphas, choices, band_choice
        self.betas_, self.betas_mean_, self.systems_, self.targets_ = betas, mean, systems, targets
        return self

    def predict(self, X: ArrayLike, stimulus_ids: ArrayLike | None = None) -> Any:
        """Predict the targets of one or many scans.

        Parameters
        ----------
        X : array-like of shape (m, voxels), or ndarray of shape (voxels,)
            Scans, prepared like the training scans.
        stimulus_ids : array-like of shape (m,), optional
            Image of each scan, carried into `Latents`; row numbers if it is not given. Reconstruction seeds its noise
            by them: one scan that is predicted without an id is decoded with the noise of image id 0.

        Returns
        -------
        ndarray, dict of str to ndarray, or Latents
            Of m rows, and of the kind that the decoder was fitted to. float64 if the targets were, else float32.

        Raises
        ------
        InputError
            If the number of voxels is not that of the training scans, a value is not finite, or `stimulus_ids` has
            another length.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        scans, ids = self._new_scans(X, stimulus_ids)
        targets = self.targets_
        found = {name: np.empty((len(scans), targets[name].shape[1]), targets[name].compute) for name in targets}
        for name, block, values in self.predict_blocks(scans):
            found[name][:, block] = values
        return targets.give(found, ids)

    def predict_blocks(
        self, scans: NDArray[Any], sharing: Sharing | None = None
    ) -> Iterator[tuple[str, slice, NDArray[Any]]]:
        """Name, columns and predictions of shape (m, columns), block by block, reading the training targets once."""
        memory, operators = self.memory * 1e9, self._operators(scans)
        for name, block, product in each_block("predictions", operators, self.targets_, memory, self.device, sharing):
            yield name, block, rescaled(product[:-1], product[-1], self.gain_[name][block], self.rescale)

    def _operators(self, scans: NDArray[Any]) -> Iterator[tuple[str, Operators]]:
        """For each latent, what predicts it for these scans."""
        backend, targets = choose_backend(self.device), self.targets_
        for system in self.systems_:
            needed = {float(value) for name in system.names for value in np.unique(self.alphas_[name])}
            by_alpha = system.operators(scans, self.betas_, self.betas_mean_, sorted(needed), backend)
            operators: Operators | None = None
            for name in track(system.names, "predict latents", unit="latent") if self.verbose else system.names:
                alpha, latent = self.alphas_[name], targets[name]
                if operators is None or not operators.serve(alpha, latent.compute):
                    operators = Operators(by_alpha, alpha, latent.compute, backend)
                yield name, operators

    def predict_to(
        self,
        folder: str | os.PathLike[str],
        X: ArrayLike,
        stimulus_ids: ArrayLike | None = None,
        backbone: str = "",
        fingerprint: str = "",
        storage: Storage = "auto",
        unfinished: str | os.PathLike[str] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Predict as `predict` does, straight into a folder of latents, block by block.

        Parameters
        ----------
        folder : path-like
            Where the predictions go; open them with `unibrain.latents.load_latents`.
        X, stimulus_ids
            See `predict`.
        backbone, fingerprint : str
            Of the training targets, for the record.
        storage, unfinished
            See `unibrain.latents.LatentWriter`.
        sharing : Sharing, optional
            See `fit`.

        Raises
        ------
        InputError
            As `predict` does, and if the disk is full.
        """
        scans, ids = self._new_scans(X, stimulus_ids)
        writer = LatentWriter(folder, ids, backbone, fingerprint, storage=storage, unfinished=unfinished, resume=False)
        writer.begin(self.targets_.shapes)
        for part in self.predict_blocks(scans, sharing):
            writer.write_columns(*part)
        writer.finish()

    def score(self, X: ArrayLike, y: Any) -> float:
        """R squared (`sklearn.metrics.r2_score`), mean over a latent's dimensions, then over the latents.

        Parameters
        ----------
        X : array-like of shape (m, voxels)
        y : as `Y` of `fit`
            True targets of the same scans. Named as scikit-learn calls it.

        Returns
        -------
        float
            1 at best; 0 for predicting each dimension's mean. As in all of scikit-learn, and unlike the variance
            explained in `AlphaChoice`, every dimension counts the same.
        """
        from sklearn.metrics import r2_score

        true, predicted = training_targets(y), training_targets(self.predict(X))
        wrong = [name for name in predicted if true.shapes.get(name) != predicted.shapes[name]]
        if wrong or len(true.ids) != len(predicted.ids):
            raise InvalidArrayError(f"{(wrong or ['y'])[0]} is not of the shape that is predicted for these scans.")
        return float(np.mean([r2_score(true[name][:, :], predicted[name][:, :]) for name in predicted]))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted decoder into a folder, as ``decoder.safetensors``.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. Training targets that are stored as latents are referred to, from the folder's
            place; those that are in memory are put into the file.

        Raises
        ------
        InputError
            If the disk is full.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self, "systems_")
        save_decoder(folder, self.get_params(), vars(self))

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], targets: str | os.PathLike[str] | None = None, verify: bool = True
    ) -> "BrainDecoder":
        """Read a decoder that `save` wrote; it predicts the very same numbers.

        Parameters
        ----------
        folder : path-like
            The folder that it was saved to, such as ``run/decoder``.
        targets : path-like, optional
            Folder of the latents that it was fitted to, if they were moved.
        verify : bool
            Compare the checksums of stored training targets, which reads all of them once. The decoder's own file is
            compared in any case.

        Raises
        ------
        InputError
            If there is no decoder; if the training targets that it refers to are gone or others.
        DamagedFileError
            If the file or the training targets are truncated or changed, or of another version.
        """
        parameters, fitted = load_decoder(folder, targets, verify)
        decoder = cls(**parameters)
        decoder.__dict__.update(fitted)
        return decoder

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_parameters(self) -> None:
        for name, allowed in (("rescale", RESCALINGS), ("alpha_per", PERS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}. Choose one of {', '.join(allowed)}.")
        if not (np.isfinite(self.memory) and self.memory > 0):
            raise InputError(f"memory is {self.memory:g} GB. Give more than 0.")
        for name, least in (("sampled_targets", 1), ("seed", 0)):
            if not (isinstance(getattr(self, name), Integral) and getattr(self, name) >= least):
                raise InputError(f"{name} is {getattr(self, name)!r}. Give a whole number of at least {least}.")
        chosen = isinstance(self.alpha, str)
        if chosen and self.alpha != "cv":
            raise InputError(f"alpha is {self.alpha!r}. Choose 'cv', a number, or a number per latent.")
        if self.bands is not None and not (chosen and self.alpha_per == "latent"):
            raise InputError("bands need alpha = 'cv' per latent: their penalties are chosen by cross-validation.")

    def _given_alphas(self, targets: TrainingTargets) -> dict[str, NDArray[np.float64]] | None:
        """Penalties of each latent, one or one per target; None if cross-validation is to choose."""
        if isinstance(self.alpha, str):
            alpha_grid(self.alphas)
            return None
        given = self.alpha if isinstance(self.alpha, Mapping) else dict.fromkeys(targets, self.alpha)
        if set(given) != set(targets):
            raise InputError(f"alpha names {', '.join(sorted(given)) or 'nothing'}. Name {', '.join(sorted(targets))}.")
        found = {name: np.atleast_1d(np.asarray(given[name], dtype=np.float64)) for name in targets}
        for name, values in found.items():
            alpha_grid(values, f"alpha of {name}")
            if values.shape not in ((1,), (targets[name].shape[1],)):
                raise InputError(
                    f"alpha of {name} has shape {values.shape}. Give one number or {targets[name].shape[1]}."
                )
        return found

    def _scans(self, X: ArrayLike, fitting: bool) -> NDArray[Any]:
        """Scans as a matrix of floats, one row per scan; the same memory where `X` is one."""
        try:
            scans: NDArray[Any] = validate_data(
                self,
                X,
                reset=fitting,
                dtype=[np.float64, np.float32, np.float16],
                ensure_all_finite=False,
                ensure_min_samples=2 if fitting else 1,
            )
        except ValueError as error:
            raise InvalidArrayError(f"Scans: {' '.join(str(error).split())[:300]}") from error
        for block in column_blocks(*scans.shape):
            values = scans[:, block]
            if not float(np.abs(values).max()) <= LARGEST:
                row, voxel = np.argwhere(~(np.abs(values.astype(np.float64)) <= LARGEST))[0]
                raise InvalidArrayError(
                    f"Scans: the value in row {row}, voxel {voxel + block.start} is NaN, infinite or beyond float32. "
                    "Leave that voxel out when preparing the scans."
                )
        warn_of_odd_scans(scans, fitting)
        return scans

    def _new_scans(self, X: ArrayLike, stimulus_ids: ArrayLike | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Scans to predict from, one per row, and their ids."""
        check_is_fitted(self, "systems_")
        scans = self._scans(X[None] if isinstance(X, np.ndarray) and X.ndim == 1 else X, fitting=False)
        ids = np.arange(len(scans)) if stimulus_ids is None else np.asarray(stimulus_ids, dtype=np.int64).reshape(-1)
        if len(ids) != len(scans):
            raise InvalidArrayError(f"There are {len(ids)} stimulus ids for {len(scans)} scans. Give one per scan.")
        return scans, ids


def warn_of_odd_scans(scans: NDArray[Any], repeats: bool) -> None:
    """Warn of scans that are the same in all voxels, such as zeros, and, on request, of scans that repeat others."""
    if scans.shape[1] == 1:
        return
    constant = np.flatnonzero(np.ptp(scans, axis=1) == 0)
    if len(constant):
        message = f"The scan in row {constant[0]} is the same in all voxels ({len(constant)} such scans). Check it."
        warnings.warn(message, UserWarning, stacklevel=4)
    if repeats:
        sums = scans.sum(axis=1)
        order = np.argsort(sums, kind="stable")
        pairs = [(order[i], order[i + 1]) for i in np.flatnonzero(np.diff(sums[order]) == 0)]
        same = [pair for pair in pairs if np.array_equal(scans[pair[0]], scans[pair[1]])]
        if same:
            message = f"The scans in rows {same[0][0]} and {same[0][1]} are the same ({len(same)} repeats). Check them."
            warnings.warn(message, UserWarning, stacklevel=4)

"""Undoing the shrinkage of ridge predictions, with training statistics only.

A ridge prediction is drawn towards the training mean, the more so the less of a latent the scan tells. Frozen decoders
and attention layers were trained on latents of natural size, so the deviation from the mean is multiplied by a gain
before it is decoded.

The gain is measured on predictions of training images *that were left out*, one at a time. In-sample predictions are
overfitted: their deviation is close to the targets', and the gain would come out near one. The deviation of the
test-set predictions (common in published code) is transductive: the prediction for one scan depends on the other
scans that happen to be decoded with it, and a single scan cannot be decoded at all. It is here under its own name,
``"test"``, to compare with such code, and the report of a run says that it was used.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.blocks import Sharing, each_block
from unibrain.regression.leave_out import left_out_operator, sample_rows, split_images
from unibrain.regression.ridge import System, choose_backend
from unibrain.regression.targets import Operators, TrainingTargets
from unibrain.workspace.progress import track

Rescaling = Literal["train", "train_per_dimension", "none", "test"]

RESCALINGS: tuple[Rescaling, ...] = ("train", "train_per_dimension", "none", "test")
"""Names of the choices, the default first.

``"train"``: one gain per token of a context, per channel of the image latent, or for the whole text latent, so that the
summed variance equals the training targets'. The direction of the prediction (the best guess in squared error) is kept;
only its length is corrected. ``"train_per_dimension"``: one gain per dimension, so that each has the training targets'
variance; dimensions that the scan hardly tells become as large as those that it tells well.
"""

MAX_GAIN = 5.0
"""Largest gain: what explains less than 1/25 of the variance stays shrunk, because it would be mostly noise."""

EXACT_IMAGES = 4096
"""Up to this many training images, each of them is left out once to measure the gain."""

SAMPLED_IMAGES = 1024
"""Of more images, so many, drawn by seed. All 8,859 of NSD would cost nine times the prediction of its test set; the
variance of one dimension is known to 4 % from 1,024, that of a token of 768 dimensions far better."""

TEST_WARNING = (
    "Predictions were rescaled with statistics of the test set (rescale = test): each depends on the other scans that "
    "were decoded with it, so these numbers are no evidence of how well a single new scan is decoded."
)
"""What the report of such a run says."""


def fit_gains(
    systems: Sequence[System],
    alphas: Mapping[str, NDArray[np.float64]],
    targets: TrainingTargets,
    rescale: Rescaling,
    device: str = "cpu",
    *,
    seed: int = 0,
    memory: float = 2e9,
    verbose: bool = False,
    sharing: Sharing | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Read all targets once: refuse values that are not finite, and measure what rescaling needs.

    Returned is the gain of each target (see `gains`); for ``"test"`` the deviation of the targets.
    """
    squares = {name: np.zeros((2, targets[name].shape[1])) for name in targets}
    operators = _left_out(systems, alphas, targets, rescale, device, seed, verbose)
    measure = "nothing" if rescale == "none" else "squares"
    for name, block, found in each_block(measure, operators, targets, memory, device, sharing):
        squares[name][:, block] = found
    return {
        name: np.sqrt(true).astype(np.float32)
        if rescale == "test"
        else gains(predicted, true, targets.shapes[name], rescale)
        for name, (predicted, true) in squares.items()
    }


def left_out_rows(ids: NDArray[np.int64], rescale: Rescaling, seed: int) -> NDArray[np.int64]:
    """Rows that are predicted when they are left out, to measure the gain."""
    if not rescale.startswith("train"):
        return np.empty(0, dtype=np.int64)
    images = len(np.unique(ids))
    return sample_rows(ids, images if images <= EXACT_IMAGES else SAMPLED_IMAGES, seed)


def _left_out(
    systems: Sequence[System],
    alphas: Mapping[str, NDArray[np.float64]],
    targets: TrainingTargets,
    rescale: Rescaling,
    device: str,
    seed: int,
    verbose: bool,
) -> Iterator[tuple[str, Operators]]:
    """For each latent, what predicts training images that were left out."""
    rows, backend = left_out_rows(targets.ids, rescale, seed), choose_backend(device)
    held_out = split_images(targets.ids, "loo")
    for system in systems:
        by_alpha: dict[float, NDArray[np.float64]] = {}
        for name in track(system.names, "rescale latents", unit="latent") if verbose else system.names:
            if rescale.startswith("train"):
                alpha = alphas[name]
                needed = [float(value) for value in np.unique(alpha)]
                # Latents often share an alpha. What the next one does not need is dropped, for memory.
                by_alpha = {value: by_alpha[value] for value in needed if value in by_alpha}
                for value in set(needed) - set(by_alpha):
                    by_alpha[value] = left_out_operator(system.solver, held_out, value, rows)
            else:
                # No rows but the last, which gives the mean and tells whether all values are finite.
                alpha, by_alpha = np.ones(1), {1.0: np.zeros((0, len(targets.ids)))}
            yield name, Operators(by_alpha, alpha, targets[name].compute, backend)


def gains(
    predicted: NDArray[np.float64], true: NDArray[np.float64], shape: tuple[int, ...], rescale: Rescaling
) -> NDArray[np.float32]:
    """Gain for every dimension of a latent, between 0 and `MAX_GAIN`; one where the targets are constant.

    `predicted` and `true`, of shape (t,), are means over images of the squared deviation from the training mean: of
    what is predicted for images left out, and of the targets. `shape` is that of one image's latent.
    """
    if rescale == "none":
        return np.ones(len(true), dtype=np.float32)
    if rescale == "train":
        groups = shape[0] if len(shape) > 1 else 1
        size = len(true) // groups
        predicted, true = (np.repeat(square.reshape(groups, size).sum(axis=1), size) for square in (predicted, true))
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.minimum(np.sqrt(true / predicted), MAX_GAIN)
    return np.where(true > 0, gain, 1.0).astype(np.float32)


def rescaled(centred: NDArray[Any], mean: NDArray[Any], gain: NDArray[np.float32], rescale: Rescaling) -> NDArray[Any]:
    """Give predicted deviations of shape (m, t) (overwritten) their natural size, and add the training mean."""
    factor = gain.astype(centred.dtype)
    if rescale == "test":
        if len(centred) < 2:
            raise InputError(
                f"rescale = test uses the spread of the scans that are decoded, and there is {len(centred)}. Choose "
                "rescale = train."
            )
        centred -= centred.mean(axis=0)
        spread = centred.std(axis=0)
        factor = np.divide(factor, spread, out=np.zeros_like(factor), where=spread > 0)
    centred *= factor
    centred += mean
    return centred

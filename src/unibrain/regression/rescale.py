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

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["MAX_GAIN", "RESCALINGS", "TEST_WARNING", "Rescaling", "gains", "rescaled"]

Rescaling = Literal["train", "train_per_dimension", "none", "test"]

RESCALINGS: tuple[Rescaling, ...] = ("train", "train_per_dimension", "none", "test")
"""Names of the choices, the default first; see `gains`."""

MAX_GAIN = 5.0
"""Largest gain: what explains less than 1/25 of the variance stays shrunk, because it would be mostly noise."""


def gains(
    predicted: NDArray[np.float64], true: NDArray[np.float64], shape: tuple[int, ...], rescale: Rescaling
) -> NDArray[np.float32]:
    """Gain for every dimension of a latent.

    Parameters
    ----------
    predicted, true : ndarray of shape (t,), float64
        Mean over images of the squared deviation from the training mean: of what is predicted for images left out
        (`unibrain.regression.left_out.leave_out_operator`), and of the targets.
    shape : tuple of int
        Shape of one image's latent; its product is t.
    rescale : {"train", "train_per_dimension", "none"}
        ``"train"``: one gain per token of a context, per channel of the image latent, or for the whole text latent, so
        that the summed variance equals the training targets'. The direction of the prediction (the best guess in
        squared error) is kept; only its length is corrected.
        ``"train_per_dimension"``: one gain per dimension, so that each dimension has the training targets' variance.
        It makes dimensions that the scan hardly tells as large as those that it tells well.
        ``"none"``: all ones.

    Returns
    -------
    ndarray of shape (t,), float32
        Between 0 and `MAX_GAIN`. One where the targets are constant.
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


TEST_WARNING = (
    "Predictions were rescaled with statistics of the test set (rescale = test): each depends on the other scans that "
    "were decoded with it, so these numbers are no evidence of how well a single new scan is decoded."
)
"""What the report of such a run says."""


def rescaled(centred: NDArray[Any], mean: NDArray[Any], gain: NDArray[np.float32], rescale: Rescaling) -> NDArray[Any]:
    """Give centred predictions of some targets their natural size, and add the mean.

    Parameters
    ----------
    centred : ndarray of shape (m, t)
        Predicted deviations from the training mean; overwritten.
    mean : ndarray of shape (t,)
        Training mean.
    gain : ndarray of shape (t,), float32
        Gain of each target; for ``"test"`` the deviation of the training targets.
    rescale : Rescaling

    Returns
    -------
    ndarray of shape (m, t)

    Raises
    ------
    InputError
        If there is one scan only, and test-set statistics are asked for.
    """
    factor = gain.astype(centred.dtype)
    if rescale == "test":
        if len(centred) < 2:
            raise InputError(
                f"{len(centred)} scans are to be decoded with rescale = test, expected at least two, whose spread it "
                "uses: choose rescale = train"
            )
        centred -= centred.mean(axis=0)
        spread = centred.std(axis=0)
        factor = np.divide(factor, spread, out=np.zeros_like(factor), where=spread > 0)
    centred *= factor
    centred += mean
    return centred

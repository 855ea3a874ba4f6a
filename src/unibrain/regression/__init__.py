"""Ridge regression from voxels to latents: the dual form, choice of alpha, rescaling, accuracy."""

from unibrain.regression.accuracy import latent_accuracy, region_accuracy
from unibrain.regression.alpha_choice import AlphaChoice
from unibrain.regression.decoder import DEFAULT_ALPHAS, BrainDecoder
from unibrain.regression.export import export_weights
from unibrain.regression.rescale import RESCALINGS

__all__ = [
    "DEFAULT_ALPHAS",
    "RESCALINGS",
    "AlphaChoice",
    "BrainDecoder",
    "export_weights",
    "latent_accuracy",
    "region_accuracy",
]

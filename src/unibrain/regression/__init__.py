"""Ridge regression from voxels to latents: the dual form, choice of alpha, rescaling, accuracy."""

from unibrain.regression.accuracy import latent_accuracy, region_accuracy
from unibrain.regression.crossvalidation import AlphaCurve
from unibrain.regression.decoder import DEFAULT_ALPHAS, BrainDecoder
from unibrain.regression.rescale import RESCALINGS

__all__ = ["DEFAULT_ALPHAS", "RESCALINGS", "AlphaCurve", "BrainDecoder", "latent_accuracy", "region_accuracy"]

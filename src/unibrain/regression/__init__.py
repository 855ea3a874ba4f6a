"""Ridge regression from voxels to latents: the dual form, choice of penalties, rescaling, accuracy."""

from unibrain.regression.accuracy import latent_accuracy, region_accuracy
from unibrain.regression.bands import BandChoice
from unibrain.regression.decoder import DEFAULT_ALPHAS, BrainDecoder
from unibrain.regression.decoder_file import load_choices
from unibrain.regression.export import export_weights
from unibrain.regression.penalties import AlphaChoice
from unibrain.regression.rescale import RESCALINGS, TEST_WARNING

__all__ = [
    "DEFAULT_ALPHAS",
    "RESCALINGS",
    "TEST_WARNING",
    "AlphaChoice",
    "BandChoice",
    "BrainDecoder",
    "export_weights",
    "latent_accuracy",
    "load_choices",
    "region_accuracy",
]

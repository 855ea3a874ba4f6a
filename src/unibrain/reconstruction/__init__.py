"""From predicted latents to pictures and captions."""

from unibrain.reconstruction.decoded import Decoded, load_decoded, picture_name, save_decoded
from unibrain.reconstruction.reconstruct import StepCallback, reconstruct

__all__ = ["Decoded", "StepCallback", "load_decoded", "picture_name", "reconstruct", "save_decoded"]

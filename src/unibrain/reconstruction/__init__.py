"""From predicted latents to pictures and captions."""

from unibrain.reconstruction.decoded import Decoded
from unibrain.reconstruction.reconstruct import reconstruct
from unibrain.reconstruction.store import load_decoded, picture_name, save_decoded

__all__ = ["Decoded", "load_decoded", "picture_name", "reconstruct", "save_decoded"]

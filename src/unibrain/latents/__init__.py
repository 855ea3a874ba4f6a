"""Names and shapes of the four latents; extracting them once and keeping them on disk."""

from unibrain.latents.extract import extract
from unibrain.latents.latents import LATENT_NAMES, LATENT_TITLES, Latents
from unibrain.latents.store import load_latents, read_manifest, save_latents

__all__ = ["LATENT_NAMES", "LATENT_TITLES", "Latents", "extract", "load_latents", "read_manifest", "save_latents"]

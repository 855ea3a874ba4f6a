"""Names and shapes of the four latents; extracting them once and keeping them on disk."""

from unibrain.latents.extract import extract, extract_to
from unibrain.latents.latents import LATENT_NAMES, LATENT_TITLES, Latents
from unibrain.latents.store import load_latents, read_manifest, save_latents
from unibrain.latents.stored import StoredLatents, open_latents
from unibrain.latents.writer import LatentWriter

__all__ = [
    "LATENT_NAMES",
    "LATENT_TITLES",
    "LatentWriter",
    "Latents",
    "StoredLatents",
    "extract",
    "extract_to",
    "load_latents",
    "open_latents",
    "read_manifest",
    "save_latents",
]

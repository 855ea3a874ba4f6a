"""The table of latents; extracting them once and keeping them on disk."""

from unibrain.latents.columns import LatentColumns
from unibrain.latents.extract import extract, extract_to, images_together, keep_batch
from unibrain.latents.object_store import write_latents
from unibrain.latents.store import StoredLatents, load_latents, open_latents, read_manifest, reopen_latents
from unibrain.latents.table import LATENTS, LatentRow, Latents, rows_of
from unibrain.latents.writer import LatentWriter, Storage, save_latents

__all__ = [
    "LATENTS",
    "LatentColumns",
    "LatentRow",
    "LatentWriter",
    "Latents",
    "Storage",
    "StoredLatents",
    "extract",
    "extract_to",
    "images_together",
    "keep_batch",
    "load_latents",
    "open_latents",
    "read_manifest",
    "reopen_latents",
    "rows_of",
    "save_latents",
    "write_latents",
]

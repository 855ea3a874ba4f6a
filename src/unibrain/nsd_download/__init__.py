"""Downloading the Natural Scenes Dataset from its public bucket, and COCO's captions."""

from unibrain.nsd_download.captions import fetch_captions
from unibrain.nsd_download.fetch import NSD_TERMS, Choice, fetch_nsd

__all__ = ["NSD_TERMS", "Choice", "fetch_captions", "fetch_nsd"]

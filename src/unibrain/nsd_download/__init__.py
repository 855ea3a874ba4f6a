"""Downloading the Natural Scenes Dataset from its public bucket, and COCO's captions."""

from unibrain.nsd_download.captions import fetch_captions
from unibrain.nsd_download.fetch import NSD_TERMS, fetch_nsd
from unibrain.nsd_download.plan import Choice, Plan

__all__ = ["NSD_TERMS", "Choice", "Plan", "fetch_captions", "fetch_nsd"]

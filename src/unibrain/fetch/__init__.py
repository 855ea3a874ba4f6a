"""Fetching public data over HTTP: the Natural Scenes Dataset from its bucket, and COCO's captions."""

from unibrain.fetch.captions import CaptionsFetched, fetch_captions
from unibrain.fetch.fetch import NsdFetched, fetch_nsd
from unibrain.fetch.plan import Choice, Plan
from unibrain.fetch.terms import NSD_TERMS

__all__ = ["NSD_TERMS", "CaptionsFetched", "Choice", "NsdFetched", "Plan", "fetch_captions", "fetch_nsd"]

"""The Natural Scenes Dataset (Allen et al. 2022) on disk: where its files are, what they hold, how they agree."""

from unibrain.scans.nsd.layout import NsdLayout

__all__ = ["NsdLayout"]

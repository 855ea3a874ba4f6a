"""The frozen Versatile Diffusion: encoders, the four flows, the sampler, decoders. Knows nothing of brains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.protocol import Backbone, SamplingError

if TYPE_CHECKING:
    from unibrain.backbone.loading import BACKBONES, load_backbone
    from unibrain.backbone.versatile_diffusion import VersatileDiffusion

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneConfig",
    "SamplingError",
    "SamplingSettings",
    "VersatileDiffusion",
    "load_backbone",
]

# The networks bring in PyTorch, so they wait until they are asked for.
_HEAVY = {"BACKBONES": "loading", "load_backbone": "loading", "VersatileDiffusion": "versatile_diffusion"}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)

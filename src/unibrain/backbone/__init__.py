"""The frozen Versatile Diffusion: encoders, the four flows, the sampler, decoders. Knows nothing of brains."""

from typing import TYPE_CHECKING, Any

from unibrain.backbone.config import BackboneConfig, SamplingSettings

if TYPE_CHECKING:
    from unibrain.backbone.versatile_diffusion import VersatileDiffusion, load_backbone

__all__ = ["BackboneConfig", "SamplingSettings", "VersatileDiffusion", "load_backbone"]


def __getattr__(name: str) -> Any:
    # Configuration is light; the networks bring in PyTorch, so they wait until they are asked for.
    if name in ("VersatileDiffusion", "load_backbone"):
        from unibrain.backbone import versatile_diffusion

        return getattr(versatile_diffusion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

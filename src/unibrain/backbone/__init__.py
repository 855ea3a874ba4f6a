"""The frozen Versatile Diffusion: encoders, the four flows, the sampler, decoders. Knows nothing of brains."""

from typing import TYPE_CHECKING, Any

from unibrain.backbone.config import BackboneConfig, SamplingSettings

if TYPE_CHECKING:
    from unibrain.backbone.loading import load_backbone
    from unibrain.backbone.versatile_diffusion import VersatileDiffusion

__all__ = ["BackboneConfig", "SamplingSettings", "VersatileDiffusion", "load_backbone"]


def __getattr__(name: str) -> Any:
    # Configuration is light; the networks bring in PyTorch, so they wait until they are asked for.
    if name == "VersatileDiffusion":
        from unibrain.backbone.versatile_diffusion import VersatileDiffusion

        return VersatileDiffusion
    if name == "load_backbone":
        from unibrain.backbone.loading import load_backbone

        return load_backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

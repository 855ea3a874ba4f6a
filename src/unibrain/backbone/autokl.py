"""The image autoencoder: `diffusers.AutoencoderKL`, with sizes and keys of the published model."""

from typing import Any

from torch import Tensor

from unibrain.backbone.config import AutoKLConfig


def make_autokl(config: AutoKLConfig) -> Any:
    """Build the autoencoder, a `diffusers.AutoencoderKL`."""
    from diffusers import AutoencoderKL

    levels = len(config.widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=config.res_blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        sample_size=config.image_size,
        scaling_factor=config.scale_factor,
    )


def encode_pictures(autokl: Any, pictures: Tensor, scale_factor: float) -> Tensor:
    """Encode pictures (B, 3, H, W), 0 to 1, to scaled latents (B, channels, h, w): the posterior's mean."""
    return autokl.encode(pictures * 2 - 1).latent_dist.mean * scale_factor  # type: ignore[no-any-return]


def decode_latents(autokl: Any, latents: Tensor, scale_factor: float) -> Tensor:
    """Decode scaled latents (B, channels, h, w) to pictures (B, 3, H, W), clamped to 0 to 1."""
    return ((autokl.decode(latents / scale_factor).sample + 1) / 2).clamp(0, 1)  # type: ignore[no-any-return]

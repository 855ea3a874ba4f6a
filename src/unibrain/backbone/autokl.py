"""The image autoencoder: `diffusers.AutoencoderKL`, with sizes and keys of the published model."""

import re
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


def from_published_keys(weights: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Rename the keys of the latent-diffusion code (``encoder.down.0.block.0.norm1.weight``) to those of diffusers.

    The decoder counts its `levels` from the other end; the 1x1 convolutions of the attention become linear maps.
    """
    renamed = {}
    for key, value in weights.items():
        new = re.sub(r"\bdown\.(\d+)\.block\.(\d+)", r"down_blocks.\1.resnets.\2", key)
        new = re.sub(r"\bdown\.(\d+)\.downsample", r"down_blocks.\1.downsamplers.0", new)
        new = re.sub(r"\bup\.(\d+)\.block\.(\d+)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.resnets.{m[2]}", new)
        new = re.sub(r"\bup\.(\d+)\.upsample", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.upsamplers.0", new)
        new = re.sub(r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}", new)
        new = new.replace("mid.attn_1.norm", "mid_block.attentions.0.group_norm")
        new = new.replace("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0")
        new = re.sub(r"mid\.attn_1\.([qkv])\b", r"mid_block.attentions.0.to_\1", new)
        new = new.replace("norm_out", "conv_norm_out").replace("nin_shortcut", "conv_shortcut")
        renamed[new] = value.flatten(1) if "attentions" in new and value.ndim == 4 else value
    return renamed

"""CLIP contexts: all tokens, projected, and scaled by the norm of the one that stands for the whole."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.config import ClipConfig


def make_clip(config: ClipConfig) -> Any:
    """Build CLIP, a `transformers.CLIPModel`; one copy serves images and text."""
    from transformers import CLIPConfig, CLIPModel

    eos = {"eos_token_id": config.eos_token_id, "pad_token_id": config.eos_token_id}
    return CLIPModel(
        CLIPConfig(
            text_config={**eos, **config.text, "projection_dim": config.projection_width},
            vision_config={**config.vision, "projection_dim": config.projection_width},
            projection_dim=config.projection_width,
        )
    )


def text_context(clip: Any, ids: Tensor, eos_token_id: int) -> Tensor:
    """Encode token ids (B, tokens), padded with the end token, to a text context (B, tokens, width).

    No mask is used. The row of the first end token has norm 1.
    """
    hidden = clip.text_projection(clip.text_model(input_ids=ids).last_hidden_state)
    first_end = (ids == eos_token_id).int().argmax(dim=1)
    pooled = hidden[torch.arange(len(ids), device=ids.device), first_end]
    return hidden / pooled.norm(dim=-1)[:, None, None]  # type: ignore[no-any-return]


def image_context(clip: Any, pixels: Tensor) -> Tensor:
    """Encode normalised pixels (B, 3, size, size) to an image context (B, 1 + patches, width).

    The first row, which stands for the whole picture, has norm 1.
    """
    # The library applies the last layer norm to the first token only; Versatile Diffusion to all.
    hidden = clip.vision_model.post_layernorm(clip.vision_model(pixel_values=pixels).last_hidden_state)
    projected = clip.visual_projection(hidden)
    return projected / projected[:, :1].norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def make_image_processor(config: ClipConfig) -> Any:
    """CLIP's preprocessing by transformers, with every choice spelled out.

    The class is named explicitly, and it works on 8-bit pictures with Pillow: what the library takes by default has
    changed between versions (backend, and whether floats are rescaled), and that changes pictures silently.
    """
    import transformers

    name = "CLIPImageProcessorPil" if hasattr(transformers, "CLIPImageProcessorPil") else "CLIPImageProcessor"
    size = config.vision["image_size"]
    return getattr(transformers, name)(
        do_resize=True,
        size={"shortest_edge": size},
        resample=3,  # bicubic
        do_center_crop=True,
        crop_size={"height": size, "width": size},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
        do_convert_rgb=True,
    )


def preprocess(processor: Any, pictures: NDArray[np.uint8], resize: int) -> Tensor:
    """Normalise 8-bit pictures (B, height, width, 3) for CLIP: (B, 3, size, size), float32.

    They are brought to `resize` pixels first, as the public code does.
    """
    from PIL import Image

    images = [Image.fromarray(picture) for picture in pictures]
    images = [image if image.size == (resize, resize) else image.resize((resize, resize), 3) for image in images]
    return processor(images=images, return_tensors="pt")["pixel_values"].float()  # type: ignore[no-any-return]

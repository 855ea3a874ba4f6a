"""CLIP's image and text towers (Radford et al. 2021) by `transformers`, and captions and pictures as its vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unibrain.backbone.coders import make_image_processor
from unibrain.backbone.config import ClipConfig
from unibrain.backbone.tokenizers import ClipTokens
from unibrain.evaluation.networks.features import fill, load_network
from unibrain.evaluation.networks.weights import NETWORKS, checked_files, metrics_home

_AT_ONCE = 32

CLIP_SIZES: dict[str, ClipConfig] = {
    "clip-vit-l-14": ClipConfig(),
    "clip-vit-b-32": ClipConfig(
        text={"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
        vision={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
        },
        projection_width=512,
    ),
}
"""Name of a network to its sizes."""


def image_tower(name: str) -> nn.Module:
    """Build the image tower; ``visual_projection`` gives the projected class token, not normalised."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIP_SIZES[name]
    tower: nn.Module = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**config.vision, projection_dim=config.projection_width)
    )
    return tower


def text_tower(name: str) -> nn.Module:
    """Build the text tower; ``text_projection`` gives the projected vector of the end token, not normalised."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIP_SIZES[name]
    # The published configuration says 2 for the end token, which is historical.
    ends = {"eos_token_id": config.eos_token_id, "pad_token_id": config.eos_token_id}
    tower: nn.Module = CLIPTextModelWithProjection(
        CLIPTextConfig(**{**ends, **config.text, "projection_dim": config.projection_width})
    )
    return tower


@dataclass(frozen=True)
class ClipEmbedder:
    """Embeds captions and pictures with a published CLIP, a key of `CLIP_SIZES`, whose files are in `metrics_home`.

    Each tower is loaded when it is first used: `UnavailableError` or `InputError` if a file is missing, or not the
    published one.
    """

    name: str
    folder: Path | None = None

    def embed_text(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Embed n captions: shape (n, width), not normalised. What is beyond 77 tokens is cut off."""
        tokens, tower = self._text
        return self._rows(captions, lambda part: tower(input_ids=tokens(part)).text_embeds)

    def embed_images(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed pictures of shape (n, height, width, 3): shape (n, width), not normalised.

        They are prepared as CLIP's own code does: the shorter side to 224 pixels, bicubic, and the centre of that.
        """
        tower, prepare = self._image
        return self._rows(
            pictures,
            lambda part: (
                tower(
                    prepare(images=list(part), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
                ).image_embeds
            ),
        )

    @cached_property
    def _image(self) -> tuple[Any, Any]:
        return load_network(self.name, self.folder).module, make_image_processor(CLIP_SIZES[self.name])

    @cached_property
    def _text(self) -> tuple[ClipTokens, Any]:
        weights, vocabulary, merges = checked_files(NETWORKS[self.name], self.folder or metrics_home())
        tokens = ClipTokens(vocabulary, merges)
        tower = fill(lambda: text_tower(self.name), weights, kept=("text_model.", "text_projection."))
        tokens.require_end(CLIP_SIZES[self.name].eos_token_id)
        return tokens, tower

    def _rows(self, items: Sequence[Any] | NDArray[Any], embed: Callable[[Any], torch.Tensor]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = np.empty((len(items), CLIP_SIZES[self.name].projection_width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(items), _AT_ONCE):
                rows[start : start + _AT_ONCE] = embed(items[start : start + _AT_ONCE]).numpy()
        return rows


LAYERS = {
    "image_embeds": "visual_projection",
    **{f"hidden_states.{number}": f"vision_model.encoder.layers.{number - 1}" for number in range(1, 24)},
}
"""Layers as `transformers` calls its outputs, to the module whose output they are; the last state is not among them."""

"""Training the small CLIP: contrast pictures with captions, and keep the picture readable in the tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.clip import image_context, make_clip, make_image_processor, text_context
from unibrain.backbone.config import ClipConfig
from unibrain.training.loop import Recipe, train

__all__ = ["PictureReader", "train_clip"]

PATCH = 8
READING_WEIGHT = 4.0
NAMING_WEIGHT = 0.5


class PictureReader(nn.Module):
    """Reads a picture back from its context tokens with one cross-attention; only used in training.

    A contrastive loss alone lets the tokens forget where things are and what they look like. This pulls them to hold it
    in the form in which the flows read them.

    Parameters
    ----------
    context_width : int
    picture_size : int
        Pixels; a multiple of 8.
    heads : int
    """

    def __init__(self, context_width: int, picture_size: int, heads: int = 4) -> None:
        super().__init__()
        width = 192
        self.rows = picture_size // PATCH
        self.queries = nn.Parameter(torch.randn(self.rows**2, width) * 0.5)
        self.attention = nn.MultiheadAttention(width, heads, kdim=context_width, vdim=context_width, batch_first=True)
        self.output = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 3 * PATCH**2)
        )

    def forward(self, context: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to pictures (B, 3, size, size), values about -1 to 1."""
        queries = self.queries.expand(len(context), -1, -1)
        read = self.output(queries + self.attention(queries, context, context, need_weights=False)[0])
        return functional.pixel_shuffle(read.transpose(1, 2).unflatten(2, (self.rows, self.rows)), PATCH)


def train_clip(
    config: ClipConfig,
    pictures: NDArray[np.uint8],
    tokens: Tensor,
    recipe: Recipe,
    folder: Path,
) -> Any:
    """Train on pictures and captions.

    Parameters
    ----------
    config : ClipConfig
    pictures : ndarray of shape (n, size, size, 3), uint8
        Of CLIP's own picture size, so that preprocessing is only the normalisation.
    tokens : Tensor of shape (n, captions, tokens), int64
    recipe : Recipe
    folder : Path
        For checkpoints.

    Returns
    -------
    transformers.CLIPModel
    """
    torch.manual_seed(recipe.seed)
    clip = make_clip(config)
    reader = PictureReader(config.projection_width, pictures.shape[1])
    both = nn.ModuleDict({"clip": clip, "reader": reader})
    processor = make_image_processor(config)
    mean = torch.tensor(processor.image_mean)[None, :, None, None]
    deviation = torch.tensor(processor.image_std)[None, :, None, None]

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(pictures), (recipe.batch_size,), generator=generator).sort().values
        batch = torch.from_numpy(np.array(pictures[rows.numpy()])).permute(0, 3, 1, 2).float() / 255
        which = torch.randint(tokens.shape[1], (recipe.batch_size,), generator=generator)
        ids = tokens[rows, which]
        image = image_context(clip, (batch - mean) / deviation)
        text = text_context(clip, ids, config.eos_token_id)
        ends = (ids == config.eos_token_id).int().argmax(1)
        sentence = text[torch.arange(len(ids)), ends]
        similarity = clip.logit_scale.exp().clamp(max=50) * image[:, 0] @ sentence.T
        target = torch.arange(len(ids))
        contrast = (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)) / 2
        reading = functional.mse_loss(reader(image), batch * 2 - 1)
        # Tokens far longer than the first would dwarf it when they are predicted.
        length = (image.norm(dim=-1) - 1).square().mean() + (text.norm(dim=-1) - 1).square().mean()
        total = contrast * NAMING_WEIGHT + READING_WEIGHT * reading + 0.05 * length
        accuracy = (similarity.argmax(1) == target).float().mean()
        return {"loss": total, "contrast": contrast, "reading": reading, "length": length, "accuracy": accuracy}

    train(both, loss, recipe, folder, "clip")
    return clip

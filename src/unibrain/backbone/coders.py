"""The encoders and decoders beside the flows: AutoKL for pictures, CLIP for contexts, Optimus for sentences."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unibrain.backbone.config import AutoKLConfig, ClipConfig, OptimusConfig
from unibrain.backbone.protocol import require_finite

# AutoKL, with sizes and keys of the published model.


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


# CLIP contexts: all tokens, projected, and scaled by the norm of the one that stands for the whole.


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


# Optimus.


class Optimus(nn.Module):
    """The text autoencoder: BERT reads a sentence into one vector, GPT-2 writes a sentence from it.

    Li et al., arXiv 2004.04092. The latent enters GPT-2 twice: added to every token's embedding, and as one past
    position per layer whose key and value are the same vector, which is GPT-2's own cache with something in it. The
    last three tokens of GPT-2's vocabulary are padding, begin and end of sentence, in that order.
    """

    def __init__(self, config: OptimusConfig) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

        self.config = config
        bert = BertConfig(**config.bert)
        gpt2 = GPT2Config(**config.gpt2)
        self.bert = BertModel(bert)
        self.to_posterior = nn.Linear(bert.hidden_size, 2 * config.latent_width, bias=False)
        self.gpt2 = GPT2LMHeadModel(gpt2)
        self.to_memory = nn.Linear(config.latent_width, gpt2.n_layer * gpt2.n_embd, bias=False)
        self.to_embedding = nn.Linear(config.latent_width, gpt2.n_embd, bias=False)
        self.pad, self.bos, self.eos = range(gpt2.vocab_size - 3, gpt2.vocab_size)

    def encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read sentences to the mean and log variance of their posterior, (B, latent_width) each.

        `ids` (B, pieces) are BERT's word pieces with its marks, padded with 0; `mask` is 0 for padding, else 1.
        """
        pooled = self.bert(input_ids=ids, attention_mask=mask).pooler_output
        mean, log_variance = self.to_posterior(pooled).chunk(2, dim=-1)
        return mean, log_variance

    def remember(self, z: Tensor) -> Any:
        """Put the latents (B, latent_width) into a fresh cache as one past position per layer."""
        from transformers import DynamicCache

        heads = self.gpt2.config.n_head
        cache = DynamicCache()
        for layer, vector in enumerate(self.to_memory(z).chunk(self.gpt2.config.n_layer, dim=-1)):
            # (B, heads, 1 position, head width), and the very same vector as key and as value
            past = vector.unflatten(-1, (heads, -1))[:, :, None]
            cache.update(past, past, layer)
        return cache

    def logits(self, z: Tensor, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Predict the next token after each of `ids` (B, T): logits (B, T, vocabulary), and the cache including `ids`.

        `cache` holds what came before; without it, that is nothing but the latent z (B, latent_width).
        """
        cache = self.remember(z) if cache is None else cache
        # The memory fills position 0, so the begin token stands at 1: positions count on from the cache's length.
        past = cache.get_seq_length()
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        embeddings = self.gpt2.transformer.wte(ids) + self.to_embedding(z)[:, None]
        output = self.gpt2(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)
        return output.logits, output.past_key_values

    @torch.no_grad()
    def write(self, z: Tensor) -> list[list[int]]:
        """Write the most probable sentence of each latent (B, latent_width): tokens from the begin to the end token.

        At ``config.max_length`` the last one is overwritten with the end token. What ``config.unrepeated`` names is
        not written a second time: the latent alone hardly tells whether a word has been said.
        """
        sentences = [[self.bos] for _ in range(len(z))]
        ids = torch.full((len(z), 1), self.bos, dtype=torch.int64, device=z.device)
        cache, once = None, torch.tensor(self.config.unrepeated, dtype=torch.int64, device=z.device)
        said = torch.zeros((len(z), len(once)), dtype=torch.bool, device=z.device)
        for _ in range(self.config.max_length - 1):
            logits, cache = self.logits(z, ids, cache)
            last = logits[:, -1].float()
            said |= ids == once
            last[:, once] = last[:, once].masked_fill(said, -torch.inf)
            ids = last.argmax(-1, keepdim=True)
            # NaN counts as the largest.
            require_finite(last.gather(-1, ids).cpu().numpy())
            for sentence, token in zip(sentences, ids[:, 0].tolist(), strict=True):
                if sentence[-1] != self.eos:
                    sentence.append(token)
            if all(sentence[-1] == self.eos for sentence in sentences):
                break
        for sentence in sentences:
            if sentence[-1] != self.eos:
                sentence[-1] = self.eos
        return sentences

"""From the keys of the published layouts to ours, part by part. Tensors are carried along, never copied."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unibrain.backbone import autokl, optimus
from unibrain.backbone.config import FlowsConfig
from unibrain.weights.positions import block_positions

__all__ = [
    "SCHEDULE_KEYS",
    "Entries",
    "Entry",
    "autokl_from_diffusers",
    "autokl_from_published",
    "clip_halves",
    "entries",
    "flows_from_deprecated",
    "flows_from_diffusers",
    "is_known_buffer",
    "optimus_from_published",
]


@dataclass(frozen=True)
class Entry:
    """A tensor and where it came from.

    Attributes
    ----------
    tensor : Tensor
        Usually mapped from the file, not in memory.
    file : Path
    key : str
        As written in the file.
    """

    tensor: Tensor
    file: Path
    key: str


Entries = dict[str, Entry]

SCHEDULE_KEYS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
)
"""The noise schedule, repeated in the flows' file; it follows from the configuration."""

_BUFFERS = re.compile(r"(^|\.)position_ids$|\.attn\.(bias|masked_bias)$|^loss\.")
_NAMED_BLOCK = re.compile(
    r"(conv_in|conv_norm_out|conv_out|time_embedding\.linear_[12]"
    r"|(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(?:resnets|attentions|downsamplers|upsamplers)\.\d+)\.(.+)"
)
_NUMBERED_BLOCK = re.compile(r"(input_blocks\.\d+\.\d+|middle_block\.\d+|output_blocks\.\d+\.\d+|out)\.(.+)")
_INSIDE_RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\b")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def is_known_buffer(key: str) -> bool:
    """Whether a key is stored by some versions of a network but is no weight: masks, position ids, training losses."""
    return _BUFFERS.search(key) is not None


def entries(weights: Mapping[str, Tensor], file: Path, prefix: str = "") -> Entries:
    """Take the tensors below a prefix, and drop the prefix."""
    return {
        key.removeprefix(prefix): Entry(value, file, key) for key, value in weights.items() if key.startswith(prefix)
    }


def flows_from_deprecated(found: Entries, config: FlowsConfig) -> Entries:
    """Rename what lies below ``model.diffusion_model.``."""
    ours = {position.deprecated: position.ours for position in block_positions(config)}
    renamed = {}
    for key, entry in found.items():
        if key.startswith("time_embed."):
            renamed[f"image.{key}"] = entry
            continue
        kind, _, rest = key.removeprefix("unet_").partition(".")
        block = _NUMBERED_BLOCK.fullmatch(rest)
        known = block is not None and block[1] in ours and kind in ("image", "text")
        renamed[f"{kind}.{ours[block[1]]}.{block[2]}" if known and block else key] = entry
    return renamed


def flows_from_diffusers(image_unet: Entries, text_unet: Entries, config: FlowsConfig) -> Entries:
    """Rename the two UNets of the diffusers format; the text UNet's copy of the time embedding is left out."""
    renamed = _flow_from_diffusers("image", image_unet, config)
    text = _flow_from_diffusers("text", text_unet, config)
    renamed.update({key: entry for key, entry in text.items() if not key.startswith("text.time_embed.")})
    return renamed


def _flow_from_diffusers(kind: str, found: Entries, config: FlowsConfig) -> Entries:
    positions = block_positions(config)
    ours = {position.diffusers: position.ours for position in positions if position.diffusers}
    head = positions[-1].ours
    ours.update({"conv_norm_out": f"{head}.0", "conv_out": f"{head}.2"})
    ours.update({f"time_embedding.linear_{1 + layer // 2}": f"time_embed.{layer}" for layer in (0, 2)})
    renamed = {}
    for key, entry in found.items():
        block = _NAMED_BLOCK.fullmatch(key)
        if block is None or block[1] not in ours:
            renamed[f"{kind}_unet.{key}"] = entry
            continue
        rest = block[2]
        if ".resnets." in block[1]:
            name, _, end = rest.rpartition(".")
            rest = f"{_INSIDE_RESNETS.get(name, name)}.{end}"
        elif ".downsamplers." in block[1] and kind == "image":
            rest = rest.replace("conv.", "op.")
        renamed[f"{kind}.{ours[block[1]]}.{rest}"] = entry
    return renamed


def autokl_from_published(found: Entries, levels: int) -> Entries:
    """Rename the image autoencoder of the latent-diffusion code."""
    return {
        name: replace(entry, tensor=tensor)
        for key, entry in found.items()
        for name, tensor in autokl.from_published_keys({key: entry.tensor}, levels).items()
    }


def autokl_from_diffusers(found: Entries) -> Entries:
    """Bring the names of the attention's maps up to date: versions before 0.13 called them otherwise."""
    renamed = {}
    for key, entry in found.items():
        new = _OLD_ATTENTION.sub(lambda match: match[1] + _NEW_ATTENTION[match[2]], key)
        linear = ".attentions." in new and entry.tensor.ndim == 4
        renamed[new] = replace(entry, tensor=entry.tensor.flatten(1)) if linear else entry
    return renamed


def optimus_from_published(found: Entries) -> Entries:
    """Rename Optimus."""
    renamed: Entries = {}
    for key, entry in found.items():
        known = key.startswith(("encoder.", "decoder."))
        for name in optimus.from_published_keys({key: entry.tensor}) if known else (key,):
            renamed[name] = entry
    return renamed


def clip_halves(text: Entries, vision: Entries) -> Entries:
    """Join the text half of one copy of CLIP and the vision half of another (or the same)."""
    halves = {key: entry for key, entry in text.items() if not key.startswith(("vision_model.", "visual_projection."))}
    halves.update(
        {key: entry for key, entry in vision.items() if key.startswith(("vision_model.", "visual_projection."))}
    )
    return halves

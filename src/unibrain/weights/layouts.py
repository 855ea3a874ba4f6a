"""Under which names the published files keep our keys, part by part."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from unibrain.backbone.config import BackboneConfig, FlowsConfig

Name = Callable[[str], str]
"""From one of our keys to the key under which a file has it."""


class Place(NamedTuple):
    """Where a kind of file keeps a part: what that is called, and the name of each key."""

    about: str
    name: Name


class Block(NamedTuple):
    """One block of a diffuser under its three names; the head is two modules in diffusers, so empty there."""

    ours: str
    deprecated: str
    diffusers: str


IGNORED = re.compile(
    r"(^|\.)position_ids$|\.attn\.(masked_)?bias$|(^|\.)lm_head\.weight$|^loss\."
    r"|^(sqrt_|log_)?(one_minus_|recipm?1?_)?(alphas_cumprod|betas)(_prev)?$|^posterior_"
    r"|^ctx\.image\.model\.(text_|logit_scale)|^ctx\.text\.model\.vis|^text_unet\.time_embedding\."
    r"|^image_encoder\.text|^text_encoder\.vis"
)
"""Keys that are known to follow from others: masks, ids, GPT-2's tied head, the noise schedule, second copies."""

_BLOCK = re.compile(r"(image|text)\.((?:data|context)_blocks\.\d+\.0)\.(.+)")
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OPTIMUS = {
    "to_posterior.weight": "encoder.linear.weight",
    "to_memory.weight": "decoder.transformer.linear.weight",
    "to_embedding.weight": "decoder.transformer.linear_emb.weight",
}
_AUTOKL = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)
_OLD_ATTENTION = re.compile(r"^(vae\..+\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_name(key: str) -> str:
    """The name that diffusers since 0.13 gives to a key of its autoencoder's attention."""
    return _OLD_ATTENTION.sub(lambda found: f"{found[1]}{_NEW_ATTENTION[found[2]]}.", key)


def blocks(config: FlowsConfig) -> tuple[Block, ...]:
    """List the blocks in the order in which a flow runs them.

    The current layout numbers data and context blocks on their own; the deprecated one numbers what stands between two
    skip connections; diffusers counts by level, and on the way up from the lowest level.

    Examples
    --------
    >>> blocks(FlowsConfig())[2]
    Block(ours='context_blocks.0.0', deprecated='input_blocks.1.1', diffusers='down_blocks.0.attentions.0')
    """
    found: list[Block] = []
    counts = {"data_blocks": 0, "context_blocks": 0}

    def add(kind: str, deprecated: str, diffusers: str) -> None:
        found.append(Block(f"{kind}.{counts[kind]}.0", deprecated, diffusers))
        counts[kind] += 1

    last = len(config.channel_mult) - 1
    add("data_blocks", "input_blocks.0.0", "conv_in")
    number = 1
    for level, count in enumerate(config.res_blocks):
        for block in range(count):
            add("data_blocks", f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{block}")
            if config.attention[level]:
                add("context_blocks", f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{block}")
            number += 1
        if level != last:
            add("data_blocks", f"input_blocks.{number}.0", f"down_blocks.{level}.downsamplers.0")
            number += 1
    add("data_blocks", "middle_block.0", "mid_block.resnets.0")
    add("context_blocks", "middle_block.1", "mid_block.attentions.0")
    add("data_blocks", "middle_block.2", "mid_block.resnets.1")
    number = 0
    for climbed, level in enumerate(reversed(range(last + 1))):
        for block in range(config.res_blocks[level] + 1):
            add("data_blocks", f"output_blocks.{number}.0", f"up_blocks.{climbed}.resnets.{block}")
            if config.attention[level]:
                add("context_blocks", f"output_blocks.{number}.1", f"up_blocks.{climbed}.attentions.{block}")
            if block == config.res_blocks[level] and level:
                slot = 1 + config.attention[level]
                add("data_blocks", f"output_blocks.{number}.{slot}", f"up_blocks.{climbed}.upsamplers.0")
            number += 1
    add("data_blocks", "out", "")
    return tuple(found)


def autokl_name(key: str, levels: int) -> str:
    """Name in the latent-diffusion code, whose decoder counts its `levels` from the other end."""
    for ours, published in _AUTOKL:
        key = re.sub(ours, published, key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
    return re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)


def optimus_name(key: str) -> str:
    """Name in the public code of Optimus."""
    if key in _OPTIMUS:
        return _OPTIMUS[key]
    network, _, rest = key.partition(".")
    return f"{'encoder' if network == 'bert' else 'decoder'}.{rest}"


def _deprecated_name(key: str, names: Mapping[str, Block]) -> str:
    block = _BLOCK.fullmatch(key)
    if block is None:
        return f"model.diffusion_model.{key.removeprefix('image.')}"
    return f"model.diffusion_model.unet_{block[1]}.{names[block[2]].deprecated}.{block[3]}"


def _diffusers_name(key: str, names: Mapping[str, Block]) -> str:
    block = _BLOCK.fullmatch(key)
    if block is None:
        layer, _, end = key.removeprefix("image.time_embed.").partition(".")
        return f"image_unet.time_embedding.linear_{1 + int(layer) // 2}.{end}"
    kind, place, rest = block[1], names[block[2]].diffusers, block[3]
    layer, _, end = rest.rpartition(".")
    if not place:
        return f"{kind}_unet.{'conv_norm_out' if layer == '0' else 'conv_out'}.{end}"
    if ".resnets." in place:
        rest = f"{_RESNET[layer]}.{end}"
    elif ".downsamplers." in place:
        rest = rest.replace("op.", "conv.")
    return f"{kind}_unet.{place}.{rest}"


def places(config: BackboneConfig) -> dict[str, dict[str, Place]]:
    """Where each kind of file keeps the parts: the flows' file in both its layouts, the parts' own, diffusers' folder.

    The current flows' file may hold CLIP twice; each copy serves its own kind of context.
    """
    names = {block.ours: block for block in blocks(config.flows)}
    autokl = partial(autokl_name, levels=len(config.autokl.widths))

    def at(start: str, name: Name = str) -> Name:
        return lambda key: start + name(key)

    def clip(text: str, image: str) -> Name:
        return lambda key: (image if key.startswith(("vision_model.", "visual_projection.")) else text) + key

    return {
        "flows": {
            "flows": Place("", at("diffuser.")),
            "autokl": Place("vae.image.*", at("vae.image.", autokl)),
            "optimus": Place("vae.text.*", at("vae.text.", optimus_name)),
            "clip": Place("ctx.*", clip("ctx.text.model.", "ctx.image.model.")),
        },
        "deprecated": {
            "flows": Place("", partial(_deprecated_name, names=names)),
            "autokl": Place("autokl.*", at("autokl.", autokl)),
            "optimus": Place("optimus.*", at("optimus.", optimus_name)),
            "clip": Place("clip.*", at("clip.model.")),
        },
        "autokl": {"autokl": Place("", autokl)},
        "vae": {"autokl": Place("", str)},
        "optimus": {"optimus": Place("", optimus_name)},
        "clip": {"clip": Place("", str)},
        "diffusers": {
            "flows": Place("image_unet and text_unet", partial(_diffusers_name, names=names)),
            "autokl": Place("vae", at("vae.")),
            "clip": Place("text_encoder and image_encoder", clip("text_encoder.", "image_encoder.")),
        },
    }

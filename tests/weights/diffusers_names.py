"""Where diffusers keeps the weights of the four flows."""

from collections.abc import Iterator

from torch import Tensor

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.flows import FourFlows

INSIDE = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op.": "conv.",
}


def data_positions(config: FlowsConfig) -> Iterator[str]:
    """Names of the data positions, in order; the head is two modules and left out."""
    last = len(config.channel_mult) - 1
    yield "conv_in"
    for level, count in enumerate(config.res_blocks):
        yield from (f"down_blocks.{level}.resnets.{index}" for index in range(count))
        if level != last:
            yield f"down_blocks.{level}.downsamplers.0"
    yield from ("mid_block.resnets.0", "mid_block.resnets.1")
    for level, count in enumerate(reversed(config.res_blocks)):
        yield from (f"up_blocks.{level}.resnets.{index}" for index in range(count + 1))
        if level != last:
            yield f"up_blocks.{level}.upsamplers.0"


def context_positions(config: FlowsConfig) -> Iterator[str]:
    levels = list(zip(config.res_blocks, config.attention, strict=True))
    for level, (count, attention) in enumerate(levels):
        yield from (f"down_blocks.{level}.attentions.{index}" for index in range(count * attention))
    yield "mid_block.attentions.0"
    for level, (count, attention) in enumerate(reversed(levels)):
        yield from (f"up_blocks.{level}.attentions.{index}" for index in range((count + 1) * attention))


def diffusers_weights(flows: FourFlows, latent: str, context: str) -> dict[str, Tensor]:
    """Weights of one flow under the names of diffusers."""
    data, contexts = list(data_positions(flows.config)), list(context_positions(flows.config))
    renamed = {}
    for key, value in flows.state_dict().items():
        kind, container, rest = key.split(".", 2)
        if container == "time_embed":
            layer, name = rest.split(".")
            renamed[f"time_embedding.linear_{1 if layer == '0' else 2}.{name}"] = value
        elif container == "context_blocks" and kind == context:
            index, _, rest = rest.split(".", 2)
            renamed[f"{contexts[int(index)]}.{rest}"] = value
        elif container == "data_blocks" and kind == latent:
            index, _, rest = rest.split(".", 2)
            if int(index) == len(data):
                layer, name = rest.split(".")
                renamed[f"{'conv_norm_out' if layer == '0' else 'conv_out'}.{name}"] = value
                continue
            for ours, theirs in INSIDE.items():
                rest = rest.replace(ours, theirs)
            renamed[f"{data[int(index)]}.{rest}"] = value
    return renamed

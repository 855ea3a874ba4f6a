"""Where diffusers keeps the weights of the four flows."""

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


def positions(config: FlowsConfig) -> tuple[list[str], list[str]]:
    """Names of the data and context positions, in order; the head is two modules and left out."""
    levels = list(enumerate(zip(config.res_blocks, config.attention, strict=True)))
    last = len(levels) - 1
    data, contexts = ["conv_in"], []
    for level, (count, attention) in levels:
        down = f"down_blocks.{level}"
        data += [f"{down}.resnets.{index}" for index in range(count)] + [f"{down}.downsamplers.0"] * (level != last)
        contexts += [f"{down}.attentions.{index}" for index in range(count * attention)]
    data += ["mid_block.resnets.0", "mid_block.resnets.1"]
    contexts.append("mid_block.attentions.0")
    for level, (_, (count, attention)) in enumerate(reversed(levels)):
        up = f"up_blocks.{level}"
        data += [f"{up}.resnets.{index}" for index in range(count + 1)] + [f"{up}.upsamplers.0"] * (level != last)
        contexts += [f"{up}.attentions.{index}" for index in range((count + 1) * attention)]
    return data, contexts


def diffusers_weights(flows: FourFlows, latent: str, context: str) -> dict[str, Tensor]:
    """Weights of one flow under the names of diffusers."""
    data, contexts = positions(flows.config)
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

"""Where the three layouts keep the blocks of a flow."""

from dataclasses import dataclass

from unibrain.backbone.config import FlowsConfig

__all__ = ["Position", "block_positions"]


@dataclass(frozen=True)
class Position:
    """One block of a diffuser under its three names.

    Attributes
    ----------
    ours : str
        As in the current layout, below ``diffuser.image.`` or ``diffuser.text.``.
    deprecated : str
        Below ``model.diffusion_model.unet_image.`` or ``unet_text.``.
    diffusers : str
        In ``image_unet`` or ``text_unet``. Empty for the head, which is two modules there.
    """

    ours: str
    deprecated: str
    diffusers: str


def block_positions(config: FlowsConfig) -> tuple[Position, ...]:
    """List the blocks in the order in which a flow runs them.

    The current layout numbers data and context blocks on their own; the deprecated one numbers what stands between two
    skip connections; diffusers counts by level, and on the way up from the lowest level.

    Parameters
    ----------
    config : FlowsConfig

    Returns
    -------
    tuple of Position

    Examples
    --------
    >>> block_positions(FlowsConfig())[2]
    Position(ours='context_blocks.0.0', deprecated='input_blocks.1.1', diffusers='down_blocks.0.attentions.0')
    """
    found: list[Position] = []
    counts = {"data_blocks": 0, "context_blocks": 0}

    def add(kind: str, deprecated: str, diffusers: str) -> None:
        found.append(Position(f"{kind}.{counts[kind]}.0", deprecated, diffusers))
        counts[kind] += 1

    last = len(config.channel_mult) - 1
    add("data_blocks", "input_blocks.0.0", "conv_in")
    number = 1
    for level, blocks in enumerate(config.res_blocks):
        for block in range(blocks):
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
            slot = 1
            add("data_blocks", f"output_blocks.{number}.0", f"up_blocks.{climbed}.resnets.{block}")
            if config.attention[level]:
                add("context_blocks", f"output_blocks.{number}.{slot}", f"up_blocks.{climbed}.attentions.{block}")
                slot += 1
            if block == config.res_blocks[level] and level:
                add("data_blocks", f"output_blocks.{number}.{slot}", f"up_blocks.{climbed}.upsamplers.0")
            number += 1
    add("data_blocks", "out", "")
    return tuple(found)

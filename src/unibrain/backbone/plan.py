"""The order in which a flow runs its blocks: one list that builds the network and executes it."""

from dataclasses import dataclass
from typing import Literal

from unibrain.backbone.config import FlowsConfig

__all__ = ["DataBlock", "Plan", "Step", "make_plan"]


@dataclass(frozen=True)
class DataBlock:
    """What stands at one data position.

    Attributes
    ----------
    kind : {"stem", "residual", "down", "up", "head"}
    channels_in, channels_out : int
        Channels before and after (the head ends at `channels_in`; the output width depends on the data type).
    """

    kind: Literal["stem", "residual", "down", "up", "head"]
    channels_in: int
    channels_out: int


@dataclass(frozen=True)
class Step:
    """One step of the walk.

    Attributes
    ----------
    action : {"data", "context", "save", "join"}
        Run data block `index`, run context block `index`, push the state on the skip stack, or concatenate the state
        with what is popped from it.
    index : int
        Position of the block in its list; 0 where the action has none.
    """

    action: Literal["data", "context", "save", "join"]
    index: int = 0


@dataclass(frozen=True)
class Plan:
    """The blocks and the walk through them. Both data types have the same plan.

    Attributes
    ----------
    data : tuple of DataBlock
    context_channels : tuple of int
        Channels of each context position.
    steps : tuple of Step
    """

    data: tuple[DataBlock, ...]
    context_channels: tuple[int, ...]
    steps: tuple[Step, ...]


def make_plan(config: FlowsConfig) -> Plan:
    """Lay out a U-shaped network of data and context positions (Versatile Diffusion, figure 3).

    Parameters
    ----------
    config : FlowsConfig

    Returns
    -------
    Plan

    Examples
    --------
    >>> plan = make_plan(FlowsConfig())
    >>> len(plan.data), len(plan.context_channels)
    (30, 16)
    """
    data: list[DataBlock] = []
    contexts: list[int] = []
    steps: list[Step] = []
    skips: list[int] = []

    def add_data(kind: Literal["stem", "residual", "down", "up", "head"], channels_in: int, channels_out: int) -> None:
        steps.append(Step("data", len(data)))
        data.append(DataBlock(kind, channels_in, channels_out))

    def add_context(channels: int) -> None:
        steps.append(Step("context", len(contexts)))
        contexts.append(channels)

    def save(channels: int) -> None:
        steps.append(Step("save"))
        skips.append(channels)

    widths = [config.model_channels * multiple for multiple in config.channel_mult]
    last = len(widths) - 1
    current = config.model_channels
    add_data("stem", 0, current)
    save(current)
    for level, width in enumerate(widths):
        for _ in range(config.res_blocks[level]):
            add_data("residual", current, width)
            current = width
            if config.attention[level]:
                add_context(current)
            save(current)
        if level != last:
            add_data("down", current, current)
            save(current)

    add_data("residual", current, current)
    add_context(current)
    add_data("residual", current, current)

    for level in reversed(range(len(widths))):
        for _ in range(config.res_blocks[level] + 1):
            steps.append(Step("join"))
            add_data("residual", current + skips.pop(), widths[level])
            current = widths[level]
            if config.attention[level]:
                add_context(current)
        if level != 0:
            add_data("up", current, current)
    add_data("head", current, current)
    return Plan(tuple(data), tuple(contexts), tuple(steps))

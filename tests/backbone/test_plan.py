"""The order of the blocks, for all sizes that a configuration allows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.plan import make_plan
from unibrain.errors import InputError


@st.composite
def configs(draw: st.DrawFn) -> FlowsConfig:
    count = draw(st.integers(1, 4))
    each = {"min_size": count, "max_size": count}
    return FlowsConfig(
        image_channels=draw(st.integers(1, 5)),
        text_width=draw(st.integers(1, 9)),
        model_channels=32 * draw(st.integers(1, 3)),
        channel_mult=(1, *draw(st.lists(st.integers(1, 4), min_size=count - 1, max_size=count - 1))),
        res_blocks=tuple(draw(st.lists(st.integers(1, 3), **each))),
        attention=tuple(draw(st.lists(st.booleans(), **each))),
        heads=draw(st.sampled_from([1, 2, 4, 8])),
        context_width=draw(st.integers(1, 9)),
        second_dim=draw(st.integers(1, 4)),
    )


@given(configs())
def test_counts(config: FlowsConfig) -> None:
    plan = make_plan(config)
    down = sum(config.res_blocks)
    up = sum(count + 1 for count in config.res_blocks)
    resizings = len(config.channel_mult) - 1
    assert len(plan.data) == 1 + down + resizings + 2 + up + resizings + 1
    assert len(plan.context_channels) == 1 + sum(
        2 * count + 1 for count, attention in zip(config.res_blocks, config.attention, strict=True) if attention
    )
    for action, count in (("data", len(plan.data)), ("context", len(plan.context_channels))):
        assert [step.index for step in plan.steps if step.action == action] == list(range(count))


@given(configs())
def test_what_is_saved_is_joined_and_channels_fit(config: FlowsConfig) -> None:
    plan = make_plan(config)
    current, level, saved = 0, 0, []
    for step in plan.steps:
        if step.action == "save":
            saved.append((current, level))
        elif step.action == "join":
            channels, at_level = saved.pop()
            assert at_level == level, "joined states must have the same height and width"
            current += channels
        elif step.action == "context":
            assert plan.context_channels[step.index] == current
        else:
            block = plan.data[step.index]
            assert block.channels_in == current
            current = block.channels_out
            level += {"down": 1, "up": -1}.get(block.kind, 0)
            assert 0 <= level < len(config.channel_mult)
    assert saved == []
    assert level == 0
    assert current == config.model_channels


@pytest.mark.parametrize(
    ("multiples", "res_blocks", "attention"),
    [((1, 3, 1), (1, 2, 1), (False, True, False)), ((1, 1), (2, 1), (True, True)), ((1,), (1,), (False,))],
)
def test_unusual_sizes_keep_the_shape_of_their_input(
    multiples: tuple[int, ...], res_blocks: tuple[int, ...], attention: tuple[bool, ...]
) -> None:
    config = FlowsConfig(5, 7, 32, multiples, res_blocks, attention, heads=2, context_width=3, second_dim=3)
    flows = FourFlows(config).requires_grad_(False)
    contexts = [flows.prepare(kind, torch.randn(2, 4, 3), 0.5) for kind in ("image", "text")]
    for x in (torch.randn(2, 5, 4, 8), torch.randn(2, 7)):
        assert flows(x, torch.tensor([1, 999]), contexts).shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channel_mult": (1, 2), "res_blocks": (1,), "attention": (True, True)}, "one of each per level"),
        ({"channel_mult": (2, 2, 4, 4)}, "first channel multiple is 2, expected 1"),
        ({"channel_mult": (), "res_blocks": (), "attention": ()}, "channel_mult is empty"),
        ({"model_channels": 48}, "expected a multiple of 32"),
        ({"model_channels": 32, "heads": 5}, "5 heads"),
        ({"heads": 0}, "0 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FlowsConfig(**wrong)

"""The flows: the order of their blocks, and what they compute against diffusers and a plain implementation."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers_names import diffusers_weights
from hypothesis import given
from hypothesis import strategies as st

from unibrain.backbone.config import BackboneConfig, FlowsConfig
from unibrain.backbone.flows import FourFlows, make_plan
from unibrain.backbone.loading import load_folder
from unibrain.backbone.sampling import context_shares, guided_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SHAPES = {
    "one level": FlowsConfig(4, 24, 64, (1,), (1,), (True,), heads=4, context_width=12),
    "two levels": FlowsConfig(3, 24, 32, (1, 2), (1, 2), (True, False), heads=2, context_width=20),
    "attention below": FlowsConfig(4, 24, 64, (1, 1), (1, 1), (False, True), heads=4, context_width=12),
    "three levels": FlowsConfig(4, 24, 32, (1, 2, 2), (2, 1, 1), (True, True, False), heads=8, context_width=12),
}


def random_flows(config: FlowsConfig) -> FourFlows:
    torch.manual_seed(3)
    flows = FourFlows(config).eval().requires_grad_(False)
    for parameter in flows.parameters():
        # Norms start as the identity and would not be told apart.
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flows


@pytest.mark.parametrize("shape", SHAPES)
def test_image_flow_is_that_of_diffusers(shape: str) -> None:
    config = SHAPES[shape]
    unet = UNet2DConditionModel(
        in_channels=config.image_channels,
        out_channels=config.image_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)),
        block_out_channels=tuple(config.model_channels * multiple for multiple in config.channel_mult),
        layers_per_block=config.res_blocks,
        cross_attention_dim=config.context_width,
        attention_head_dim=config.heads,
    )
    flows = random_flows(config)
    unet.eval().load_state_dict(diffusers_weights(flows, "image", "image"), strict=True)
    x, context = torch.randn(2, config.image_channels, 8, 8), torch.randn(2, 5, config.context_width)
    timesteps = torch.tensor([1, 981])
    with torch.no_grad():
        expected = unet(x, timesteps, encoder_hidden_states=context).sample
        found = flows(x, timesteps, [flows.prepare("c_image", context)])
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


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
    assert (saved, level, current) == ([], 0, config.model_channels)
    # As many blocks as the configuration says, each visited once and in order.
    levels = list(zip(config.res_blocks, config.attention, strict=True))
    data = 4 + 2 * (len(levels) - 1) + sum(2 * count + 1 for count, _ in levels)
    contexts = 1 + sum(2 * count + 1 for count, attention in levels if attention)
    assert (len(plan.data), len(plan.context_channels)) == (data, contexts)
    for action, count in (("data", data), ("context", contexts)):
        assert [step.index for step in plan.steps if step.action == action] == list(range(count))


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of an installed package")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.parametrize(("shape", "weight"), [((3, 8, 8), 0.6), ((10,), 0.9), ((3, 8, 8), 1.0)])
@pytest.mark.usefixtures("benchmarks")
def test_the_plain_implementation_of_the_benchmark_predicts_the_same(shape: tuple[int, ...], weight: float) -> None:
    from plain_flows import plain_guided_model

    torch.manual_seed(5)
    config = FlowsConfig(3, 10, 32, (1, 2), (1, 1), (True, False), heads=4, context_width=12, second_dim=2)
    flows = FourFlows(config).double().eval().requires_grad_(False)
    conditional = {"c_image": torch.randn(2, 5, 12).double(), "c_text": torch.randn(2, 7, 12).double()}
    unconditional = {"c_image": torch.randn(1, 5, 12).double(), "c_text": torch.randn(1, 7, 12).double()}
    x, timesteps = torch.randn(2, *shape).double(), torch.tensor([700, 700])
    expected = plain_guided_model(flows, conditional, unconditional, context_shares(weight), 7.5)(x, timesteps)
    found = guided_model(flows, conditional, unconditional, weight, 7.5)(x, timesteps)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.usefixtures("benchmarks")
def test_a_random_folder_can_be_loaded(tiny_config: BackboneConfig, tmp_path: Path) -> None:
    from random_folder import write_random_folder

    write_random_folder(tmp_path / "random", tiny_config, torch.bfloat16)
    backbone = load_folder(tmp_path / "random", device="cpu", dtype="bf16")
    assert backbone.encode("z_text", ["t1 t2"]).shape == (1, 16)
    assert backbone.encode("c_text", ["t1"]).shape == (1, 20, 16)

"""The flows against the networks of diffusers, with the same random weights."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers_names import diffusers_weights

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.flows import FourFlows

SHAPES = {
    "one level": FlowsConfig(4, 24, 32, (1,), (1,), (True,), heads=4, context_width=12),
    "two levels": FlowsConfig(3, 24, 32, (1, 2), (1, 2), (True, False), heads=2, context_width=20),
    "attention below": FlowsConfig(4, 24, 32, (1, 1), (1, 1), (False, True), heads=4, context_width=12),
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


def sizes(config: FlowsConfig) -> dict[str, object]:
    return {
        "block_out_channels": tuple(config.model_channels * multiple for multiple in config.channel_mult),
        "layers_per_block": config.res_blocks,
        "cross_attention_dim": config.context_width,
        "attention_head_dim": config.heads,
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_image_flow_is_that_of_diffusers(shape: str) -> None:
    config = SHAPES[shape]
    flows = random_flows(config)
    unet = UNet2DConditionModel(
        in_channels=config.image_channels,
        out_channels=config.image_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)),
        **sizes(config),
    ).eval()
    unet.load_state_dict(diffusers_weights(flows, "image", "image"), strict=True)
    x, context = torch.randn(2, config.image_channels, 8, 8), torch.randn(2, 5, config.context_width)
    timesteps = torch.tensor([1, 981])
    with torch.no_grad():
        expected = unet(x, timesteps, encoder_hidden_states=context).sample
        found = flows(x, timesteps, [flows.prepare("image", context)])
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", [name for name, config in SHAPES.items() if not config.attention[-1]])
def test_text_flow_is_that_of_diffusers(shape: str) -> None:
    module = pytest.importorskip("diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet")
    config = SHAPES[shape]
    flows = random_flows(config)
    unet = module.UNetFlatConditionModel(
        in_channels=(config.text_width, 1, 1),
        out_channels=(config.text_width, 1, 1),
        down_block_types=tuple("CrossAttnDownBlockFlat" if a else "DownBlockFlat" for a in config.attention),
        up_block_types=tuple("CrossAttnUpBlockFlat" if a else "UpBlockFlat" for a in reversed(config.attention)),
        **sizes(config),
    ).eval()
    unet.load_state_dict(diffusers_weights(flows, "text", "text"), strict=True)
    x, context = torch.randn(2, config.text_width), torch.randn(2, 5, config.context_width)
    timesteps = torch.tensor([21, 700])
    with torch.no_grad():
        expected = unet(x[:, :, None, None], timesteps, encoder_hidden_states=context).sample[:, :, 0, 0]
        found = flows(x, timesteps, [flows.prepare("text", context)])
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_a_shared_context_is_read_by_the_whole_batch() -> None:
    config = SHAPES["one level"]
    flows = random_flows(config)
    x, context, timesteps = torch.randn(3, 4, 8, 8), torch.randn(1, 5, 12), torch.tensor([5, 50, 500])
    with torch.no_grad():
        shared = flows(x, timesteps, [flows.prepare("text", context)])
        repeated = flows(x, timesteps, [flows.prepare("text", context.repeat(3, 1, 1))])
    torch.testing.assert_close(shared, repeated, atol=1e-6, rtol=0)

"""Flows that are taken over into other sizes compute what they did."""

from dataclasses import replace

import torch

from training.carry import carried
from training.recipe import small_config
from unibrain.backbone.flows import FourFlows


def test_carried_flows_compute_the_same() -> None:
    torch.manual_seed(0)
    config = replace(small_config(400, 985, 1205).flows, image_channels=12, second_dim=2)
    small, wide = FourFlows(config), FourFlows(replace(config, image_channels=8, second_dim=4))
    turn = torch.linalg.qr(torch.randn(12, 8)).Q  # old latents lie in eight directions
    new = torch.randn(30, 8, 8, 8)
    old = torch.einsum("ij,njhw->nihw", turn, new)
    wide.load_state_dict(carried(small.state_dict(), wide, old, new))
    timesteps = torch.tensor([300])
    context = torch.randn(3, 5, 128)
    with torch.inference_mode():
        of_small, of_wide = ([flows.prepare("c_text", context)] for flows in (small, wide))
        text = torch.randn(3, 128)
        torch.testing.assert_close(
            wide(text, timesteps, of_wide), small(text, timesteps, of_small), atol=1e-4, rtol=1e-3
        )
        expected = torch.einsum("ij,nihw->njhw", turn, small(old[:3], timesteps, of_small))
        torch.testing.assert_close(wide(new[:3], timesteps, of_wide), expected, atol=1e-4, rtol=1e-3)
    # The two copies of a row are not the same, or they would learn the same.
    mix = wide.text.data_blocks[1][0].in_layers[2].weight[:, :4]  # type: ignore[index]
    assert not torch.allclose(mix[:, 0], mix[:, 2])

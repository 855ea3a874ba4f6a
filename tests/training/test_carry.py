"""Flows that are taken over into others compute about what they did."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.carry import adapted, rescheduled, widened
from training.recipe import small_config
from unibrain.backbone.config import ScheduleConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.sampling import alphas_cumprod

TIMESTEPS = torch.tensor([300])
CONTEXT = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def computed(flows: FourFlows, latents: Tensor) -> Tensor:
    """What the flows find in latents, guided by the same context."""
    return flows(latents, TIMESTEPS, [flows.prepare("c_text", CONTEXT)])  # type: ignore[no-any-return]


def test_flows_on_other_latents_compute_the_same() -> None:
    torch.manual_seed(0)
    config = replace(small_config(400, 985, 1205).flows, image_channels=12)
    first, second = FourFlows(config), FourFlows(replace(config, image_channels=8))
    turn = torch.linalg.qr(torch.randn(12, 8)).Q  # old latents lie in eight directions
    new = torch.randn(30, 8, 8, 8)
    old = torch.einsum("ij,njhw->nihw", turn, new)
    second.load_state_dict(adapted(first.state_dict(), old, new))
    expected = torch.einsum("ij,nihw->njhw", turn, computed(first, old[:3]))
    torch.testing.assert_close(computed(second, new[:3]), expected, atol=1e-4, rtol=1e-3)


def test_wider_flows_begin_near_what_the_narrow_ones_compute() -> None:
    torch.manual_seed(0)
    config = small_config(400, 985, 1205).flows
    narrow = FourFlows(replace(config, model_channels=96, second_dim=4))
    wide = FourFlows(replace(config, model_channels=128, second_dim=3))
    taught = FourFlows(wide.config)
    taught.load_state_dict(widened(narrow.state_dict(), wide, rows=4))
    for latents in (torch.randn(3, 24, 8, 8), torch.randn(3, 128)):
        expected = computed(narrow, latents)
        off, untaught = (
            float((computed(flows, latents) - expected).square().mean() / expected.square().mean())
            for flows in (taught, wide)
        )
        assert off < 0.5 < 1 < untaught


@torch.no_grad()
def test_flows_on_another_noise_schedule_compute_the_same_at_the_same_noise() -> None:
    torch.manual_seed(0)
    config = small_config(400, 985, 1205)
    old, new = ScheduleConfig(), config.schedule
    levels = alphas_cumprod(new).numpy()
    as_noisy = int(np.abs(alphas_cumprod(old).numpy() - levels[300]).argmin())
    first, second = FourFlows(config.flows), FourFlows(config.flows)
    second.load_state_dict(rescheduled(first.state_dict(), old, new))
    expected = first.embed_time(torch.tensor([as_noisy]), torch.float32)
    off, untaught = (
        float((flows.embed_time(torch.tensor([300]), torch.float32) - expected).square().mean())
        for flows in (second, first)
    )
    assert off < 0.3 * untaught

"""Guidance: what is computed, what is left out, and the formula."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.guidance import guided_model

CONFIG = FlowsConfig(3, 10, 32, (1,), (1,), (True,), heads=2, context_width=8, second_dim=2)
LATENTS = {"image": (2, 3, 4, 4), "text": (2, 10)}


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


class Counting(FourFlows):
    """Flows that write down how they are called."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.batches: list[int] = []
        self.read: list[str] = []
        for kind in ("image", "text"):
            for holder in self._diffuser(kind).context_blocks:
                holder[0].register_forward_hook(lambda *_, kind=kind: self.read.append(kind))

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        self.batches.append(len(x))
        return super().forward(x, *arguments, **options)


@pytest.fixture
def flows() -> Counting:
    torch.manual_seed(2)
    # In double precision, so that only a wrong formula makes a difference.
    return Counting().double().eval().requires_grad_(False)


@pytest.fixture
def contexts(flows: Counting) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    conditional = {"image": random(2, 4, 8), "text": random(2, 6, 8)}
    unconditional = {"image": random(1, 4, 8), "text": random(1, 6, 8)}
    return conditional, unconditional


def mixed(flows: FourFlows, x: Tensor, timesteps: Tensor, contexts: dict[str, Tensor], weight: float) -> Tensor:
    """One prediction under both contexts, repeated for the batch by hand."""
    repeated = {kind: context.expand(len(x), -1, -1) for kind, context in contexts.items()}
    return flows(
        x,
        timesteps,
        [flows.prepare("image", repeated["image"], weight), flows.prepare("text", repeated["text"], 1 - weight)],
    )


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [0.0, 2.5, 7.5])
def test_formula(flows: Counting, contexts: Any, latent: str, weight: float, scale: float) -> None:
    conditional, unconditional = contexts
    x, timesteps = random(*LATENTS[latent]), torch.tensor([7, 700])
    found = guided_model(flows, conditional, unconditional, weight, scale)(x, timesteps)
    e_c = mixed(flows, x, timesteps, conditional, weight)
    e_u = mixed(flows, x, timesteps, unconditional, weight)
    assert (e_c - e_u).abs().max() > 1e-3
    torch.testing.assert_close(found, (1 - scale) * e_u + scale * e_c, atol=1e-10, rtol=0)


def test_scale_one_leaves_the_unconditional_half_out(flows: Counting, contexts: Any) -> None:
    conditional, unconditional = contexts
    x, timesteps = random(*LATENTS["image"]), torch.tensor([7, 700])
    model = guided_model(flows, conditional, unconditional, 0.6, 1.0)
    assert flows.batches == []
    found = model(x, timesteps)
    assert flows.batches == [2]
    torch.testing.assert_close(found, mixed(flows, x, timesteps, conditional, 0.6), atol=1e-12, rtol=0)


@pytest.mark.parametrize("latent", LATENTS)
def test_guided_steps_are_one_call_that_doubles_at_the_first_context(
    flows: Counting, contexts: Any, latent: str
) -> None:
    widths: list[int] = []
    for holder in flows._diffuser(latent).data_blocks:
        holder[0].register_forward_hook(lambda _, __, output: widths.append(len(output)))
    model = guided_model(flows, *contexts, 0.6, 2.0)
    model(random(*LATENTS[latent]), torch.tensor([7, 700]))
    assert flows.batches == [2]
    first = next(i for i, step in enumerate(flows.plan.steps) if step.action == "context")
    before = sum(step.action == "data" for step in flows.plan.steps[:first])
    assert before == 2
    assert widths == [2] * before + [4] * (len(flows.plan.data) - before)


@pytest.mark.parametrize("latent", LATENTS)
def test_prepared_unconditional_contexts_and_one_timestep_for_all_rows(
    flows: Counting, contexts: Any, latent: str
) -> None:
    conditional, unconditional = contexts
    prepared = {kind: flows.prepare(kind, rows) for kind, rows in unconditional.items()}
    x = random(*LATENTS[latent])
    expected = guided_model(flows, conditional, unconditional, 0.6, 3.0)(x, torch.tensor([7, 7]))
    found = guided_model(flows, conditional, prepared, 0.6, 3.0)(x, torch.tensor([7]).expand(2))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    both = flows.prepare("image", conditional["image"]).beside(prepared["image"])
    rows = {len(keys) for pairs in both.keys_values for keys, _ in pairs}
    assert rows == {1, 2}, "the shared row was copied for every scan"


@pytest.mark.parametrize(("weight", "kinds"), [(0.0, {"text"}), (1.0, {"image"}), (0.5, {"image", "text"})])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_context_without_a_share_is_not_read(
    flows: Counting, contexts: Any, weight: float, kinds: set[str], scale: float
) -> None:
    model = guided_model(flows, *contexts, weight, scale)
    model(random(*LATENTS["image"]), torch.tensor([7, 700]))
    assert set(flows.read) == kinds
    assert len(flows.read) == len(kinds) * len(flows.plan.context_channels)


def test_shares_are_relative(flows: Counting, contexts: Any) -> None:
    conditional, _ = contexts
    x, timesteps = random(*LATENTS["image"]), torch.tensor([7, 700])
    once = [flows.prepare("image", conditional["image"], 0.2), flows.prepare("text", conditional["text"], 0.8)]
    tenfold = [flows.prepare("image", conditional["image"], 2.0), flows.prepare("text", conditional["text"], 8.0)]
    torch.testing.assert_close(flows(x, timesteps, once), flows(x, timesteps, tenfold), atol=1e-12, rtol=0)

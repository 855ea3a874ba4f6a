"""The official sizes, built without memory, against the keys, shapes and counts of the published weights."""

from math import prod

import pytest
import torch
from torch import Tensor, nn

from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import OFFICIAL
from unibrain.backbone.flows import FourFlows, make_plan

Shapes = dict[str, tuple[int, ...]]


def shapes(weights: dict[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in weights.items()}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def flows() -> FourFlows:
    with torch.device("meta"):
        return FourFlows(OFFICIAL.flows)


def test_flows_have_the_published_keys(flows: FourFlows, published: dict[str, Shapes]) -> None:
    assert shapes(flows.state_dict()) == published["flows"]


def test_flows_have_the_published_number_of_parameters(flows: FourFlows) -> None:
    counts = {
        "image data": parameters(flows.image.data_blocks),
        "image context": parameters(flows.image.context_blocks),
        "text data": parameters(flows.text.data_blocks),
        "text context": parameters(flows.text.context_blocks),
        "time": parameters(flows.image.time_embed),
    }
    millions = {part: round(count / 1e6, 2) for part, count in counts.items()}
    assert millions == {
        "image data": 590.23,
        "image context": 267.24,
        "text data": 1439.56,
        "text context": 267.24,
        "time": 2.05,
    }
    assert parameters(flows) == sum(counts.values())
    assert round(parameters(flows) / 1e6, 1) == 2566.3


def test_official_order_of_blocks() -> None:
    letters = {"data": "d", "context": "c", "save": "s", "join": "L"}
    plan = make_plan(OFFICIAL.flows)
    level_down, level_up = "dcs" * 2 + "ds", "Ldc" * 3 + "d"
    expected = "ds" + level_down * 3 + "dsds" + "dcd" + "Ld" * 3 + "d" + level_up * 2 + "Ldc" * 3 + "d"
    assert "".join(letters[step.action] for step in plan.steps) == expected


def test_autokl_parameters(published: dict[str, Shapes]) -> None:
    with torch.device("meta"):
        autokl = make_autokl(OFFICIAL.autokl)
    assert parameters(autokl) == sum(map(prod, published["autokl"].values())) == 83_653_863


def test_optimus_parameters() -> None:
    with torch.device("meta"):
        optimus = Optimus(OFFICIAL.optimus)
    assert parameters(optimus) == 241_599_744


def test_clip_keys(published: dict[str, Shapes]) -> None:
    with torch.device("meta"):
        clip = make_clip(OFFICIAL.clip)
    assert shapes(clip.state_dict()) == published["clip"]
    assert parameters(clip) == 427_616_513


def test_latent_sizes() -> None:
    assert OFFICIAL.autokl.latent_size == 64

"""The official sizes, built without memory, against the keys, shapes and counts of the published weights."""

import gzip
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import OFFICIAL
from unibrain.backbone.flows import FourFlows, make_plan

PUBLISHED: dict[str, dict[str, list[int]]] = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "published-keys.json.gz").read_bytes())
)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("part", "make", "count"),
    [
        ("flows", FourFlows, 2_566_318_852),
        ("autokl", make_autokl, 83_653_863),
        ("optimus", Optimus, 241_599_744),
        ("clip", make_clip, 427_616_513),
    ],
)
def test_the_published_weights_fit(part: str, make: Any, count: int) -> None:
    with torch.device("meta"):
        module = make(getattr(OFFICIAL, part))
    assert parameters(module) == count
    if part in ("flows", "clip"):
        assert {key: list(value.shape) for key, value in module.state_dict().items()} == PUBLISHED[part]
    if part == "autokl":  # stored under other names
        assert sum(map(prod, PUBLISHED[part].values())) == count
    if part == "flows":
        parts = (module.image.data_blocks, module.image.context_blocks, module.text.data_blocks)
        found = [parameters(blocks) for blocks in (*parts, module.text.context_blocks, module.image.time_embed)]
        assert [round(number / 1e6, 2) for number in found] == [590.23, 267.24, 1439.56, 267.24, 2.05]
        assert sum(found) == count


def test_official_order_of_blocks() -> None:
    letters = {"data": "d", "context": "c", "save": "s", "join": "L"}
    level_down, level_up = "dcs" * 2 + "ds", "Ldc" * 3 + "d"
    expected = "ds" + level_down * 3 + "dsds" + "dcd" + "Ld" * 3 + "d" + level_up * 2 + "Ldc" * 3 + "d"
    assert "".join(letters[step.action] for step in make_plan(OFFICIAL.flows).steps) == expected
    assert OFFICIAL.autokl.latent_size == 64

"""The plain implementation that the benchmark races against computes the same network."""

import sys
from pathlib import Path

import pytest
import torch

from unibrain.backbone.config import BackboneConfig, FlowsConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.guidance import guided_model, shares_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of an installed package")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.parametrize(("shape", "weight"), [((3, 8, 8), 0.6), ((10,), 0.9), ((3, 8, 8), 1.0)])
def test_same_prediction(shape: tuple[int, ...], weight: float) -> None:
    from plain_flows import plain_guided_model

    torch.manual_seed(5)
    config = FlowsConfig(3, 10, 32, (1, 2), (1, 1), (True, False), heads=4, context_width=12, second_dim=2)
    flows = FourFlows(config).double().eval().requires_grad_(False)
    conditional = {"image": torch.randn(2, 5, 12).double(), "text": torch.randn(2, 7, 12).double()}
    unconditional = {"image": torch.randn(1, 5, 12).double(), "text": torch.randn(1, 7, 12).double()}
    x, timesteps = torch.randn(2, *shape).double(), torch.tensor([700, 700])
    expected = plain_guided_model(flows, conditional, unconditional, shares_of(weight), 7.5)(x, timesteps)
    found = guided_model(flows, conditional, unconditional, weight, 7.5)(x, timesteps)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_a_random_folder_can_be_loaded(tiny_config: BackboneConfig, tmp_path: Path) -> None:
    from random_folder import write_random_folder

    from unibrain.backbone import load_backbone

    write_random_folder(tmp_path / "random", tiny_config, torch.bfloat16)
    backbone = load_backbone(tmp_path / "random", device="cpu", dtype="bf16")
    assert backbone.encode("z_text", ["t1 t2"]).shape == (1, 16)
    assert backbone.encode("c_text", ["t1"]).shape == (1, 12, 16)

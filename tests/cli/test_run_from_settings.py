"""The whole command line over the networks' own classes, with random weights."""

import re
from pathlib import Path

import pytest
import torch

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.loading import write_backbone
from unibrain.backbone.optimus import Optimus
from unibrain.cli.main import main
from unibrain.demo import describe, sample_scene
from unibrain.reconstruction import load_decoded
from unibrain.training.small import TEXT_TOKENS, small_config
from unibrain.training.vocabularies import make_vocabularies, open_vocabularies

SETTINGS = """
[simulate]
training_images = 16
test_images = 4
sessions = 2
[extract]
backbone = "random"
[fit]
folds = 2
[reconstruct]
steps = 4
batch_size = 2
[report]
title = "A page of chance"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, and the backbone that they name."""
    folder = tmp_path_factory.mktemp("random")
    captions = [caption for index in range(50) for caption in describe(sample_scene(0, index, "train"))]
    make_vocabularies(captions, folder / "vocabularies")
    config = small_config(*open_vocabularies(folder / "vocabularies", TEXT_TOKENS, 24).sizes)
    torch.manual_seed(0)
    modules = {
        "flows": FourFlows(config.flows),
        "autokl": make_autokl(config.autokl),
        "optimus": Optimus(config.optimus),
        "clip": make_clip(config.clip),
    }
    weights = {part: module.state_dict() for part, module in modules.items()}
    write_backbone(folder / "random", config.to_json(), weights, folder / "vocabularies", {})
    (folder / "settings.toml").write_text(SETTINGS)
    return folder


def test_run_over_a_settings_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(folder / "settings.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "SIMULATED SCANS" in shown.out
    assert re.search(r"PixCorr .* +4$", shown.out, re.MULTILINE)
    assert f"Page, open it in a browser: {tmp_path}/run/report.html" in shown.out
    assert "A page of chance" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for bar in ("reading betas", "extract latents", "rescale latents", "decode pictures", "decode captions", "scores"):
        assert bar in shown.err
    first = load_decoded(tmp_path / "run" / "decoded")
    assert first.pictures.shape == (4, 64, 64, 3)

    assert main(command) == 0
    assert capsys.readouterr().err.count(": up to date\n") == 7

    # One by one, with another batch size: the same pictures and captions.
    (tmp_path / "run" / ".stages" / "reconstruct.json").unlink()
    assert main(["reconstruct", str(tmp_path / "run"), "--batch-size", "3", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == f"Next: unibrain evaluate {tmp_path / 'run'}"
    again = load_decoded(tmp_path / "run" / "decoded")
    assert again.captions == first.captions
    assert abs(again.pictures.astype(int) - first.pictures).max() <= 1


def test_a_backbone_that_is_not_there(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS.replace('"random"', '"absent"'))
    assert main(["run", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"Error: {tmp_path / 'absent'}")

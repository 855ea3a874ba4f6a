"""docs/own-data.md does what it says: its code and commands are run in order."""

import json
import re
from pathlib import Path

import pytest
from fake_backbone import FakeBackbone

from unibrain.cli.main import main
from unibrain.pipeline import BackboneSource

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"


def test_the_worked_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBackbone()
    monkeypatch.setattr(BackboneSource, "load", lambda self, name: fake)
    monkeypatch.setattr(BackboneSource, "facts", lambda self, name: {"backbone": fake.fingerprint})
    monkeypatch.chdir(tmp_path)
    commands, blocks = [], re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for language, block in blocks:
        if language:
            exec(compile(block, str(PAGE), "exec"), {})
        for line in block.splitlines():
            if line.startswith("unibrain "):
                assert main(line.split()[1:]) == 0, line
                commands.append(line.split()[1])
    assert commands == ["import", "extract", "fit", "reconstruct", "evaluate", "report"]
    assert Path("my-run/decoded/000044.png").is_file()
    entry = json.loads(Path("my-run/stimuli/stimuli.json").read_text())["pictures"][44]
    assert entry["file"] == "scene44.png"
    scores = json.loads(Path("my-run/scores.json").read_text())
    assert scores["simulated"]
    assert scores["images"] == 10
    assert scores["metrics"]["pixcorr"]["value"] > scores["metrics"]["pixcorr"]["control"]

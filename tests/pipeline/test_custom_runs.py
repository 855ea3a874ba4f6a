"""A laboratory's own data through the whole pipeline, with captions and without."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import cheaply, command, custom_settings, toy

from toy_backbone import ToyBackbone
from unibrain.audit import load_audit
from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.latents import load_latents
from unibrain.pipeline import BackboneSource, RunFolder, kept_settings, run_all, run_one
from unibrain.reconstruction import load_decoded
from unibrain.scans import load_subject

PAGE = Path(__file__).parents[2] / "docs" / "custom-data.md"


@pytest.fixture(scope="module")
def silent(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, BackboneSource]:
    run, source = RunFolder(tmp_path_factory.mktemp("runs") / "silent"), toy()
    with cheaply():
        run_all(run, custom_settings(export, "silent.csv"), source)
    return run, source


def test_with_captions_all_is_as_for_nsd(spoken: RunFolder) -> None:
    subject = load_subject(spoken.artefact("subject"))
    assert (subject.name, subject.simulated) == ("lab-1", True)
    assert list(subject.regions) == ["early"]
    assert subject.is_test.sum() == 6
    decoded = load_decoded(spoken.artefact("decoded"))
    assert set(decoded.stimulus_ids) == set(subject.test.stimulus_ids)
    assert decoded.captions is not None
    assert all(decoded.captions)
    scores = json.loads(spoken.artefact("scores").read_text())
    assert scores["metrics"]["rouge1"]["value"] is not None
    assert {entry["latent"] for entry in scores["latent_accuracy"]} == {"z_image", "z_text", "c_image", "c_text"}
    assert scores["provenance"]["split"]["preparation"]["source"] == "custom data"
    assert list(scores["provenance"]["stages"]) == ["prepare", "extract", "fit", "reconstruct", "controls"]


def test_without_captions_pictures_are_decoded_and_everything_says_so(
    silent: tuple[RunFolder, BackboneSource], spoken: RunFolder
) -> None:
    run, source = silent
    assert not [call for call in source.load("toy").calls if "caption" in call]  # type: ignore[attr-defined]
    decoded = load_decoded(run.artefact("decoded"))
    assert decoded.captions is None
    np.testing.assert_array_equal(decoded.stimulus_ids, load_decoded(spoken.artefact("decoded")).stimulus_ids)
    assert set(load_latents(run.artefact("latents"))) == {"z_image", "c_image"}
    about = json.loads(run.artefact("scores").read_text())
    for name in ("meteor", "rouge1", "rougeL", "two_way_caption"):
        assert about["metrics"][name]["value"] is None
        assert about["metrics"][name]["note"]
    assert about["metrics"]["pixcorr"]["value"] > 0.2
    assert {entry["latent"] for entry in about["latent_accuracy"]} == {"z_image", "c_image"}
    assert set(about["provenance"]["alpha"]) == {"z_image", "c_image"}
    assert list(about["provenance"]["sampling"]) == ["picture"]
    assert about["provenance"]["sampling"]["picture"]["image_weight"] == 1
    page = run.artefact("report").read_text()
    assert "No captions were given with these pictures" in page


def test_without_captions_no_weight_of_theirs_can_be_asked_for(silent: tuple[RunFolder, BackboneSource]) -> None:
    run, _ = silent
    with pytest.raises(InputError, match=r"image_weight_pictures is 0\.6, and no captions were given"):
        command(run, "reconstruct", image_weight_pictures=0.6)


def test_nothing_is_done_twice_and_a_changed_split_is_seen(spoken: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(spoken.root, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert all(result.skipped for result in run_all(run, kept_settings(run), toy()))
    assert not command(run, "prepare", split_seed=1).skipped
    assert not command(run, "prepare", split_seed=0).skipped


def test_the_command_keeps_its_settings_and_a_mistyped_one_leaves_nothing(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["import", str(run), "--scans", str(export / "betas.npy"), "--simulated", "--test-share", "0.2"]
    arguments += ["--pictures", str(export / "shown")]
    assert main(arguments) == 2
    assert "table" in capsys.readouterr().err
    assert not run.exists()
    region = f"early={export / 'early.npy'}"
    assert main([*arguments, "--table", str(export / "silent.csv"), "--region", region]) == 0
    shown = capsys.readouterr()
    assert f"Next: unibrain extract {run}" in shown.out
    assert "the caption side is switched off" in shown.err
    assert "30 of 30 scans, 50 voxels, 30 pictures of 64 x 64 pixels; split: drawn by picture with seed 0" in shown.err
    custom = kept_settings(RunFolder(run)).custom
    assert custom is not None
    assert custom.region_files() == {"early": export / "early.npy"}
    assert main(["prepare", str(run)]) == 0
    assert "up to date" in capsys.readouterr().err
    assert main(["prepare", str(run), "--mask", "V1"]) == 2
    assert "[custom] and mask" in capsys.readouterr().err


def test_custom_data_can_be_audited_without_the_files_they_came_from(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "lab")
    run = RunFolder(tmp_path / "run")
    settings = custom_settings(tmp_path / "lab", "silent.csv")
    run_one("prepare", run, settings, toy())
    run_one("audit", run, settings, toy())
    found = load_audit(run.artefact("audit"))
    assert [entry.trials for entry in found.sessions] == [30]
    shutil.rmtree(tmp_path / "lab")
    run.record("audit").unlink()
    run_one("audit", run, settings, toy())
    assert load_audit(run.artefact("audit")).sessions == (), "it can be looked at without the files it came from"


def test_the_worked_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code and commands of the page are run in their order."""
    network = ToyBackbone()
    monkeypatch.setattr(BackboneSource, "load", lambda self, name: network)
    monkeypatch.setattr(BackboneSource, "fingerprint", lambda self, name: network.fingerprint)
    monkeypatch.chdir(tmp_path)
    commands, blocks = [], re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for language, block in blocks:
        if language:
            exec(compile(block, str(PAGE), "exec"), {})
        for line in block.splitlines():
            if line.startswith("unibrain "):
                assert main(line.split()[1:]) == 0, line
                commands.append(line.split()[1])
    assert commands == ["import", "extract", "fit", "reconstruct", "controls", "evaluate", "report"]
    assert Path("my-run/decoded/000044.png").is_file()
    scores = json.loads(Path("my-run/scores.json").read_text())
    assert scores["simulated"]
    assert scores["images"] == 10
    assert scores["metrics"]["pixcorr"]["value"] > scores["metrics"]["pixcorr"]["control"]

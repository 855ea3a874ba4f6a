"""No command works on what an older setting, file or version made: it names the stage to run."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import SETTINGS, cheaply, command, custom_settings, edit, toy

from unibrain.errors import InputError
from unibrain.pipeline import (
    STAGES,
    PrepareSection,
    RunFolder,
    Settings,
    demo_settings,
    kept_settings,
    run_all,
    run_one,
)
from unibrain.workspace import fingerprints
from unibrain.workspace.stages import read_record


def refused(run: RunFolder, name: str, by: str, why: str = "") -> None:
    """Running `name` is refused until `by` has run."""
    before = read_record(run, name)
    sentence = rf"{re.escape(str(run.root))}: {name} needs {by}, which is not up to date \(.*{why}.*unibrain {by} "
    with pytest.raises(InputError, match=sentence):
        command(run, name)
    assert read_record(run, name) == before


def test_no_page_says_control_over_the_scores_of_a_decoder(run: RunFolder) -> None:
    command(run, "fit", shuffle_scans=True)
    refused(run, "evaluate", "reconstruct")
    refused(run, "report", "reconstruct")
    for name in ("reconstruct", "controls", "evaluate", "report"):
        command(run, name)
    assert "This run is a control" in run.artefact("report").read_text()
    edit(run, "shuffle_scans = true", "shuffle_scans = false")
    refused(run, "report", "fit", "shuffle_scans changed from True to False")


def test_scores_do_not_record_a_strength_that_nothing_was_drawn_with(run: RunFolder) -> None:
    edit(run, "# strength =", "strength = 0.5")
    refused(run, "evaluate", "reconstruct", "strength changed from None to 0.5")
    command(run, "reconstruct")
    command(run, "controls")
    command(run, "evaluate")
    about = json.loads(run.artefact("scores").read_text())["provenance"]
    assert about["settings"]["reconstruct"]["strength"] == about["sampling"]["picture"]["strength"] == 0.5


def test_no_stage_goes_on_without_the_settings_of_its_run(run: RunFolder) -> None:
    run.settings.write_bytes(b"")
    for name in STAGES:
        with pytest.raises(InputError, match=rf"{run.settings}: it is missing or empty"):
            command(run, name)


def test_provenance_is_that_of_the_stages_and_not_of_the_settings_file(run: RunFolder) -> None:
    edit(run, "memory = 2.0", "memory = 1.0")
    edit(run, "[evaluate]\n", "[evaluate]\n# edited by hand\n")
    command(run, "evaluate", seed=5)
    about = json.loads(run.artefact("scores").read_text())["provenance"]
    for name in ("simulate", "prepare", "extract", "fit", "reconstruct"):
        record = read_record(run, name)
        assert record is not None
        assert about["settings"][name] == record.settings
        assert about["stages"][name] == asdict(record.provenance)
    assert about["settings"]["evaluate"] == {"seed": 5, "dialect": "standard", "protocol": "none"}
    assert "memory" not in about["settings"]["fit"]


@pytest.mark.parametrize(
    ("package", "first"),
    [("demo", "simulate"), ("scans", "prepare"), ("latents", "extract"), ("regression", "fit"), ("report", "report")],
)
def test_another_version_of_the_code_is_noticed(
    run: RunFolder, package: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fingerprints._code_of
    monkeypatch.setattr(fingerprints, "_code_of", lambda place: real(place) + "x" * (place.name == package))
    if first == "report":
        assert not command(run, "report").skipped
        return
    refused(run, "report", first, "another version of the code")
    results = {result.name: result.skipped for result in run_all(run, SETTINGS, toy())}
    assert not results[first]
    # Made anew with the same result, it makes nothing stale but what the package computes as well.
    assert [name for name in ("extract", "fit") if not results[name]] == {
        "latents": ["extract", "fit"],
        "regression": ["fit"],
    }.get(package, [])
    assert all(result.skipped for result in run_all(run, SETTINGS, toy()))


@pytest.fixture(scope="module")
def real(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on a tree in NSD's layout that lies beside it; who changes the tree puts it back."""
    root = tmp_path_factory.mktemp("real")
    shutil.copytree(finished.artefact("nsd"), root / "archive")
    run = RunFolder(root / "run")
    with cheaply():
        run_all(run, Settings(prepare=PrepareSection(root=str(root / "archive"))), toy())
    return run


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


WATCHED: list[tuple[str, Callable[[Path], None], str]] = [
    ("**/responses.tsv", Path.unlink, "prepare"),
    ("**/SIMULATED.json", Path.unlink, "prepare"),
    ("**/*prf-visualrois.mgz.ctab", cut, "prepare"),
    ("**/nsd_expdesign.mat", lambda path: path.write_bytes(path.read_bytes() + b" "), "prepare"),
    ("**/betas_session02.hdf5", lambda path: path.write_bytes(path.read_bytes()[:-1]), "prepare"),
    ("**/captions_train2017.json", lambda path: path.write_text(path.read_text() + " "), "extract"),
    ("**/nsd_stimuli.hdf5", lambda path: path.write_bytes(path.read_bytes() + b" "), "extract"),
]


def test_every_file_that_is_read_is_watched(real: RunFolder) -> None:
    for pattern, change, stage in WATCHED:
        path = next((real.root.parent / "archive").glob(pattern))
        content = path.read_bytes()
        change(path)
        refused(real, "fit", stage)
        refused(real, "report", stage)
        path.write_bytes(content)
    command(real, "prepare")  # compares large files by their time


def test_a_run_can_be_looked_at_where_its_archive_is_not(real: RunFolder) -> None:
    archive = real.root.parent / "archive"
    archive.rename(archive.with_name("elsewhere"))
    assert command(real, "fit").skipped
    assert command(real, "reconstruct").skipped
    with pytest.raises(InputError, match=str(archive)):
        command(real, "prepare")


def test_latents_of_other_pictures_are_not_used_after_importing_again(export: Path, tmp_path: Path) -> None:
    run, data = RunFolder(tmp_path / "run"), tmp_path / "lab"
    shutil.copytree(export, data)
    run_all(run, custom_settings(data), toy())
    after_extract = ("fit", "reconstruct", "controls", "evaluate", "report")
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(data / "shown" / "03.png")
    refused(run, "evaluate", "prepare")
    command(run, "prepare")
    refused(run, "evaluate", "extract")
    (data / "shown" / "20.png").rename(data / "shown" / "0a.png")  # ids are ranks: most move by one
    with (data / "trials.csv").open(newline="") as file:
        rows = [[cell.replace("20.png", "0a.png") for cell in row] for row in csv.reader(file)]
    with (data / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for name in after_extract:
        refused(run, name, "prepare")
    command(run, "prepare")
    for name in after_extract:
        refused(run, name, "extract")


def test_an_audit_of_another_state_is_not_shown(run: RunFolder) -> None:
    command(run, "prepare", zscore="session")
    refused(run, "report", "extract")
    for name in ("extract", "fit", "reconstruct", "controls", "evaluate"):
        command(run, name)
    refused(run, "report", "audit", "subject changed")
    assert not command(run, "audit").skipped
    command(run, "report")
    edit(run, 'zscore = "session"', 'zscore = "none"')
    refused(run, "audit", "prepare")


def test_settings_of_a_refused_command_are_not_kept(run: RunFolder) -> None:
    command(run, "prepare", zscore="none")
    kept = run.settings.read_bytes()
    with pytest.raises(InputError, match="needs extract"):
        command(run, "fit", alpha=3.0)
    assert run.settings.read_bytes() == kept


@pytest.mark.parametrize("name", STAGES)
def test_a_mistyped_run_leaves_no_folder_behind(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "mistyped")
    settings = Settings() if name != "prepare" else Settings(prepare=PrepareSection(root=str(tmp_path / "absent")))
    if name == "simulate":
        settings = Settings(prepare=PrepareSection(root=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="absent" if name in ("simulate", "prepare") else str(run.root)):
        run_one(name, run, settings, toy())
    assert not run.root.exists()


def test_a_demo_does_not_replace_a_run_on_custom_data(spoken: RunFolder) -> None:
    before = spoken.artefact("subject").read_bytes()
    with pytest.raises(InputError, match=rf"{spoken.root}: this folder holds a run on your own data"):
        run_all(spoken, demo_settings(images=2, training_images=4), toy())
    assert spoken.artefact("subject").read_bytes() == before
    assert kept_settings(spoken).custom is not None


def test_a_custom_run_does_not_replace_a_demo(run: RunFolder, export: Path) -> None:
    with pytest.raises(InputError, match="holds a run on a simulated subject"):
        run_all(run, custom_settings(export), toy())


def test_artefacts_have_the_mode_that_the_user_asked_for(finished: RunFolder) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    for path in finished.root.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path

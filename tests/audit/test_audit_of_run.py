"""The audit of a run folder, of a simulated subject and of custom data, and its place on the page."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from toy_backbone import ToyBackbone
from unibrain.audit import Audit, load_audit
from unibrain.cli.main import main
from unibrain.demo import render, sample_scene
from unibrain.errors import InputError
from unibrain.latents import load_latents
from unibrain.pipeline import (
    BackboneSource,
    CustomSection,
    PrepareSection,
    RunFolder,
    Settings,
    SimulateSection,
    run_all,
    run_one,
)
from unibrain.scans import load_subject, split_hash

SETTINGS = Settings(simulate=SimulateSection(training_images=30, test_images=6, sessions=2))
SOURCE = BackboneSource(loaded=ToyBackbone())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "finished")
    run_all(run, SETTINGS, SOURCE)
    return run


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def audited(run: RunFolder, settings: Settings, betas: bool | None = None) -> Audit:
    return load_audit(run_one("audit", run, settings, SOURCE, audit_betas=betas).outputs[0])


def test_a_simulated_run_is_audited_with_its_latents_and_the_page_shows_it(finished: RunFolder) -> None:
    found = load_audit(finished.artefact("audit"))
    subject = load_subject(finished.artefact("subject"))
    assert (found.subject, found.simulated, found.split) == ("subj01", True, split_hash(subject))
    assert [entry.session for entry in found.sessions] == [1, 2]
    assert found.finding("sessions").details["used"] == [1, 2]
    assert found.finding("prepared betas").level == "ok"

    first = load_latents(finished.artefact("latents")).select(subject.stimulus_ids)["c_image"][:, 0]
    distance = cdist(first[subject.is_test], first[~subject.is_test], "cosine")
    assert found.neighbours is not None
    cosines = {pair.test_id: pair.similarity for pair in found.neighbours.pairs}
    expected = dict(zip(subject.stimulus_ids[subject.is_test].tolist(), 1 - distance.min(axis=1), strict=True))
    assert cosines == pytest.approx(expected, abs=2e-4)

    page = finished.artefact("report").read_text(encoding="utf-8")
    assert f"test {found.pictures[0].test_id}" in page
    assert all(finding.title in page for finding in found.findings)


def test_an_audit_is_not_made_twice_and_the_page_does_not_show_an_old_one(run: RunFolder) -> None:
    assert run_one("audit", run, SETTINGS, SOURCE).skipped
    assert not run_one("audit", run, SETTINGS, SOURCE, audit_betas=False).skipped
    assert run_one("audit", run, SETTINGS, SOURCE).skipped  # as it did last
    assert not run_one("report", run, SETTINGS, SOURCE).skipped
    assert run_one("report", run, SETTINGS, SOURCE).skipped

    content = json.loads(run.artefact("audit").read_text(encoding="utf-8"))
    run.artefact("audit").write_text(json.dumps(content | {"split": "0" * 64}), encoding="utf-8")
    with pytest.raises(InputError, match="unibrain audit"):
        run_one("report", run, SETTINGS, SOURCE)

    shutil.rmtree(run.artefact("latents"))
    advice = audited(run, SETTINGS).finding("overlap in meaning").advice
    assert f"unibrain extract {run.root}" in advice


def test_a_caption_that_is_lost_after_preparing_is_named(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.artefact("nsd"), tmp_path / "nsd")
    other, settings = RunFolder(tmp_path / "other"), Settings(prepare=PrepareSection(root=str(tmp_path / "nsd")))
    run_one("prepare", other, settings)
    path = next((tmp_path / "nsd").rglob("captions_train2017.json"))
    content = json.loads(path.read_text(encoding="utf-8"))
    lost = content["annotations"][0]["image_id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != lost]
    path.write_text(json.dumps(content), encoding="utf-8")
    finding = audited(other, settings).finding("captions")
    assert (finding.level, len(finding.details["without"])) == ("problem", 1)


def custom_data(folder: Path, captions: bool) -> CustomSection:
    """Twelve pictures, two of them nearly the same on both sides, in two sessions.

    A voxel is silent in the second session; the scans of the first picture are the same.
    """
    (folder / "pictures").mkdir(parents=True)
    scenes = [render(sample_scene(2, number, "train")) for number in range(12)]
    scenes[11] = np.clip(scenes[0] * 1.1 + 8, 0, 255).astype(np.uint8)
    for number, scene in enumerate(scenes):
        Image.fromarray(scene).save(folder / "pictures" / f"{number:02d}.png")
    betas = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    betas[12:, 3] = 0
    betas[0, 3] = 0
    betas[12] = betas[0]
    np.save(folder / "scans.npy", betas)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["scan_from_0", "picture", "session", "split", *["captions"] * captions])
        for scan in range(24):
            number = scan % 12
            text = [f"scene {number}|another of {number}"] * captions
            rows.writerow([scan, f"{number:02d}.png", "ab"[scan // 12], "test" if number >= 9 else "train", *text])
    files = {"scans": "scans.npy", "pictures": "pictures", "table": "table.csv"}
    return CustomSection(**{name: str(folder / file) for name, file in files.items()})


@pytest.mark.parametrize("captions", [True, False])
def test_custom_data_are_audited_as_well(tmp_path: Path, captions: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run, settings = RunFolder(tmp_path / "run"), Settings(custom=custom_data(tmp_path / "data", captions))
    run_one("prepare", run, settings)
    assert main(["audit", str(run.root)]) == 1
    assert "session 2 trial 1" in capsys.readouterr().out
    found = load_audit(run.artefact("audit"))
    assert [(entry.trials, entry.training, entry.zero) for entry in found.sessions] == [(12, 9, 0), (12, 9, 1)]
    assert found.finding("single scans").details == {"empty": [], "same": [[[1, 1], [2, 1]]]}
    assert found.finding("near duplicates").details["pairs"][0][:2] == [11, 0]
    assert found.finding("repeats").details == {"training": {"2": 9}, "test": {"2": 3}}
    about = found.finding("captions")
    assert (about.level, about.details["captions"]) == ("note", 24 * captions)
    assert found.finding("noise ceiling").what == "not known for any voxel"

    shutil.rmtree(tmp_path / "data")
    run.record("audit").unlink()
    assert audited(run, settings).finding("voxels in sessions").level == "note"

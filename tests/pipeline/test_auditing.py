import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_backbone import FakeBackbone
from PIL import Image
from scipy.spatial.distance import cdist

from unibrain.audit import load_audit
from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.latents import load_latents
from unibrain.pipeline import (
    BackboneSource,
    PrepareSection,
    RunFolder,
    Settings,
    SimulateSection,
    audit,
    run_all,
    run_one,
)
from unibrain.pipeline.own_section import OwnSection
from unibrain.pipeline.settings_file import write_settings
from unibrain.pipeline.stages import kept_settings
from unibrain.scans import load_subject, split_hash
from unibrain.demo import render, sample_scene
from unibrain.workspace.fingerprints import fingerprint

SETTINGS = Settings(simulate=SimulateSection(training_images=30, test_images=6, sessions=2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "finished")
    run_all(run, SETTINGS, BackboneSource(loaded=FakeBackbone()))
    return run


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_is_audited_with_its_latents_and_the_report_shows_it(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Audit of" not in run.artefact("report").read_text(encoding="utf-8")
    assert main(["audit", str(run.root), "--threads", "1"]) == 0
    assert "overlap in meaning" in capsys.readouterr().out
    found = load_audit(run.artefact("audit"))
    subject = load_subject(run.artefact("subject"))
    assert (found.subject, found.simulated, found.split) == ("subj01", True, split_hash(subject))
    assert [entry.session for entry in found.sessions] == [1, 2]
    assert found.finding("sessions").numbers["used"] == [1, 2]
    assert found.finding("prepared betas").level == "ok"

    latents = load_latents(run.artefact("latents")).select(subject.stimulus_ids)
    first = latents["c_image"][:, 0]
    distance = cdist(first[subject.is_test], first[~subject.is_test], "cosine")
    assert found.neighbours is not None
    cosines = {pair.test_id: pair.similarity for pair in found.neighbours.pairs}
    expected = dict(zip(subject.stimulus_ids[subject.is_test].tolist(), 1 - distance.min(axis=1), strict=True))
    assert cosines == pytest.approx(expected, abs=2e-4)

    result = run_one("report", run, kept_settings(run))
    assert not result.skipped
    page = run.artefact("report").read_text(encoding="utf-8")
    assert "Audit of simulated scans and images" in page
    assert "How near is the nearest training image in meaning?" in page
    assert f"test {found.pictures[0].test_id}" in page
    assert run_one("report", run, kept_settings(run)).skipped


def test_an_audit_is_not_made_twice_and_not_shown_with_another_split(run: RunFolder) -> None:
    assert not audit(run, betas=False).skipped
    assert audit(run, betas=False).skipped
    assert not audit(run, betas=False, near_duplicate=0.8).skipped
    assert load_audit(run.artefact("audit")).near_duplicate == 0.8
    shutil.rmtree(run.artefact("latents"))
    assert not audit(run, betas=False).skipped
    assert f"unibrain extract {run.root}" in load_audit(run.artefact("audit")).finding("overlap in meaning").remedy

    content = json.loads(run.artefact("audit").read_text(encoding="utf-8"))
    record = json.loads(run.record("audit").read_text(encoding="utf-8"))
    content["split"] = "0" * 64
    run.artefact("audit").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="unibrain audit"):
        run_one("report", run, kept_settings(run))
    record["outputs"]["audit"] = fingerprint(run.artefact("audit"))
    run.record("audit").write_text(json.dumps(record), encoding="utf-8")
    run_one("report", run, kept_settings(run))
    assert "Audit of" not in run.artefact("report").read_text(encoding="utf-8")


def test_a_caption_that_is_lost_after_preparing_is_named(run: RunFolder) -> None:
    path = next(run.artefact("nsd").rglob("captions_train2017.json"))
    content = json.loads(path.read_text(encoding="utf-8"))
    lost = content["annotations"][0]["image_id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != lost]
    path.write_text(json.dumps(content), encoding="utf-8")
    # The simulated tree itself was changed, which a run notices before anybody reads it.
    with pytest.raises(InputError, match="unibrain simulate"):
        audit(run)
    settings = Settings(prepare=PrepareSection(root=str(run.artefact("nsd"))))
    write_settings(run.settings, settings)
    audit(run)
    finding = load_audit(run.artefact("audit")).finding("captions")
    assert finding.level == "problem"
    assert len(finding.numbers["without"]) == 1


def own_data(folder: Path, captions: bool) -> OwnSection:
    """Twelve pictures, two of them nearly the same on both sides, in two sessions; a voxel is silent in the second."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True)
    scenes = [render(sample_scene(2, number, "train")) for number in range(12)]
    scenes[11] = np.clip(scenes[0] * 1.1 + 8, 0, 255).astype(np.uint8)
    for number, scene in enumerate(scenes):
        Image.fromarray(scene).save(folder / "pictures" / f"{number:02d}.png")
    betas = rng.normal(size=(24, 5)).astype(np.float32)
    betas[12:, 3] = 0
    np.save(folder / "scans.npy", betas)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["scan_from_0", "picture", "session", "split", *["captions"] * captions])
        for scan in range(24):
            number = scan % 12
            split = "test" if number >= 9 else "train"
            text = [f"scene {number}|another of {number}"] * captions
            rows.writerow([scan, f"{number:02d}.png", "ab"[scan // 12], split, *text])
    return OwnSection(
        scans=str(folder / "scans.npy"), pictures=str(folder / "pictures"), table=str(folder / "table.csv")
    )


@pytest.mark.parametrize("captions", [True, False])
def test_own_data_are_audited_as_well(tmp_path: Path, captions: bool) -> None:
    run, settings = RunFolder(tmp_path / "run"), Settings(own=own_data(tmp_path / "data", captions))
    run_one("prepare", run, settings)
    audit(run)
    found = load_audit(run.artefact("audit"))
    assert [(entry.trials, entry.zero) for entry in found.sessions] == [(12, 0), (12, 1)]
    assert found.finding("near duplicates").numbers["pairs"][0][:2] == [11, 0]
    assert found.finding("repeats").numbers == {"training": {"2": 9}, "test": {"2": 3}}
    about = found.finding("captions")
    assert about.level == "note"
    assert ("none of 12 images" in about.found) != captions
    assert found.finding("noise ceiling").found == "not known for any voxel"

    shutil.rmtree(tmp_path / "data")
    run.record("audit").unlink()
    audit(run)
    assert load_audit(run.artefact("audit")).finding("voxels in sessions").level == "note"

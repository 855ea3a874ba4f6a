import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_backbone import FakeBackbone

from unibrain.errors import InputError
from unibrain.latents import load_latents
from unibrain.pipeline import (
    STAGES,
    BackboneSource,
    PrepareSection,
    RunFolder,
    Settings,
    SimulateSection,
    decoding_stages,
    kept_settings,
    run_all,
    run_one,
)
from unibrain.pipeline.sources import training_view
from unibrain.reconstruction import load_decoded
from unibrain.regression import BrainDecoder
from unibrain.scans import load_subject
from unibrain.scans.subject import Subject

SETTINGS = Settings(simulate=SimulateSection(training_images=30, test_images=6, sessions=2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "finished")
    results = run_all(run, SETTINGS, BackboneSource(loaded=FakeBackbone()))
    assert [result.name for result in results] == list(STAGES)
    assert not any(result.skipped for result in results)
    return run


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy to spoil."""
    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_writes_everything_it_promises(finished: RunFolder) -> None:
    decoded = load_decoded(finished.artefact("decoded"))
    assert decoded.pictures.shape == (6, 64, 64, 3)
    names = {path.name for path in finished.artefact("decoded").iterdir()}
    assert names == {"captions.json", *(f"{identity:06d}.png" for identity in decoded.stimulus_ids)}

    scores = json.loads(finished.artefact("scores").read_text(encoding="utf-8"))
    assert scores["simulated"] is True
    assert scores["images"] == 6
    for metric in scores["metrics"].values():
        assert {"value", "control", "images"} <= set(metric)
    stages = scores["provenance"]["stages"]
    assert list(stages) == ["simulate", "prepare", "extract", "fit", "reconstruct"]
    assert scores["seconds"] > sum(about["seconds"] for about in stages.values()) - 0.1
    assert scores["peak_memory_gb"] >= max(about["peak_memory_mb"] for about in stages.values()) / 1000 - 0.001
    assert scores["provenance"]["settings"]["sampling of pictures"]["image_weight"] == 0.6

    page = finished.artefact("report").read_text(encoding="utf-8")
    assert "imulated" in page
    assert "fake" in page
    assert kept_settings(finished) == SETTINGS
    assert not finished.cache("reconstruct").exists()


def test_decoded_pictures_are_those_of_the_predicted_latents_of_unseen_scans(finished: RunFolder) -> None:
    subject = load_subject(finished.artefact("subject"))
    decoder = BrainDecoder.load(finished.artefact("decoder"))
    assert set(decoder.groups_) == set(subject.train.stimulus_ids)
    predicted = decoder.predict(subject.test.betas, subject.test.stimulus_ids)
    kept = load_latents(finished.artefact("predicted"))
    assert np.array_equal(predicted["z_image"], kept.z_image)
    expected = FakeBackbone().sample("picture", 
        predicted["z_image"], {name: predicted[name] for name in ("c_image", "c_text")}, FakeBackbone().sampling("picture"), np.zeros(6, dtype=np.int64)
    )
    assert np.array_equal(load_decoded(finished.artefact("decoded")).pictures, expected)


def test_the_second_time_nothing_is_done(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeBackbone()
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.name != ".lock"}
    assert all(result.skipped for result in run_all(run, SETTINGS, BackboneSource(loaded=fake)))
    assert fake.calls == []
    assert capsys.readouterr().err.splitlines() == [f"{name}: up to date" for name in STAGES]
    after = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.name != ".lock"}
    assert {path for path in after if path.is_file()} == {path for path in before if path.is_file()}
    assert all(after[path] == before[path] for path in after if path.is_file())


def test_what_only_changes_speed_redoes_nothing(run: RunFolder) -> None:
    faster = replace(
        SETTINGS,
        extract=replace(SETTINGS.extract, batch_size=3),
        reconstruct=replace(SETTINGS.reconstruct, batch_size=2),
    )
    source = BackboneSource(loaded=FakeBackbone())
    assert all(run_one(name, run, faster, source).skipped for name in ("extract", "reconstruct"))


def test_a_changed_alpha_redoes_the_fit_and_what_follows_but_not_what_came_before(run: RunFolder) -> None:
    changed, source = replace(SETTINGS, fit=replace(SETTINGS.fit, alpha=1e9)), BackboneSource(loaded=FakeBackbone())
    before = load_decoded(run.artefact("decoded")).pictures
    skipped = {name: run_one(name, run, changed, source).skipped for name in list(STAGES)[:5]}
    assert skipped == {"simulate": True, "prepare": True, "extract": True, "fit": False, "reconstruct": False}
    assert not np.array_equal(load_decoded(run.artefact("decoded")).pictures, before)


def test_the_page_says_when_statistics_of_the_test_set_were_used(run: RunFolder) -> None:
    warning = "rescaled with statistics of the test set"
    assert warning not in run.artefact("report").read_text(encoding="utf-8")
    settings = replace(SETTINGS, fit=replace(SETTINGS.fit, rescale="test"))
    run_all(run, settings, BackboneSource(loaded=FakeBackbone()))
    assert warning in run.artefact("report").read_text(encoding="utf-8")


def test_a_damaged_artefact_is_made_again_and_nothing_else(run: RunFolder) -> None:
    path = run.artefact("latents") / "z_text.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\1\2\3")
    source = BackboneSource(loaded=FakeBackbone())
    with pytest.raises(InputError, match=r"latents was changed or damaged.*unibrain extract"):
        run_one("fit", run, SETTINGS, source)
    results = run_all(run, SETTINGS, source)
    assert [result.name for result in results if not result.skipped] == ["extract"]
    assert path.read_bytes() == whole


def test_a_stopped_reconstruction_continues_at_the_item(run: RunFolder) -> None:
    shutil.rmtree(run.artefact("decoded"))
    small = replace(SETTINGS, reconstruct=replace(SETTINGS.reconstruct, batch_size=2))
    stopped = FakeBackbone(stop_at_caption=1)
    with pytest.raises(KeyboardInterrupt):
        run_one("reconstruct", run, small, BackboneSource(loaded=stopped))
    assert stopped.calls == ["sample picture 2"] * 3 + ["sample caption 2"] * 2
    assert not run.artefact("decoded").exists()

    again = FakeBackbone()
    assert not run_one("reconstruct", run, small, BackboneSource(loaded=again)).skipped
    assert again.calls == ["sample caption 2"] * 2
    assert run_all(run, small, BackboneSource(loaded=again))[5].skipped, "decoded as if it had not been stopped"


def test_latents_of_other_weights_are_not_decoded(run: RunFolder) -> None:
    other = BackboneSource(loaded=FakeBackbone("other"))
    with pytest.raises(InputError, match=r"latents come from other weights.*unibrain extract"):
        run_one("reconstruct", run, SETTINGS, other)
    skipped = {name: run_one(name, run, SETTINGS, other).skipped for name in list(STAGES)[:5]}
    assert skipped["prepare"]
    assert not skipped["extract"]
    assert not skipped["reconstruct"]


def test_an_unseen_image_that_was_in_training_is_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(subject: Subject, settings: Settings) -> Subject:
        return replace(subject, is_test=np.zeros_like(subject.is_test))

    monkeypatch.setattr(decoding_stages, "training_view", all_of_it)
    run.record("fit").unlink()
    source = BackboneSource(loaded=FakeBackbone())
    run_one("fit", run, SETTINGS, source)
    with pytest.raises(InputError, match=r"image id \d+ \(6 in all\) is to be decoded and was in training"):
        run_one("reconstruct", run, SETTINGS, source)


def test_a_full_disk_changes_nothing(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in run.artefact("latents").iterdir()}
    run.record("extract").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(InputError, match="latents: no space left on the disk"):
            run_one("extract", run, SETTINGS, BackboneSource(loaded=FakeBackbone()))
    assert {path.name: path.read_bytes() for path in run.artefact("latents").iterdir()} == before
    run_one("extract", run, SETTINGS, BackboneSource(loaded=FakeBackbone()))
    assert run_one("fit", run, SETTINGS).skipped


def test_real_scans_are_read_from_their_own_folder_and_watched(finished: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(finished.artefact("nsd"), tmp_path / "archive")
    run, settings = RunFolder(tmp_path / "run"), Settings(prepare=PrepareSection(root=str(tmp_path / "archive")))
    run_one("prepare", run, settings)
    assert run.artefact("subject").read_bytes() == finished.artefact("subject").read_bytes()
    assert run_one("prepare", run, settings).skipped
    run_one("extract", run, settings, BackboneSource(loaded=FakeBackbone()))
    assert not run.artefact("nsd").exists()
    next((tmp_path / "archive").rglob("betas_session02.*")).touch()
    assert not run_one("prepare", run, settings).skipped
    (tmp_path / "archive").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="is not there, expected the folder of the betas: check the path in"):
        run_one("prepare", run, settings)


def test_a_run_without_scans_says_how_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names no scans.*--root FOLDER.*unibrain simulate"):
        run_one("prepare", RunFolder(tmp_path / "run"), Settings())
    with pytest.raises(InputError, match=r"no section \[simulate\]"):
        run_one("simulate", RunFolder(tmp_path / "run"), Settings())


def test_shuffled_scans_are_the_same_scans_at_other_images(finished: RunFolder) -> None:
    subject = load_subject(finished.artefact("subject"))
    assert training_view(subject, SETTINGS) is subject
    shuffled = training_view(subject, replace(SETTINGS, fit=replace(SETTINGS.fit, shuffle_scans=True)))
    assert np.array_equal(shuffled.stimulus_ids, subject.stimulus_ids)
    assert np.array_equal(shuffled.test.betas, subject.test.betas)
    moved = (shuffled.train.betas != subject.train.betas).any(axis=1)
    assert moved.mean() > 0.8
    order = np.lexsort(subject.train.betas.T), np.lexsort(shuffled.train.betas.T)
    assert np.array_equal(subject.train.betas[order[0]], shuffled.train.betas[order[1]])

"""Runs on a tiny simulated subject and the toy backbone, from scans to the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import SETTINGS, command, toy
from scipy.spatial.distance import cdist

from toy_backbone import ToyBackbone
from unibrain.audit import load_audit
from unibrain.errors import InputError
from unibrain.latents import load_latents
from unibrain.pipeline import STAGES, RunFolder, Settings, kept_settings, run_all, run_one, stages, write_weights
from unibrain.pipeline.stages import training_view
from unibrain.reconstruction import load_decoded
from unibrain.regression import BrainDecoder, export_weights
from unibrain.scans import Subject, load_subject, split_hash


def test_a_run_writes_everything_it_promises(finished: RunFolder) -> None:
    decoded = load_decoded(finished.artefact("decoded"))
    assert decoded.pictures is not None
    assert decoded.pictures.shape == (6, 64, 64, 3)

    scores = json.loads(finished.artefact("scores").read_text(encoding="utf-8"))
    assert scores["simulated"] is True
    assert scores["images"] == 6
    for metric in scores["metrics"].values():
        assert {"value", "control", "images"} <= set(metric)
    done = scores["provenance"]["stages"]
    assert list(done) == ["simulate", "prepare", "extract", "fit", "reconstruct", "controls"]
    assert scores["seconds"] > sum(about["seconds"] for about in done.values()) - 0.1
    assert scores["peak_memory_gb"] >= max(about["peak_memory_mb"] for about in done.values()) / 1000 - 0.001
    assert scores["provenance"]["sampling"]["picture"]["image_weight"] == 0.6

    page = finished.artefact("report").read_text(encoding="utf-8")
    assert "imulated" in page
    assert "toy" in page
    assert kept_settings(finished) == SETTINGS
    assert not finished.cache("reconstruct").exists()


def test_decoded_pictures_are_those_of_the_predicted_latents_of_unseen_scans(finished: RunFolder) -> None:
    subject = load_subject(finished.artefact("subject"))
    decoder = BrainDecoder.load(finished.artefact("decoder"))
    assert set(decoder.groups_) == set(subject.train.stimulus_ids)
    predicted = decoder.predict(subject.test.betas, subject.test.stimulus_ids)
    kept = load_latents(finished.artefact("predicted"))
    assert list(kept) == list(predicted)
    assert all(np.array_equal(predicted[name], kept[name]) for name in kept)
    network = ToyBackbone()
    contexts = {name: predicted[name] for name in ("c_image", "c_text")}
    expected = network.sample("picture", predicted["z_image"], contexts, network.sampling("picture"), np.zeros(6, int))
    found = load_decoded(finished.artefact("decoded")).pictures
    assert found is not None
    assert np.abs(found.astype(int) - expected).max() < 20, "but for the noise of each image's own seed"


def test_the_second_time_nothing_is_done(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    def times() -> dict[Path, int]:
        files = (path for path in run.root.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before, source = times(), toy()
    assert all(result.skipped for result in run_all(run, SETTINGS, source))
    assert source.load("toy").calls == []  # type: ignore[attr-defined]
    assert capsys.readouterr().err.splitlines() == [f"{name}: up to date" for name in STAGES]
    assert times() == before


def test_what_only_changes_speed_redoes_nothing(run: RunFolder) -> None:
    assert command(run, "extract", batch_size=3).skipped
    assert command(run, "reconstruct", batch_size=2).skipped


def test_a_changed_alpha_redoes_the_fit_and_what_follows_but_not_what_came_before(run: RunFolder) -> None:
    before = load_decoded(run.artefact("decoded")).pictures
    changed = SETTINGS.changed("fit", {"alpha": 1.0}, where="--")
    skipped = {result.name for result in run_all(run, changed, toy()) if result.skipped}
    assert skipped == {"simulate", "prepare", "extract", "audit"}
    assert not np.array_equal(load_decoded(run.artefact("decoded")).pictures, before)


def test_the_page_says_when_statistics_of_the_test_set_were_used(run: RunFolder) -> None:
    warning = "rescaled with statistics of the test set"
    assert warning not in run.artefact("report").read_text(encoding="utf-8")
    run_all(run, SETTINGS.changed("fit", {"rescale": "test"}, where="--"), toy())
    assert warning in run.artefact("report").read_text(encoding="utf-8")


def test_a_stopped_reconstruction_continues_at_the_batch(run: RunFolder) -> None:
    shutil.rmtree(run.artefact("decoded"))
    stopped = toy(stop=("sample caption 2", 1))
    with pytest.raises(KeyboardInterrupt):
        command(run, "reconstruct", stopped, batch_size=2)
    assert stopped.load("toy").calls == ["sample picture 2"] * 3 + ["sample caption 2"]  # type: ignore[attr-defined]
    assert not run.artefact("decoded").exists()

    again = toy()
    assert not command(run, "reconstruct", again, batch_size=2).skipped
    assert again.load("toy").calls == ["sample caption 2"] * 2  # type: ignore[attr-defined]
    assert command(run, "evaluate").skipped, "decoded as if it had not been stopped"


def test_latents_of_other_weights_are_not_decoded(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"reconstruct needs extract.*backbone changed"):
        command(run, "reconstruct", toy("other"))
    skipped = {result.name for result in run_all(run, SETTINGS, toy("other")) if result.skipped}
    assert {"simulate", "prepare"} <= skipped
    assert not {"extract", "reconstruct", "evaluate"} & skipped


def test_an_unseen_image_that_was_in_training_is_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(subject: Subject, settings: Settings) -> Subject:
        return replace(subject, is_test=np.zeros_like(subject.is_test))

    monkeypatch.setattr(stages, "training_view", all_of_it)
    run.record("fit").unlink()
    command(run, "fit")
    with pytest.raises(InputError, match=r"image id \d+ \(6 in all\) is to be decoded and was in training"):
        command(run, "reconstruct")


def test_shuffled_scans_are_the_same_scans_at_other_images(finished: RunFolder) -> None:
    subject = load_subject(finished.artefact("subject"))
    assert training_view(subject, SETTINGS) is subject
    shuffled = training_view(subject, SETTINGS.changed("fit", {"shuffle_scans": True}, where="--"))
    assert np.array_equal(shuffled.stimulus_ids, subject.stimulus_ids)
    assert np.array_equal(shuffled.test.betas, subject.test.betas)
    moved = (shuffled.train.betas != subject.train.betas).any(axis=1)
    assert moved.mean() > 0.8
    order = np.lexsort(subject.train.betas.T), np.lexsort(shuffled.train.betas.T)
    assert np.array_equal(subject.train.betas[order[0]], shuffled.train.betas[order[1]])


def test_a_run_is_audited_with_its_latents_and_the_report_shows_it(finished: RunFolder) -> None:
    found, subject = load_audit(finished.artefact("audit")), load_subject(finished.artefact("subject"))
    assert (found.subject, found.simulated, found.split) == ("subj01", True, split_hash(subject))
    assert [entry.session for entry in found.sessions] == [1, 2]
    latents = load_latents(finished.artefact("latents")).select(subject.stimulus_ids)
    first = latents["c_image"][:, 0]
    distance = cdist(first[subject.is_test], first[~subject.is_test], "cosine")
    assert found.neighbours is not None
    cosines = {pair.test_id: pair.similarity for pair in found.neighbours.pairs}
    expected = dict(zip(subject.stimulus_ids[subject.is_test].tolist(), 1 - distance.min(axis=1), strict=True))
    assert cosines == pytest.approx(expected, abs=2e-4)
    assert f"test {found.pictures[0].test_id}" in finished.artefact("report").read_text(encoding="utf-8")


def test_an_audit_leaves_latents_aside_that_are_not_current(run: RunFolder) -> None:
    settings = kept_settings(run)
    assert run_one("audit", run, settings, toy()).skipped
    assert not run_one("audit", run, settings, toy(), audit_betas=False).skipped
    assert run_one("audit", run, settings, toy()).skipped, "as it was made last"
    shutil.rmtree(run.artefact("latents"))
    assert not run_one("audit", run, settings, toy()).skipped
    assert load_audit(run.artefact("audit")).neighbours is None


def test_weights_of_regions_are_written(finished: RunFolder, tmp_path: Path) -> None:
    subject, decoder = load_subject(finished.artefact("subject")), BrainDecoder.load(finished.artefact("decoder"))
    names = list(subject.regions)[1::-1]
    rows, columns = write_weights(finished, "z_text", tmp_path / "w.npy", "1:4", names, toy())
    inside = np.flatnonzero(subject.regions[names[0]] | subject.regions[names[1]])
    expected = export_weights(decoder, "z_text")[inside, 1:4]
    assert expected.shape == (rows, columns)
    np.testing.assert_allclose(np.load(tmp_path / "w.npy", allow_pickle=False), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("targets", "regions", "named"), [("1-4", None, "1-4"), (":", ("V9",), "V9"), ("9" * 5000 + ":", None, "targets")]
)
def test_weights_that_are_not_there(
    finished: RunFolder, tmp_path: Path, targets: str, regions: tuple[str, ...] | None, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        write_weights(finished, "z_text", tmp_path / "w.npy", targets, regions, toy())
    assert not (tmp_path / "w.npy").exists()


def test_weights_of_another_subject_are_not_written(run: RunFolder, tmp_path: Path) -> None:
    command(run, "prepare", zscore="none")
    with pytest.raises(InputError, match="extract is not up to date"):
        write_weights(run, "z_text", tmp_path / "w.npy", backbone=toy())

"""Protocols through the whole pipeline, on a tiny simulated tree."""

import json
from pathlib import Path

import numpy as np
import pytest
from runs import toy

from unibrain.demo import SimulationSettings, simulate_nsd
from unibrain.latents import load_latents
from unibrain.pipeline import PrepareSection, RunFolder, Settings, SimulateSection, run_all, run_one
from unibrain.reconstruction import load_decoded
from unibrain.regression import BrainDecoder
from unibrain.scans import load_subject, split_hash
from unibrain.scans import nsd_betas as sessions

SIMULATE = SimulateSection(training_images=24, test_images=5, sessions=2)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive") / "nsd"
    simulate_nsd(root, SimulationSettings(training_images=24, test_images=5, sessions=3, grid=(8, 9, 7)))
    return root


def test_a_decoder_is_trained_on_single_trials(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    settings = Settings(simulate=SIMULATE, prepare=PrepareSection(protocol="single-trial"))
    run_all(run, settings, toy())
    subject = load_subject(run.artefact("subject"))
    assert len(set(subject.stimulus_ids)) < len(subject.stimulus_ids)
    assert len(load_latents(run.artefact("latents")).stimulus_ids) == 29, "each image is encoded once"
    decoder = BrainDecoder.load(run.artefact("decoder"))
    np.testing.assert_array_equal(decoder.groups_, subject.train.stimulus_ids)
    assert len(decoder.betas_) == subject.train.repeats.sum() > 24
    np.testing.assert_array_equal(load_decoded(run.artefact("decoded")).stimulus_ids, subject.test.stimulus_ids)
    scores = json.loads(run.artefact("scores").read_text())
    assert scores["images"] == 5
    split = json.loads((run.root / "split.json").read_text())
    assert scores["provenance"]["split"]["sha256"] == split["sha256"] == split_hash(subject)
    assert scores["provenance"]["split"]["preparation"]["protocol"] == "single-trial"
    assert split["sha256"][:12] in run.artefact("report").read_text()
    assert split["counts"]["train_rows"] == len(decoder.betas_)


def test_settings_reach_the_reader(archive: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    section = PrepareSection(
        root=str(archive),
        sessions="1-2",
        average="test",
        zscore="session",
        mask="V1+streams:ventral",
        regions="default, lh.V1",
        noise_ceiling="recompute",
    )
    run_one("prepare", run, Settings(prepare=section))
    subject = load_subject(run.artefact("subject"))
    assert list(subject.regions)[-1] == "lh.V1"
    assert subject.preparation == {
        "protocol": None,
        "sessions": [1, 2],
        "average": "test",
        "zscore": "session",
        "mask": "V1+streams:ventral",
        "beta_version": "betas_fithrf_GLMdenoise_RR",
        "noise_ceiling": "recompute",
    }
    assert not run.cache("prepare").exists()


def test_a_killed_preparation_continues_at_the_session(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = RunFolder(tmp_path / "run"), Settings(prepare=PrepareSection(root=str(archive)))
    real, opened = sessions.read_betas, []

    def stop(path: Path, *rest: object) -> np.ndarray:
        opened.append(int(path.name[len("betas_session") :][:2]))
        if opened == [1, 2]:
            raise KeyboardInterrupt
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "read_betas", stop)
    with pytest.raises(KeyboardInterrupt):
        run_one("prepare", run, settings)
    assert not run.artefact("subject").exists()
    run_one("prepare", run, settings)
    assert opened == [1, 2, 2, 3]
    other = RunFolder(tmp_path / "other")
    run_one("prepare", other, settings)
    assert other.artefact("subject").read_bytes() == run.artefact("subject").read_bytes()

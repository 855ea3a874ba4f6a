"""NSD-Synthetic and NSD-Imagery with a run's decoder; the scans are the run's own test scans, written again."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from further_tree import write_imagery, write_synthetic

from unibrain.errors import InputError
from unibrain.experiments import Bench, further
from unibrain.experiments.further import OWN
from unibrain.scans.nsd_layout import NsdLayout


@pytest.fixture
def layout(bench: Bench) -> NsdLayout:
    return NsdLayout(bench.run.artefact("nsd"))


@pytest.fixture
def volumes(bench: Bench, layout: NsdLayout) -> np.ndarray:
    """The trials of the six test images, shape (6, 3, X, Y, Z), int16 as stored."""
    import h5py

    sessions = []
    for number in (1, 2):
        with h5py.File(layout.betas(number, "hdf5")) as file:
            sessions.append(file["betas"][...].transpose(0, 3, 2, 1))
    trials = np.concatenate(sessions)
    shown = pandas.read_csv(layout.responses, sep="\t")["73KID"].to_numpy() - 1
    return np.stack([trials[shown == identity] for identity in bench.ids])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One score and small pictures: what the others say of pictures is tested elsewhere."""
    from unibrain.evaluation import dialects
    from unibrain.stimuli import nsd

    whole = dialects.dialect_metrics
    monkeypatch.setattr(dialects, "dialect_metrics", lambda name: {"pixcorr": whole(name)["pixcorr"]})
    monkeypatch.setattr(nsd, "SIDE", 64)


def two_way(found: object, setting: str) -> float:
    return float(np.mean([found.cell(setting, f"{latent}_two_way").value for latent in ("z_image", "c_image")]))


def test_scans_of_seen_targets_are_decoded_and_those_of_other_targets_are_not(
    bench: Bench, layout: NsdLayout, volumes: np.ndarray
) -> None:
    write_imagery(layout, volumes, np.roll(volumes, 1, axis=0), bench.stimuli.pictures(bench.ids))
    found = further(bench, "nsd-imagery", 12)
    # What is called seen are the run's own scans, and what is called imagined are those of other pictures.
    assert two_way(found, "seen") == pytest.approx(two_way(found, OWN), abs=0.1)
    assert two_way(found, "imagined") < 0.6
    assert two_way(found, "seen") - two_way(found, "imagined") > 0.2
    seen, imagined, own = (found.cell(name, "pixcorr") for name in ("seen", "imagined", OWN))
    assert seen.value == pytest.approx(own.value, abs=0.1)
    assert imagined.difference == pytest.approx(imagined.value - seen.value)
    assert found.cell("seen, shuffled", "pixcorr").value < seen.value
    assert [strip.label for strip in found.strips] == ["stimulus", "seen", "imagined"]
    assert found.folder == "further-nsd-imagery"
    assert found.simulated
    assert found.notes[2].startswith("What was imagined: 6 trials of each stimulus are averaged.")
    assert found.about["stimuli"] == "6 of 6"
    own = further(bench, "nsd-imagery", 4, zscore="set", dialect="nsd-imagery")
    assert own.folder == "further-nsd-imagery-own-statistics"
    assert own.about["stimuli"] == "4 of 6"
    assert own.about["dialect of the scores"] == "nsd-imagery"
    assert any("statistics of what is tested" in note for note in own.notes)


def test_synthetic_stimuli_have_one_task(bench: Bench, layout: NsdLayout, volumes: np.ndarray) -> None:
    with pytest.raises(InputError, match="--further"):
        further(bench, "nsd-synthetic")
    write_synthetic(layout, np.array([1, 2, 3, 4, 2, 1, 4, 3]), volumes[:4, :2].reshape(8, *volumes.shape[2:]))
    found = further(bench, "nsd-synthetic", 4)
    assert found.settings == ("seen", "seen, shuffled", OWN)
    assert found.cell("seen", "pixcorr").images == 4
    with pytest.raises(InputError, match="gray"):
        further(bench, "nsd-synthetic", 4, dialect="gray")


def test_runs_on_other_data_are_refused(bench: Bench, tmp_path: Path) -> None:
    from dataclasses import replace

    from unibrain.pipeline import CustomSection, Settings

    with pytest.raises(InputError, match="data of your own"):
        further(replace(bench, settings=Settings(custom=CustomSection(name="lab"))), "nsd-imagery")

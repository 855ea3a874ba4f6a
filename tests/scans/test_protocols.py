"""Protocols against a second, naive preparation of the same files."""

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest

from unibrain.demo import SimulationSettings
from unibrain.demo.experiment import draw_experiment
from unibrain.errors import InputError
from unibrain.scans import PROTOCOLS, PrepareSettings, read_nsd, split_hash
from unibrain.scans.nsd_design import read_design
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.subject import write_split

SHARED = 6


@pytest.fixture(scope="module")
def trials(tree: Path) -> pandas.DataFrame:
    """Every trial of nsdgeneral in percent; NaN where a voxel is invalid in a session."""
    layout = NsdLayout(tree)
    mask = np.asarray(nibabel.load(layout.roi("nsdgeneral")).dataobj) == 1
    parts = []
    for session in (1, 2, 3):
        betas = np.asarray(nibabel.load(layout.betas(session, "nifti")).dataobj)[mask].T / 300
        parts.append(pandas.DataFrame(np.where((betas != 0).any(axis=0), betas, np.nan)))
    responses = pandas.read_csv(layout.responses, sep="\t")
    table = pandas.concat(parts, ignore_index=True)
    table.index = pandas.MultiIndex.from_arrays(
        [responses["73KID"] - 1, responses["10KID"] <= SHARED, responses["SESSION"]], names=["id", "test", "session"]
    )
    return table


def standard(rows: pandas.DataFrame) -> pandas.DataFrame:
    training = rows[~rows.index.get_level_values("test")]
    return ((rows - training.mean()) / training.std()).fillna(0)


def test_single_trials_train_and_averages_test(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(protocol="single-trial"))
    single = trials.droplevel("session")
    is_test = single.index.get_level_values("test")
    averages = single[is_test].groupby(level=["id", "test"]).mean()
    expected = pandas.concat([single[~is_test], averages]).sort_index(level="id", kind="stable")
    assert subject.stimulus_ids.tolist() == expected.index.get_level_values("id").tolist()
    np.testing.assert_array_equal(subject.is_test, expected.index.get_level_values("test"))
    np.testing.assert_allclose(subject.betas, standard(expected), atol=2e-5)
    assert subject.single_trials
    assert (subject.train.repeats == 1).all()
    assert (subject.test.repeats == 3).all()
    assert subject.train.repeats.sum() + subject.test.repeats.sum() == len(trials)


def by_session(trials: pandas.DataFrame) -> pandas.DataFrame:
    return trials.groupby(level="session", group_keys=False).apply(
        lambda part: (
            (part - part[~part.index.get_level_values("test")].mean())
            / part[~part.index.get_level_values("test")].std()
        )
    )


def test_z_scores_per_session_use_its_training_trials_alone(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(protocol="session-zscore"))
    expected = by_session(trials).groupby(level=["id", "test"]).mean()
    np.testing.assert_allclose(subject.betas, expected.fillna(expected[~subject.is_test].mean()), atol=2e-5)
    assert subject.preparation["zscore"] == "session"


def test_choices_combine(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(protocol="session-zscore", average="test"))
    z = by_session(trials).droplevel("session")
    expected = z[~z.index.get_level_values("test")].sort_index(level="id", kind="stable")
    np.testing.assert_allclose(subject.train.betas, expected.fillna(expected.mean()), atol=2e-5)


def test_without_z_scores_percent_signal_change_stays(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(zscore="none"))
    expected = trials.groupby(level=["id", "test"]).mean()
    np.testing.assert_allclose(subject.betas, expected.fillna(expected[~subject.is_test].mean()), atol=1e-5)


def test_the_protocols_are_those_that_were_published() -> None:
    wanted = PrepareSettings(protocol="unibrain").resolved()
    assert (wanted.average, wanted.zscore, wanted.sessions) == ("all", "train", tuple(range(1, 38)))
    assert PrepareSettings(protocol="nsd-40").resolved().sessions == tuple(range(1, 41))
    assert PrepareSettings(protocol="unibrain", sessions=(1, 2)).resolved().sessions == (1, 2)
    assert PrepareSettings().resolved().average == "all"
    assert set(PROTOCOLS) == {"unibrain", "nsd-40", "single-trial", "session-zscore"}


def test_betas_that_were_not_downloaded(own_tree: NsdLayout) -> None:
    for session, kind in ((1, "hdf5"), (2, "hdf5"), (2, "nifti")):
        own_tree.betas(session, kind).unlink()
    some = read_nsd(own_tree.root, 1, PrepareSettings(sessions="present"))
    assert some.preparation["sessions"] == [1, 3]
    np.testing.assert_array_equal(some.betas, read_nsd(own_tree.root, 1, PrepareSettings(sessions=(1, 3))).betas)
    assert read_nsd(own_tree.root, 1, PrepareSettings(sessions="present", file_format="hdf5")).preparation[
        "sessions"
    ] == [3]


def test_sessions_that_were_never_run(own_tree: NsdLayout) -> None:
    """As for NSD's subjects 3, 4, 6 and 8: the design goes on, the trials end."""
    table = pandas.read_csv(own_tree.responses, sep="\t")
    table[table["SESSION"] < 3].to_csv(own_tree.responses, sep="\t", index=False, na_rep="NaN")
    for kind in ("hdf5", "nifti"):
        own_tree.betas(3, kind).unlink()
    subject = read_nsd(own_tree.root)
    assert subject.preparation["sessions"] == [1, 2]
    assert set(subject.repeats) == {1, 2, 3}
    with pytest.raises(InputError, match="sessions 1-2, no session 3"):
        read_nsd(own_tree.root, 1, PrepareSettings(sessions=(1, 3)))


def test_the_split_is_written_with_a_hash_that_stands_for_it(tree: Path, tmp_path: Path) -> None:
    subject = read_nsd(tree)
    write_split(tmp_path / "split.json", subject)
    split = json.loads((tmp_path / "split.json").read_text())
    design = read_design(NsdLayout(tree))
    assert split["train"] == sorted(set(design.stimulus_ids[~design.is_shared].tolist()))
    assert split["test"] == sorted(set(design.stimulus_ids[design.is_shared].tolist()))
    counts = {"train_images": 24, "train_rows": 24, "test_images": 6, "test_rows": 6, "test_trials": 18}
    assert split["counts"] == counts | {"train_trials": len(design.stimulus_ids) - 18}
    assert split["preparation"]["sessions"] == [1, 2, 3]
    text = json.dumps({"test": split["test"], "train": split["train"]}, separators=(",", ":"))
    assert split["sha256"] == hashlib.sha256(text.encode()).hexdigest() == split_hash(subject)


def test_other_splits_have_other_hashes_and_other_scans_the_same(tree: Path) -> None:
    whole = split_hash(read_nsd(tree))
    assert split_hash(read_nsd(tree, 1, PrepareSettings(mask="V1", zscore="session"))) == whole
    assert split_hash(read_nsd(tree, 1, PrepareSettings(sessions=(1,)))) != whole
    assert split_hash(read_nsd(tree, 1, PrepareSettings(average="test"))) != whole
    assert split_hash(read_nsd(tree, 2)) != whole


def test_nsds_own_numbers_are_parameters() -> None:
    settings = SimulationSettings(
        training_images=9000, test_images=1000, sessions=40, picture_size=425, all_repeats=True
    )
    assert (settings.trials_per_session, settings.images_per_subject, settings.images) == (750, 10_000, 73_000)
    experiment = draw_experiment(settings, np.random.default_rng(0))
    assert experiment.masterordering.shape == (30_000,)
    assert (np.bincount(experiment.masterordering)[1:] == 3).all()
    assert experiment.subjectim.shape == (8, 10_000)
    assert experiment.stimpattern.shape == (40, 12, 75)
    np.testing.assert_array_equal(np.array([1, 2, 3]) @ experiment.basiccnt, np.full(40, 750))

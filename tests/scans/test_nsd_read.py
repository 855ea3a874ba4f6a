"""The reader and its protocols against a second, naive reading of the same files."""

import hashlib
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest

from unibrain.errors import InputError
from unibrain.scans import PROTOCOLS, PrepareSettings, read_nsd, split_hash, write_split
from unibrain.scans.nsd_design import read_design
from unibrain.scans.nsd_layout import NsdLayout

SHARED = 6


def volume(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def naive(tree: Path, subject: int = 1) -> pandas.DataFrame:
    """Every trial of nsdgeneral in percent; NaN where a voxel is invalid in a session."""
    layout = NsdLayout(tree, subject)
    mask = volume(layout.roi("nsdgeneral")) == 1
    parts = []
    for session in (1, 2, 3):
        betas = volume(layout.betas(session, "nifti"))[mask].T / 300
        parts.append(pandas.DataFrame(np.where((betas != 0).any(axis=0), betas, np.nan)))
    responses = pandas.read_csv(layout.responses, sep="\t")
    table = pandas.concat(parts, ignore_index=True)
    table.index = pandas.MultiIndex.from_arrays(
        [responses["73KID"] - 1, responses["10KID"] <= SHARED, responses["SESSION"]], names=["id", "test", "session"]
    )
    return table


@pytest.fixture(scope="module")
def trials(tree: Path) -> pandas.DataFrame:
    return naive(tree)


def standard(rows: pandas.DataFrame) -> pandas.DataFrame:
    training = rows[~rows.index.get_level_values("test")]
    return ((rows - training.mean()) / training.std()).fillna(0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_subject_equals_a_naive_reading(tree: Path, number: int) -> None:
    subject, layout = read_nsd(tree, number), NsdLayout(tree, number)
    images = naive(tree, number).groupby(level=["id", "test"])
    assert subject.name == f"subj0{number}"
    np.testing.assert_array_equal(subject.stimulus_ids, images.mean().index.get_level_values("id"))
    np.testing.assert_array_equal(subject.is_test, images.mean().index.get_level_values("test"))
    np.testing.assert_array_equal(subject.repeats, images.size())
    np.testing.assert_allclose(subject.betas, standard(images.mean()), atol=2e-5)
    general = volume(layout.roi("nsdgeneral"))
    assert subject.grid_shape == general.shape
    np.testing.assert_array_equal(subject.voxel_indices, np.flatnonzero(general.ravel(order="C") > 0))
    for region, labels in {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V4": (7,)}.items():
        visual = volume(layout.roi("prf-visualrois")).ravel()[subject.voxel_indices]
        np.testing.assert_array_equal(subject.regions[region], np.isin(visual, labels))
        assert subject.regions[region].any()
    for region in ("faces", "words", "places", "bodies"):
        found = volume(layout.roi(f"floc-{region}")).ravel()[subject.voxel_indices]
        np.testing.assert_array_equal(subject.regions[region], found > 0)
    ncsnr = volume(layout.ncsnr()).ravel()[subject.voxel_indices].astype(float)
    np.testing.assert_allclose(subject.noise_ceiling, 100 * ncsnr**2 / (ncsnr**2 + 1 / 3), rtol=1e-5)


def test_single_trials_train_and_averages_test(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(protocol="single-trial"))
    single = trials.droplevel("session")
    is_test = single.index.get_level_values("test")
    averages = single[is_test].groupby(level=["id", "test"]).mean()
    expected = pandas.concat([single[~is_test], averages]).sort_index(level="id", kind="stable")
    np.testing.assert_array_equal(subject.stimulus_ids, expected.index.get_level_values("id"))
    np.testing.assert_array_equal(subject.is_test, expected.index.get_level_values("test"))
    np.testing.assert_allclose(subject.betas, standard(expected), atol=2e-5)
    assert (subject.train.repeats == 1).all()
    assert (subject.test.repeats == 3).all()


def test_z_scores_per_session_use_its_training_trials_alone(tree: Path, trials: pandas.DataFrame) -> None:
    def by_itself(part: pandas.DataFrame) -> pandas.DataFrame:
        training = part[~part.index.get_level_values("test")]
        return (part - training.mean()) / training.std()

    z = trials.groupby(level="session", group_keys=False).apply(by_itself)
    subject = read_nsd(tree, 1, PrepareSettings(protocol="session-zscore"))
    expected = z.groupby(level=["id", "test"]).mean()
    np.testing.assert_allclose(subject.betas, expected.fillna(expected[~subject.is_test].mean()), atol=2e-5)
    single = read_nsd(tree, 1, PrepareSettings(protocol="session-zscore", average="test"))
    expected = z[~z.index.get_level_values("test")].sort_index(level="id", kind="stable")
    np.testing.assert_allclose(single.train.betas, expected.fillna(expected.mean()), atol=2e-5)


def test_without_z_scores_percent_signal_change_stays(tree: Path, trials: pandas.DataFrame) -> None:
    subject = read_nsd(tree, 1, PrepareSettings(zscore="none"))
    expected = trials.groupby(level=["id", "test"]).mean()
    np.testing.assert_allclose(subject.betas, expected.fillna(expected[~subject.is_test].mean()), atol=1e-5)


def test_labels_go_by_name_not_by_number(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root).regions
    table, path = own_tree.label_tables("prf-visualrois")[0], own_tree.roi("prf-visualrois")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{8 - int(line.split()[0])} {line.split()[1]}\t" for line in lines[1:])]))
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(labels > 0, 8 - labels, labels), image.affine), path)
    after = read_nsd(own_tree.root).regions
    for region, voxels in before.items():
        np.testing.assert_array_equal(after[region], voxels)
    atlas = own_tree.label_tables("prf-visualrois")[1]
    atlas.parent.mkdir(parents=True)
    table.rename(atlas)
    np.testing.assert_array_equal(read_nsd(own_tree.root).regions["V4"], before["V4"])


def test_standard_labels_serve_where_the_tables_are_not(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root)
    shutil.rmtree(own_tree.root / "nsddata" / "freesurfer")
    own_tree.marker.unlink()
    after = read_nsd(own_tree.root)
    assert all(np.array_equal(after.regions[region], before.regions[region]) for region in before.regions)
    assert (before.simulated, after.simulated) == (True, False)


def test_the_protocols_are_those_that_were_published() -> None:
    wanted = PrepareSettings(protocol="unibrain").resolved()
    assert (wanted.average, wanted.zscore, wanted.sessions) == ("all", "train", tuple(range(1, 38)))
    assert PrepareSettings(protocol="nsd-40").resolved().sessions == tuple(range(1, 41))
    assert PrepareSettings(protocol="unibrain", sessions=(1, 2)).resolved().sessions == (1, 2)
    assert PrepareSettings().resolved().average == "all"
    assert set(PROTOCOLS) == {"unibrain", "nsd-40", "single-trial", "session-zscore"}


def test_betas_that_were_not_downloaded(own_tree: NsdLayout, trials: pandas.DataFrame) -> None:
    for session, kind in ((1, "hdf5"), (2, "hdf5"), (2, "nifti")):
        own_tree.betas(session, kind).unlink()
    some = read_nsd(own_tree.root, 1, PrepareSettings(sessions="present"))
    assert some.preparation["sessions"] == [1, 3]
    expected = trials[trials.index.get_level_values("session") != 2].groupby(level=["id", "test"])
    np.testing.assert_array_equal(some.stimulus_ids, expected.mean().index.get_level_values("id"))
    np.testing.assert_array_equal(some.repeats, expected.size())
    np.testing.assert_allclose(some.betas, standard(expected.mean()), atol=2e-5)
    one = read_nsd(own_tree.root, 1, PrepareSettings(sessions="present", file_format="hdf5"))
    assert one.preparation["sessions"] == [3]


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
    assert split_hash(read_nsd(tree, 1, PrepareSettings(mask="V1", zscore="session"))) == split["sha256"]
    others = [read_nsd(tree, 1, PrepareSettings(average="test")), read_nsd(tree, 2)]
    assert split["sha256"] not in map(split_hash, others)
    np.testing.assert_array_equal(others[1].test.stimulus_ids, subject.test.stimulus_ids)
    assert not set(others[1].train.stimulus_ids) & set(subject.train.stimulus_ids)

"""The reader against a second, naive reading of the same files."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
from scipy.io import loadmat

from unibrain.scans import PrepareSettings, Subject, read_nsd
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import read_label_table

SUBJECTS = (1, 2)


def volume(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def naive(tree: Path, subject: int, shared: int = 6) -> dict[int, tuple[bool, list[np.ndarray]]]:
    """All trials of every image inside nsdgeneral, by 0-based id, straight from the files."""
    layout = NsdLayout(tree, subject)
    design = loadmat(layout.expdesign, squeeze_me=True)
    order, images = design["masterordering"].astype(int), design["subjectim"][subject - 1].astype(int)
    mask = volume(layout.roi("nsdgeneral")) == 1
    trials: dict[int, tuple[bool, list[np.ndarray]]] = {}
    now = 0
    for session in (1, 2, 3):
        betas = volume(layout.betas(session, "nifti"))
        for t in range(betas.shape[3]):
            ten_k = order[now]
            trials.setdefault(images[ten_k - 1] - 1, (ten_k <= shared, []))[1].append(betas[..., t][mask])
            now += 1
    return trials


@pytest.fixture(scope="module", params=SUBJECTS)
def read(request: pytest.FixtureRequest, tree: Path) -> tuple[int, Subject]:
    return request.param, read_nsd(tree, request.param)


def test_matches_a_naive_reading(tree: Path, read: tuple[int, Subject]) -> None:
    number, subject = read
    trials = naive(tree, number)
    assert subject.stimulus_ids.tolist() == sorted(trials)
    assert subject.is_test.tolist() == [trials[i][0] for i in sorted(trials)]
    assert subject.repeats.tolist() == [len(trials[i][1]) for i in sorted(trials)]
    averages = np.array([np.mean(np.array(trials[i][1], dtype=float) / 300, axis=0) for i in sorted(trials)])
    training = averages[~subject.is_test]
    expected = (averages - training.mean(0)) / training.std(0, ddof=1)
    whole = np.ones(expected.shape[1], dtype=bool)  # the voxel that is invalid in one session has a test of its own
    first_of_session = [volume(NsdLayout(tree, number).betas(s, "nifti")) for s in (1, 2, 3)]
    for betas in first_of_session:
        whole &= (betas[volume(NsdLayout(tree, number).roi("nsdgeneral")) == 1] != 0).any(axis=1)
    assert whole.sum() == len(whole) - 1
    np.testing.assert_allclose(subject.betas[:, whole], expected[:, whole], atol=2e-5)
    assert not np.allclose(subject.betas[:, ~whole], expected[:, ~whole], atol=0.05)


def test_nifti_and_hdf5_give_identical_matrices(tree: Path) -> None:
    nifti = read_nsd(tree, 1, PrepareSettings(file_format="nifti"))
    hdf5 = read_nsd(tree, 1, PrepareSettings(file_format="hdf5"))
    np.testing.assert_array_equal(nifti.betas, hdf5.betas)
    np.testing.assert_array_equal(nifti.voxel_indices, hdf5.voxel_indices)


def test_voxels_are_in_the_nifti_c_order(tree: Path, read: tuple[int, Subject]) -> None:
    number, subject = read
    labels = volume(NsdLayout(tree, number).roi("nsdgeneral"))
    assert subject.grid_shape == labels.shape
    np.testing.assert_array_equal(subject.voxel_indices, np.flatnonzero(labels.ravel(order="C") > 0))


def test_regions_follow_the_labels_and_minus_one_is_outside(tree: Path, read: tuple[int, Subject]) -> None:
    number, subject = read
    layout = NsdLayout(tree, number)
    visual = volume(layout.roi("prf-visualrois")).ravel()[subject.voxel_indices]
    expected = {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V4": (7,)}
    for region, labels in expected.items():
        np.testing.assert_array_equal(subject.regions[region], np.isin(visual, labels))
        assert subject.regions[region].any()
    for region in ("faces", "words", "places", "bodies"):
        labels = volume(layout.roi(f"floc-{region}")).ravel()[subject.voxel_indices]
        np.testing.assert_array_equal(subject.regions[region], labels > 0)
        assert 0 < subject.regions[region].sum() < len(labels)


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


def test_standard_labels_serve_where_the_tables_are_not(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root).regions
    shutil.rmtree(own_tree.root / "nsddata" / "freesurfer")
    after = read_nsd(own_tree.root).regions
    assert all(np.array_equal(after[region], before[region]) for region in before)


def test_atlas_folder_holds_tables_too(own_tree: NsdLayout) -> None:
    own, atlas = own_tree.label_tables("prf-visualrois")
    atlas.parent.mkdir(parents=True)
    own.rename(atlas)
    assert read_label_table(atlas)[7] == "hV4"
    assert read_nsd(own_tree.root).regions["V4"].any()


def test_ceiling_is_that_of_three_repeats(tree: Path, read: tuple[int, Subject]) -> None:
    number, subject = read
    ncsnr = volume(NsdLayout(tree, number).ncsnr()).ravel()[subject.voxel_indices].astype(float)
    np.testing.assert_allclose(subject.noise_ceiling, 100 * ncsnr**2 / (ncsnr**2 + 1 / 3), rtol=1e-5)


def test_some_sessions(tree: Path) -> None:
    responses = pandas.read_csv(NsdLayout(tree).responses, sep="\t")
    subject = read_nsd(tree, 1, PrepareSettings(sessions=(1, 3)))
    ids, counts = np.unique(responses.loc[responses.SESSION.isin([1, 3]), "73KID"] - 1, return_counts=True)
    np.testing.assert_array_equal(subject.stimulus_ids, ids)
    np.testing.assert_array_equal(subject.repeats, counts)


def test_brainmask_keeps_more_voxels(tree: Path) -> None:
    whole = read_nsd(tree, 1, PrepareSettings(mask="brainmask"))
    part = read_nsd(tree, 1)
    assert set(part.voxel_indices) < set(whole.voxel_indices)
    where = np.searchsorted(whole.voxel_indices, part.voxel_indices)
    np.testing.assert_array_equal(whole.betas[:, where], part.betas)


def test_the_marker_makes_it_simulated(own_tree: NsdLayout) -> None:
    assert read_nsd(own_tree.root).simulated
    own_tree.marker.unlink()
    assert not read_nsd(own_tree.root).simulated


def test_two_subjects_saw_the_same_test_images(tree: Path) -> None:
    first, second = (read_nsd(tree, number) for number in SUBJECTS)
    np.testing.assert_array_equal(first.test.stimulus_ids, second.test.stimulus_ids)
    assert not set(first.train.stimulus_ids) & set(second.train.stimulus_ids)
    assert first.name == "subj01"
    assert second.name == "subj02"

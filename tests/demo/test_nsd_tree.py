"""The written tree has NSD's names, types, axis orders, index bases and quirks."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas
import pytest
from scipy.io import loadmat

from unibrain.demo import SimulationSettings, describe, simulate_nsd
from unibrain.demo.experiment import draw_experiment, draw_scenes
from unibrain.errors import InputError
from unibrain.scans import read_nsd
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.stimuli import read_nsd_stimuli

SETTINGS = SimulationSettings(
    seed=11,
    training_images=40,
    test_images=8,
    sessions=2,
    grid=(8, 9, 7),
    picture_size=32,
    subjects=(1, 3),
    beta_formats=("hdf5", "nifti"),
    curated_captions=True,
)
TRIALS = 70


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> NsdLayout:
    root = tmp_path_factory.mktemp("simulated") / "tree"
    simulate_nsd(root, SETTINGS)
    return NsdLayout(root)


@pytest.fixture(scope="module")
def design(tree: NsdLayout) -> dict[str, np.ndarray]:
    return loadmat(tree.expdesign)


@pytest.fixture(scope="module")
def images(tree: NsdLayout) -> pandas.DataFrame:
    return pandas.read_csv(tree.stim_info, index_col=0)


def volume(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def test_design_has_nsd_shapes_and_bases(design: dict[str, np.ndarray]) -> None:
    assert design["masterordering"].shape == (1, 2 * TRIALS)
    assert design["subjectim"].shape == (8, 48)
    assert design["sharedix"].shape == (1, 8)
    assert design["basiccnt"].shape == (3, 2)
    assert design["stimpattern"].shape == (2, 2, 75)
    order, shared = design["masterordering"][0], design["sharedix"][0]
    assert set(order) == set(range(1, 49))
    assert (np.diff(shared) > 0).all()
    assert (design["subjectim"][:, :8] == shared).all()
    own = design["subjectim"][:, 8:].ravel()
    assert sorted([*own, *shared]) == list(range(1, 8 + 8 * 40 + 1))


def test_repeats_are_three_save_a_few_training_images(design: dict[str, np.ndarray]) -> None:
    counts = np.bincount(design["masterordering"][0].astype(int))[1:]
    assert (counts[:8] == 3).all()
    assert (counts == 1).sum() == 1
    assert (counts == 2).sum() == 2  # one by design, one to make both sessions equally long
    assert counts.max() == 3


def test_basiccnt_and_stimpattern_add_up(design: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(np.array([1, 2, 3]) @ design["basiccnt"], [TRIALS, TRIALS])
    np.testing.assert_array_equal(design["stimpattern"].sum(axis=2), [[63, 7], [63, 7]])
    assert not design["stimpattern"][:, :, [0, 1, 2, -4, -3, -2, -1]].any()


@pytest.mark.parametrize("subject", [1, 3])
def test_responses_follow_the_design(tree: NsdLayout, design: dict[str, np.ndarray], subject: int) -> None:
    path = NsdLayout(tree.root, subject).responses
    table = pandas.read_csv(path, sep="\t")
    behaviour = ["ISOLD", "ISCORRECT", "RT", "CHANGEMIND", "MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT"]
    counts = ["ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA"]
    where = ["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME"]
    assert list(table.columns) == [*where, *behaviour, *counts]
    order = design["masterordering"][0].astype(int)
    np.testing.assert_array_equal(table["10KID"], order)
    np.testing.assert_array_equal(table["73KID"], design["subjectim"][subject - 1, order - 1])
    np.testing.assert_array_equal(table["SESSION"], np.repeat([1, 2], TRIALS))
    np.testing.assert_array_equal(table["RUN"], np.tile(np.repeat([1, 2], [63, 7]), 2))
    assert table["TRIAL"].tolist() == 2 * [*range(1, 64), *range(1, 8)]
    np.testing.assert_array_equal(table["ISOLD"], table["10KID"].duplicated())
    np.testing.assert_array_equal(table["ISOLDCURRENT"], table.duplicated(["10KID", "SESSION"]))
    novel = table["ISOLD"] == 0
    assert table.loc[novel, ["MEMORYRECENT", "MEMORYFIRST"]].isna().all().all()
    third = table.groupby("10KID").cumcount() == 2
    assert (table.loc[third, "MEMORYFIRST"] > table.loc[third, "MEMORYRECENT"]).all()
    no_press = table["BUTTON"].isna()
    assert table.loc[no_press, ["ISCORRECT", "RT", "CHANGEMIND", "ISCORRECTCURRENT"]].isna().all().all()
    lost = table["MISSINGDATA"] == 1
    assert lost.sum() == 1
    assert table.loc[lost, ["TOTAL1", "TOTAL2", "BUTTON"]].isna().all().all()
    assert "\tNaN" in path.read_text()


def test_image_table_has_41_columns_and_points_to_the_trials(
    images: pandas.DataFrame, design: dict[str, np.ndarray]
) -> None:
    assert images.shape == (328, 40)
    repeats = [f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3)]
    first = ["cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"]
    assert list(images.columns) == [*first, *(f"subject{s}" for s in range(1, 9)), *repeats]
    np.testing.assert_array_equal(images["nsdId"], images.index)
    assert ast.literal_eval(images["cropBox"][0]) == (0.0, 0.0, 0.0, 0.0)
    assert images["cocoId"].is_unique
    np.testing.assert_array_equal(np.flatnonzero(images["shared1000"]) + 1, design["sharedix"][0])
    order = design["masterordering"][0].astype(int)
    for subject in (1, 3, 8):
        for row, repeat in zip(*np.nonzero(images[repeats[3 * subject - 3 : 3 * subject]].to_numpy()), strict=True):
            trial = images[f"subject{subject}_rep{repeat}"][row]
            assert design["subjectim"][subject - 1, order[trial - 1] - 1] == row + 1
        assert (images[repeats[3 * subject - 3 : 3 * subject]] > 0).sum().sum() == 2 * TRIALS
        assert images[f"subject{subject}"].sum() == 48


def test_betas_in_both_formats(tree: NsdLayout) -> None:
    brain = volume(tree.brainmask) > 0
    for session in (1, 2):
        nifti = nibabel.load(tree.betas(session, "nifti"))
        stored = np.asanyarray(nifti.dataobj)
        assert stored.dtype == np.int16
        assert stored.shape == (8, 9, 7, TRIALS)
        assert nifti.header.get_zooms() == pytest.approx((1.8, 1.8, 1.8, 4 / 3))
        assert (int(nifti.header["qform_code"]), int(nifti.header["sform_code"])) == (0, 1)
        np.testing.assert_allclose(nifti.affine[:3, 3], [-1.8 * ((1 + n) / 2 - 1) for n in (8, 9, 7)])
        with h5py.File(tree.betas(session, "hdf5")) as file:
            assert file["betas"].chunks == (TRIALS, 1, 1, 1)
            assert file["betas"].dtype == np.int16
            np.testing.assert_array_equal(file["betas"][:].T, stored)
        assert not stored[~brain].any()
        silent = (stored[brain] == 0).all(axis=1)
        assert silent.sum() == (1 if session == 2 else 0)
        percent = stored[brain & (volume(tree.roi("nsdgeneral")) > 0)].std() / 300
        assert 0.5 < percent < 5


@pytest.mark.parametrize(
    "name", ["nsdgeneral", "prf-visualrois", "prf-eccrois", "floc-faces", "floc-words", "floc-places", "floc-bodies"]
)
def test_label_volumes(tree: NsdLayout, name: str) -> None:
    labels, left, right = (volume(tree.roi(name, side)) for side in ("", "lh", "rh"))
    lines = tree.label_tables(name)[0].read_text().splitlines()
    numbers = [int(line.split()[0]) for line in lines]
    assert lines[0] == "0 Unknown"
    assert set(np.unique(labels)) <= {-1, *numbers}
    assert {-1, 0} < set(np.unique(labels))
    np.testing.assert_array_equal(np.maximum(left, right), labels)
    assert not ((left >= 0) & (right >= 0)).any()
    assert (labels[volume(tree.brainmask) == 0] == -1).all()
    if name == "floc-faces":
        assert 5 not in labels  # a label without voxels
    if name == "prf-visualrois":
        assert set(range(1, 8)) < set(np.unique(labels))
        np.testing.assert_array_equal(labels > 0, volume(tree.roi("prf-eccrois")) > 0)
    assert ((labels > 0) <= (volume(tree.roi("nsdgeneral")) == 1)).all()


def test_ceiling_is_nan_outside_the_brain_only(tree: NsdLayout) -> None:
    brain = volume(tree.brainmask) > 0
    for split in ("", "_split1", "_split2"):
        ncsnr = volume(tree.ncsnr(split))
        assert np.isnan(ncsnr[~brain]).all()
        assert np.isfinite(ncsnr[brain]).mean() > 0.99
        assert (ncsnr[brain][np.isfinite(ncsnr[brain])] >= 0).all()


def test_pictures_and_captions(tree: NsdLayout, images: pandas.DataFrame) -> None:
    subject = read_nsd(tree.root, 3)
    stimuli = read_nsd_stimuli(tree.root, subject.stimulus_ids)
    pictures = stimuli.pictures(subject.stimulus_ids)
    assert pictures.shape == (48, 32, 32, 3)
    assert pictures.std(axis=(1, 2, 3)).min() > 1
    assert len(np.unique(pictures.reshape(48, -1), axis=0)) == 48
    numbers = {len(captions) for captions in stimuli.captions(subject.stimulus_ids)}
    assert numbers == {5, 6}
    for captions in stimuli.captions(subject.stimulus_ids):
        assert len(set(captions)) == len(captions)
    splits = images.loc[subject.stimulus_ids, "cocoSplit"]
    assert set(splits) == {"train2017", "val2017"}
    assert set(images.loc[images["shared1000"], "cocoSplit"]) == {"train2017"}
    with h5py.File(tree.stimuli) as file:
        assert file["imgBrick"].shape == (328, 32, 32, 3)
        assert file["imgBrick"].dtype == np.uint8


def test_test_scenes_are_of_the_test_split_and_no_scene_comes_twice() -> None:
    settings = replace(SETTINGS, training_images=300, test_images=60)
    experiment = draw_experiment(settings, np.random.default_rng(0))
    scenes = draw_scenes(settings, experiment)
    assert len(scenes) == 660
    assert len({scene.key for scene in scenes.values()}) == 660
    shared = set((experiment.sharedix - 1).tolist())
    assert {scene.split for i, scene in scenes.items() if i in shared} == {"test"}
    assert {scene.split for i, scene in scenes.items() if i not in shared} == {"train"}
    assert all(len(describe(scene)) >= 5 for scene in scenes.values())


def test_the_marker_holds_the_settings(tree: NsdLayout) -> None:
    marker = json.loads(tree.marker.read_text())
    assert marker["simulated"] is True
    assert "no human was scanned" in marker["about"]
    assert marker["settings"]["seed"] == 11


def test_same_settings_same_bytes_and_another_seed_other_data(tree: NsdLayout, tmp_path: Path) -> None:
    simulate_nsd(tmp_path / "again", SETTINGS)
    simulate_nsd(tmp_path / "other", replace(SETTINGS, seed=12, subjects=(1,), beta_formats=("hdf5",)))
    files = {path.relative_to(tree.root): path.read_bytes() for path in tree.root.rglob("*") if path.is_file()}
    assert len(files) > 60
    for path, content in files.items():
        assert (tmp_path / "again" / path).read_bytes() == content, path
    first, other = (read_nsd(root) for root in (tree.root, tmp_path / "other"))
    assert first.betas.shape != other.betas.shape or not np.allclose(first.betas, other.betas)


def test_nsds_picture_size(tmp_path: Path) -> None:
    few = replace(SETTINGS, training_images=6, test_images=2, subjects=(1,), beta_formats=("hdf5",), picture_size=425)
    simulate_nsd(tmp_path / "tree", few)
    subject = read_nsd(tmp_path / "tree")
    pictures = read_nsd_stimuli(tmp_path / "tree", subject.stimulus_ids).pictures(subject.stimulus_ids)
    assert pictures.shape == (8, 425, 425, 3)
    assert pictures[:, -9:, -9:].std() > 0


def test_every_image_three_times(tmp_path: Path) -> None:
    whole = replace(
        SETTINGS, training_images=12, test_images=4, subjects=(1,), beta_formats=("hdf5",), all_repeats=True
    )
    simulate_nsd(tmp_path / "tree", whole)
    assert (read_nsd(tmp_path / "tree").repeats == 3).all()
    with pytest.raises(InputError, match=r"sessions = 5 .* divisor of 3 x 16"):
        replace(whole, sessions=5)


def test_a_simulated_tree_is_replaced_as_a_whole(tmp_path: Path) -> None:
    root, small = tmp_path / "tree", replace(SETTINGS, subjects=(1,), beta_formats=("hdf5",))
    simulate_nsd(root, replace(small, sessions=3))
    simulate_nsd(root, small)
    assert len(list(root.rglob("betas_session*.hdf5"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="tree"):
        simulate_nsd(tmp_path / "tree", SETTINGS)
    with pytest.raises(InputError, match="tree"):
        simulate_nsd(tmp_path / "tree" / "thesis.txt", SETTINGS)
    assert (tmp_path / "tree" / "thesis.txt").read_text() == "precious"


WRITE_LITTLE = """
import resource, sys
from unibrain.demo import SimulationSettings, simulate_nsd
settings = SimulationSettings(training_images=40, test_images=8, sessions=2, grid=(8, 9, 7), picture_size=32)
for most in (3_000, 20_000, 60_000, 90_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        simulate_nsd(sys.argv[1], settings)
    except OSError as error:
        print(error.strerror)
"""


def test_files_that_cannot_be_written_are_an_error_and_no_crash(tmp_path: Path) -> None:
    """The HDF5 library cannot close a file that it could not write, and takes the interpreter with it."""
    command = [sys.executable, "-c", WRITE_LITTLE, str(tmp_path / "tree")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["File too large"] * 4 + [""]), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"difficulty": "hard"},
        {"seed": -1},
        {"training_images": 3},
        {"test_images": 1},
        {"sessions": 1},
        {"sessions": 39},
        {"grid": (8, 9, 5)},
        {"picture_size": 40},
        {"subjects": ()},
        {"subjects": (9,)},
        {"subjects": (1, 1)},
        {"beta_formats": ()},
        {"beta_formats": ("mat",)},
    ],
)
def test_settings_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} = "):
        replace(SETTINGS, **wrong)


def test_curated_captions_are_read_back_and_some_are_empty(tree: NsdLayout) -> None:
    array = np.load(tree.captions("train2017").with_name("COCO_73k_annots_curated.npy"), allow_pickle=False)
    assert array.shape == (SETTINGS.images, 5)
    assert array.dtype.kind == "U"
    ids = read_nsd(tree.root, 1).stimulus_ids
    curated, coco = (read_nsd_stimuli(tree.root, ids, source) for source in ("curated", "coco"))
    counts = []
    for few, many in zip(curated.captions(ids), coco.captions(ids), strict=True):
        assert few == many[: len(few)]
        counts.append(len(few))
    assert set(counts) == {4, 5}
    assert set(map(len, coco.captions(ids))) == {5, 6}

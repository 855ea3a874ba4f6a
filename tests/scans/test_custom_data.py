"""A laboratory's own scans and table, in every format that is read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest
from own_data import GRID, PICTURES, OwnData, make_own_data

from unibrain.errors import InputError
from unibrain.scans.custom import read_custom
from unibrain.scans.custom_scans import open_scans, read_mask
from unibrain.scans.custom_table import read_table


@pytest.fixture
def data(tmp_path: Path) -> OwnData:
    return make_own_data(tmp_path)


def save_npy(data: OwnData) -> Path:
    return data.scans


def save_csv(data: OwnData) -> Path:
    path = data.root / "betas.csv"
    pandas.DataFrame(data.matrix, columns=[f"voxel {n}" for n in range(30)]).to_csv(path, index=False)
    return path


def save_tsv(data: OwnData) -> Path:
    path = data.root / "betas.tsv"
    np.savetxt(path, data.matrix, delimiter="\t", fmt="%.9g")
    return path


def save_hdf5(data: OwnData) -> Path:
    path = data.root / "betas.h5"
    with h5py.File(path, "w") as file:
        file["run/betas"] = data.matrix
    return path


def save_matlab(data: OwnData) -> Path:
    path = data.root / "betas.mat"
    with h5py.File(path, "w") as file:
        file["betas"] = data.matrix.T
        file["betas"].attrs["MATLAB_class"] = np.bytes_(b"single")
    return path


def save_volumes(data: OwnData) -> Path:
    return data.save_nifti(data.root / "betas.nii.gz", data.volumes)


def save_betasmd(data: OwnData) -> Path:
    path = data.root / "betasmd.npy"
    np.save(path, data.volumes)
    return path


def save_fortran(data: OwnData) -> Path:
    path = data.root / "fortran.npy"
    np.save(path, np.asfortranarray(data.volumes))
    return path


def save_glmsingle(data: OwnData) -> Path:
    path = data.root / "TYPED_FITHRF_GLMDENOISE_RR.hdf5"
    with h5py.File(path, "w") as file:
        file["betasmd"] = data.volumes
        file["R2"] = data.volumes[..., 0]
    return path


def save_glmsingle_matlab(data: OwnData) -> Path:
    path = data.root / "TYPED_FITHRF_GLMDENOISE_RR.mat"
    with h5py.File(path, "w") as file:
        file["modelmd"] = data.volumes.T
        file["modelmd"].attrs["MATLAB_class"] = np.bytes_(b"single")
        file["R2"] = data.volumes[..., 0].T
    return path


def save_reversed(data: OwnData) -> Path:
    path = data.root / "reversed.h5"
    with h5py.File(path, "w") as file:
        file["betas"] = data.volumes.T
    return path


def save_list_of_voxels(data: OwnData) -> Path:
    path = data.root / "voxels.npy"
    np.save(path, data.matrix.T[:, None, None, :])
    return path


MATRICES = (save_npy, save_csv, save_tsv, save_hdf5, save_matlab, save_list_of_voxels)
VOLUMES = (save_volumes, save_betasmd, save_fortran, save_glmsingle, save_glmsingle_matlab, save_reversed)


@pytest.mark.parametrize("save", [*MATRICES, *VOLUMES])
def test_every_format_gives_the_same_matrix(data: OwnData, save: Callable[[OwnData], Path]) -> None:
    path = save(data)
    mask = None if save is save_list_of_voxels else read_mask(data.mask_file)
    matrix = open_scans(path, mask)
    assert (matrix.scans, matrix.voxels) == (12, 30)
    for rows in (np.arange(12), np.arange(3, 7), np.array([0, 5, 11])):
        np.testing.assert_allclose(matrix.read(rows), data.matrix[rows], rtol=1e-6)
    assert matrix.read(np.array([2])).dtype == np.float32
    if mask is not None:
        assert matrix.voxel_indices.tolist() == np.flatnonzero(data.mask).tolist()
        assert matrix.grid_shape == GRID


def test_a_subject_of_averages_z_scored_with_training_statistics(data: OwnData) -> None:
    subject = read_custom(read_table(data.table), data.scans, data.mask_file, name="lab-7")
    averages = np.concatenate([data.matrix[:4], (data.matrix[4:8] + data.matrix[8:]) / 2]).astype(np.float64)
    is_test = np.isin(np.arange(8), [1, 5])
    train = averages[~is_test]
    np.testing.assert_allclose(subject.betas, (averages - train.mean(0)) / train.std(0, ddof=1), atol=1e-5)
    assert subject.stimulus_ids.tolist() == list(range(8))
    assert subject.is_test.tolist() == is_test.tolist()
    assert subject.repeats.tolist() == [1] * 4 + [2] * 4
    assert subject.name == "lab-7"
    assert not subject.simulated
    assert np.isnan(subject.noise_ceiling).all()
    assert subject.voxel_indices.tolist() == np.flatnonzero(data.mask).tolist()
    assert subject.preparation["sessions"] == ["monday", "tuesday"]


def test_single_training_scans_and_z_scores_per_session(data: OwnData) -> None:
    table = read_table(data.table)
    single = read_custom(table, data.scans, average="test", zscore="none")
    assert np.bincount(single.stimulus_ids).tolist() == [1, 1, 1, 1, 2, 1, 2, 2]
    np.testing.assert_allclose(single.betas[single.stimulus_ids == 4], data.matrix[[4, 8]])
    np.testing.assert_allclose(single.test.betas[1], data.matrix[[5, 9]].mean(axis=0), rtol=1e-5)
    by_session = read_custom(table, data.scans, average="test", zscore="session")
    tuesday = data.matrix[[8, 10, 11]].astype(np.float64)
    expected = (data.matrix[8] - tuesday.mean(0)) / tuesday.std(0, ddof=1)
    np.testing.assert_allclose(by_session.betas[by_session.stimulus_ids == 4][1], expected, atol=1e-5)


def test_the_order_of_lines_does_not_matter_and_the_base_is_honoured(data: OwnData, tmp_path: Path) -> None:
    expected = read_custom(read_table(data.table), data.scans)
    rows = data.rows()
    rows.reverse()
    from_one = [{"scan_from_1": str(int(row.pop("scan_from_0")) + 1), **row} for row in rows]
    path = tmp_path / "other.tsv"
    data.write_rows(from_one, path)
    np.testing.assert_array_equal(read_custom(read_table(path), data.scans).betas, expected.betas)
    plain = [{"scan": row.pop("scan_from_1"), **row} for row in from_one]
    data.write_rows(plain, path)
    np.testing.assert_array_equal(read_custom(read_table(path, scan_base=1), data.scans).betas, expected.betas)


def test_unused_scans_are_left_out(data: OwnData) -> None:
    rows = data.rows()
    rows[8] |= {"split": "unused", "picture": ""}
    data.write_rows(rows)
    table = read_table(data.table)
    assert (table.rows, len(table.scans)) == (12, 11)
    assert read_custom(table, data.scans).repeats.tolist() == [1] * 5 + [2] * 3


def test_captions_of_several_columns_and_rows_are_put_together(data: OwnData) -> None:
    assert read_table(data.table).captions[3] == ("a thing 3", "something like 3")
    rows = data.rows()
    for row in rows:
        row.pop("captions")
        row |= {"caption_1": "", "caption_2": "same", "caption_10": f"last of scan {row['scan_from_0']}"}
    rows[5]["caption_1"] = "first"
    data.write_rows(rows)
    assert read_table(data.table).captions[5] == ("first", "same", "last of scan 5", "last of scan 9")


def test_without_captions_and_split(data: OwnData) -> None:
    rows = data.rows()
    data.write_rows([{"scan_from_0": row["scan_from_0"], "picture": row["picture"], "onset": "3"} for row in rows])
    table = read_table(data.table, test_share=0.4, seed=3)
    assert not table.has_captions
    assert table.ignored == ("onset",)
    assert table.is_test.sum() == 3
    assert "drawn by picture with seed 3: 3 of 8" in table.split
    assert read_table(data.table, test_share=0.4, seed=3).is_test.tolist() == table.is_test.tolist()
    draws = {tuple(read_table(data.table, test_share=0.4, seed=seed).is_test) for seed in range(8)}
    assert len(draws) > 1
    subject = read_custom(table, data.scans)
    assert not set(subject.train.stimulus_ids) & set(subject.test.stimulus_ids)


def test_regions_on_the_grid_and_per_voxel(data: OwnData, tmp_path: Path) -> None:
    volume = np.zeros(GRID, dtype=np.int16)
    volume[2:] = 1
    volume[0] = -1
    grid = data.save_nifti(tmp_path / "late.nii.gz", volume)
    np.savetxt(tmp_path / "odd.csv", np.arange(30) % 2, fmt="%d")
    np.save(tmp_path / "even.npy", np.arange(30) % 2 == 0)
    files = {"late": grid, "odd": tmp_path / "odd.csv", "even": tmp_path / "even.npy"}
    subject = read_custom(read_table(data.table), data.scans, data.mask_file, files)
    assert subject.regions["late"].tolist() == (volume > 0)[data.mask].tolist()
    assert subject.regions["odd"].tolist() == [n % 2 == 1 for n in range(30)]
    assert subject.regions["even"].tolist() == [n % 2 == 0 for n in range(30)]


def spoil(data: OwnData, line: int = 2, **cells: str) -> None:
    rows = data.rows()
    rows[line] |= cells
    data.write_rows(rows)


def duplicate(data: OwnData) -> None:
    spoil(data, scan_from_0="1")


def short_table(data: OwnData) -> None:
    data.write_rows(data.rows()[:-1])


def gap(data: OwnData) -> None:
    spoil(data, line=11, scan_from_0="12")


def outside(data: OwnData) -> None:
    spoil(data, picture="../secret.png")


def absolute(data: OwnData) -> None:
    spoil(data, picture="/etc/passwd")


def on_another_drive(data: OwnData) -> None:
    spoil(data, picture="C:\\secret.png")


def both_sides(data: OwnData) -> None:
    spoil(data, line=8, split="test")


def other_split(data: OwnData) -> None:
    spoil(data, split="validation")


def one_training_picture(data: OwnData) -> None:
    data.write_rows([row | {"split": "train" if row["picture"] == PICTURES[0] else "test"} for row in data.rows()])


def some_captions(data: OwnData) -> None:
    spoil(data, captions=" | ")


def nameless_scan_column(data: OwnData) -> None:
    data.write_rows([{"scan": row.pop("scan_from_0"), **row} for row in data.rows()])


def no_pictures(data: OwnData) -> None:
    data.write_rows([{"image": row.pop("picture"), **row} for row in data.rows()])


def word_as_scan(data: OwnData) -> None:
    spoil(data, scan_from_0="two")


def ragged(data: OwnData) -> None:
    text = data.table.read_text().splitlines()
    data.table.write_text("\n".join([*text[:3], text[3] + ",more", *text[4:]]))


def not_text(data: OwnData) -> None:
    data.table.write_bytes(b"scan_from_0,picture\n0,\xff\xfe\n")


def a_session_missing(data: OwnData) -> None:
    spoil(data, session="")


def no_table(data: OwnData) -> None:
    data.table.unlink()


def nan_in_scans(data: OwnData) -> None:
    matrix = data.matrix.copy()
    matrix[3, 7] = np.nan
    np.save(data.scans, matrix)


def transposed(data: OwnData) -> None:
    np.save(data.scans, data.matrix.T)


def pickled(data: OwnData) -> None:
    np.save(data.scans, np.array({"betasmd": data.volumes}, dtype=object), allow_pickle=True)


def truncated(data: OwnData) -> None:
    data.scans.write_bytes(data.scans.read_bytes()[:-100])


def words(data: OwnData) -> None:
    np.save(data.scans, np.array([["a", "b"]] * 12))


def three_axes(data: OwnData) -> None:
    np.save(data.scans, data.volumes[..., 0])


def volumes_without_mask(data: OwnData) -> None:
    np.save(data.scans, data.volumes)


def no_scans(data: OwnData) -> None:
    data.scans.unlink()


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (duplicate, r"trials\.csv: lines 3 and 4 both name scan 1, expected every scan once"),
        (short_table, r"betas\.npy: found 12 scans, expected 11 as trials\.csv lists"),
        (gap, r"found 12 scans and none of them is 11, expected every row of the matrix from 0 on"),
        (outside, r"line 4 names the picture '\.\./secret\.png', which leads out of the folder"),
        (absolute, r"names the picture '/etc/passwd', which leads out of the folder"),
        (on_another_drive, r"which leads out of the folder of pictures"),
        (both_sides, r"picture p04\.png is train in line 6 and test in line 10, expected every picture on one side"),
        (other_split, r"line 4 has the split 'validation', expected train, test or unused"),
        (one_training_picture, r"found 1 training pictures and 7 test pictures, expected at least two and one"),
        (some_captions, r"picture p02\.png has no caption \(1 of 8 pictures lack one\)"),
        (nameless_scan_column, r"does not say whether its first scan is 0 or 1.*--scan-base"),
        (no_pictures, r"found the columns image, scan_from_0, .*expected one named picture"),
        (word_as_scan, r"line 4 names scan 'two', expected a whole number of at least 0"),
        (ragged, r"line 4 has 6 cells, expected 5 as in the first line"),
        (not_text, r"cannot be read as text"),
        (a_session_missing, r"line 4 names no session"),
        (no_table, r"trials\.csv: found no such file"),
        (nan_in_scans, r"betas\.npy: scan 3 holds a NaN or infinite value in voxel 7"),
        (
            transposed,
            r"found 30 scans, expected 12 as trials\.csv lists \(rows are scans: is the matrix transposed\?\)",
        ),
        (
            pickled,
            r"found pickled Python objects \(GLMsingle's own.*\.hdf5 or \.mat file, or save its betasmd with np\.save",
        ),
        (truncated, r"betas\.npy: found a file that cannot be read"),
        (words, r"found values of type <U1, expected real numbers"),
        (three_axes, r"found an array of shape \(4, 3, 5\), expected two axes \(scans, voxels\) or four"),
        (volumes_without_mask, r"found volumes of \(4, 3, 5\), and no mask"),
        (no_scans, r"betas\.npy: found no such file"),
    ],
)
def test_every_mistake_is_one_sentence(data: OwnData, mistake: Callable[[OwnData], None], sentence: str) -> None:
    mistake(data)
    with pytest.raises(InputError, match=sentence) as caught:
        read_custom(read_table(data.table), data.scans)
    assert "\n" not in str(caught.value)


def test_a_column_that_contradicts_the_option(data: OwnData) -> None:
    with pytest.raises(InputError, match="scan_from_0 and --scan-base 1 contradict each other"):
        read_table(data.table, scan_base=1)


def test_sessions_are_needed_to_z_score_them(data: OwnData) -> None:
    data.write_rows([{key: value for key, value in row.items() if key != "session"} for row in data.rows()])
    with pytest.raises(InputError, match="found no column session"):
        read_custom(read_table(data.table), data.scans, zscore="session")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2\n3,four\n", r"line 2 holds 'four' in column 2, expected numbers only"),
        ("a,2\n3,4\n", r"line 1 holds 'a' in column 1"),
        (",v1,v2\n0,1,2\n", r"first column without a name \(row numbers\?\).*index=False"),
        ("1,2\n3\n", r"line 2 has 1 cells, expected 2"),
        ("", r"found 0 scans of 0 voxels"),
    ],
)
def test_text_that_is_no_matrix(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "betas.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        open_scans(path)


def test_masks_that_do_not_fit(data: OwnData, tmp_path: Path) -> None:
    table, volumes = read_table(data.table), save_volumes(data)
    other = data.save_nifti(tmp_path / "other.nii.gz", np.ones((4, 3, 6), dtype=np.int16))
    with pytest.raises(InputError, match=r"found a grid of \(4, 3, 5\), expected \(4, 3, 6\) as in other"):
        read_custom(table, volumes, other)
    moved = data.save_nifti(tmp_path / "moved.nii.gz", data.mask.astype(np.int16), shift=2)
    with pytest.raises(InputError, match="in another place"):
        read_custom(table, volumes, moved)
    with pytest.raises(InputError, match="found 30 columns, expected 72"):
        read_custom(table, data.scans, other)
    empty = data.save_nifti(tmp_path / "empty.nii.gz", -data.mask.astype(np.int16))
    with pytest.raises(InputError, match="found no voxel above 0"):
        read_custom(table, volumes, empty)
    with pytest.raises(InputError, match=r"expected \(4, 3, 5\) as in mask"):
        read_custom(table, volumes, data.mask_file, {"V1": other})
    with pytest.raises(InputError, match="and the scans have no grid"):
        read_custom(table, data.scans, None, {"V1": other})
    np.save(tmp_path / "short.npy", np.ones(29))
    with pytest.raises(InputError, match=r"found 29 values for region V1, expected 30"):
        read_custom(table, data.scans, None, {"V1": tmp_path / "short.npy"})
    with pytest.raises(
        InputError, match=r"another kind of file, expected a matrix of scans whose name ends in \.npy, \.csv"
    ):
        read_custom(table, tmp_path / "betas.npz")


def test_datasets_of_hdf5_are_named(data: OwnData) -> None:
    path = save_hdf5(data)
    with h5py.File(path, "a") as file:
        file["other"] = data.matrix[:, :4]
    with pytest.raises(InputError, match=r"found 2 datasets \(other, run/betas\), expected one.*betas\.h5:DATASET"):
        open_scans(path)
    with pytest.raises(InputError, match="found no dataset nothing"):
        open_scans(path, dataset="nothing")
    assert open_scans(path, dataset="other").voxels == 4

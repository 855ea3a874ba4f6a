"""A laboratory's own scans and table, in every format that is read."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
import pytest
from scipy.io import savemat

from unibrain.errors import InputError
from unibrain.scans import read_custom, read_table
from unibrain.scans.custom_scans import open_scans, read_mask, split_dataset

GRID = (4, 3, 5)
PICTURES = tuple(f"p{number:02d}.png" for number in range(8))


@dataclass
class CustomData:
    """Twelve scans of eight pictures, the last four pictures twice; 30 of 60 voxels are inside the mask."""

    root: Path
    volumes: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        self.matrix = self.volumes[self.mask].T
        self.table, self.scans = self.root / "trials.csv", self.root / "betas.npy"
        self.mask_file = self.root / "mask.nii.gz"

    def rows(self) -> list[dict[str, str]]:
        with self.table.open(newline="") as file:
            return list(csv.DictReader(file))

    def write_rows(self, rows: list[dict[str, str]], path: Path | None = None) -> None:
        with (path or self.table).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path and path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)

    def save_nifti(self, path: Path, volume: np.ndarray, shift: float = 0) -> Path:
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[0, 3] = shift
        nibabel.save(nibabel.Nifti1Image(volume, affine), path)
        return path


@pytest.fixture
def data(tmp_path: Path) -> CustomData:
    random = np.random.default_rng(5)
    mask = np.zeros(GRID, dtype=bool)
    mask.reshape(-1)[random.permutation(60)[:30]] = True
    shown = [*range(8), *range(4, 8)]
    volumes = random.normal(size=(*GRID, len(shown))).astype(np.float32)
    data = CustomData(tmp_path, volumes, mask)
    np.save(data.scans, data.matrix)
    data.save_nifti(data.mask_file, mask.astype(np.int16))
    data.write_rows(
        [
            {
                "scan_from_0": str(scan),
                "picture": PICTURES[picture],
                "captions": f"a thing {picture}|  something  like {picture} ",
                "session": "monday" if scan < 8 else "tuesday",
                "split": "test" if picture in (1, 5) else "train",
            }
            for scan, picture in enumerate(shown)
        ]
    )
    return data


def write_hdf5(path: Path, datasets: dict[str, np.ndarray], matlab: str = "") -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        if matlab:
            file[matlab].attrs["MATLAB_class"] = np.bytes_(b"single")


def write_table(path: Path, matrix: np.ndarray) -> None:
    pandas.DataFrame(matrix, columns=[f"voxel {n}" for n in range(30)]).to_csv(path, index=False)


FORMATS: dict[str, Callable[[Path, CustomData], object]] = {
    "betas.npy": lambda path, data: np.save(path, data.matrix),
    "betas.csv": lambda path, data: write_table(path, data.matrix),
    "betas.tsv": lambda path, data: np.savetxt(path, data.matrix, delimiter="\t", fmt="%.9g"),
    "betas.h5": lambda path, data: write_hdf5(path, {"run/betas": data.matrix}),
    "betas.mat": lambda path, data: write_hdf5(path, {"betas": data.matrix.T}, "betas"),
    "voxels.npy": lambda path, data: np.save(path, data.matrix.T[:, None, None, :]),
    "betas.nii.gz": lambda path, data: data.save_nifti(path, data.volumes),
    "betasmd.npy": lambda path, data: np.save(path, data.volumes),
    "fortran.npy": lambda path, data: np.save(path, np.asfortranarray(data.volumes)),
    "TYPED.hdf5": lambda path, data: write_hdf5(path, {"betasmd": data.volumes, "R2": data.volumes[..., 0]}),
    "TYPED.mat": lambda path, data: write_hdf5(
        path, {"modelmd": data.volumes.T, "R2": data.volumes[..., 0].T}, "modelmd"
    ),
    "reversed.h5": lambda path, data: write_hdf5(path, {"betas": data.volumes.T}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_matrix(data: CustomData, name: str) -> None:
    path = data.root / name
    FORMATS[name](path, data)
    mask = None if name == "voxels.npy" else read_mask(data.mask_file)
    matrix = open_scans(path, mask)
    assert (matrix.scans, matrix.voxels) == (12, 30)
    for rows in (np.arange(12), np.arange(3, 7), np.array([0, 5, 11])):
        np.testing.assert_allclose(matrix.read(rows), data.matrix[rows], rtol=1e-6)
    assert matrix.read(np.array([2])).dtype == np.float32
    if mask is not None:
        assert matrix.voxel_indices.tolist() == np.flatnonzero(data.mask).tolist()
        assert matrix.grid_shape == GRID


def test_a_subject_of_averages_z_scored_with_training_statistics(data: CustomData) -> None:
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


def test_single_training_scans_and_z_scores_per_session(data: CustomData) -> None:
    table = read_table(data.table)
    single = read_custom(table, data.scans, average="test", zscore="none")
    assert np.bincount(single.stimulus_ids).tolist() == [1, 1, 1, 1, 2, 1, 2, 2]
    np.testing.assert_allclose(single.betas[single.stimulus_ids == 4], data.matrix[[4, 8]])
    np.testing.assert_allclose(single.test.betas[1], data.matrix[[5, 9]].mean(axis=0), rtol=1e-5)
    by_session = read_custom(table, data.scans, average="test", zscore="session")
    tuesday = data.matrix[[8, 10, 11]].astype(np.float64)
    expected = (data.matrix[8] - tuesday.mean(0)) / tuesday.std(0, ddof=1)
    np.testing.assert_allclose(by_session.betas[by_session.stimulus_ids == 4][1], expected, atol=1e-5)


def test_the_order_of_lines_does_not_matter_and_the_base_is_honoured(data: CustomData, tmp_path: Path) -> None:
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


def test_unused_scans_are_left_out(data: CustomData) -> None:
    rows = data.rows()
    rows[8] |= {"split": "unused", "picture": ""}
    data.write_rows(rows)
    table = read_table(data.table)
    assert (table.rows, len(table.scans)) == (12, 11)
    assert read_custom(table, data.scans).repeats.tolist() == [1] * 5 + [2] * 3


def test_captions_of_several_columns_and_rows_are_put_together(data: CustomData) -> None:
    assert read_table(data.table).captions[3] == ("a thing 3", "something like 3")
    rows = data.rows()
    for row in rows:
        row.pop("captions")
        row |= {"caption_1": "", "caption_2": "same", "caption_10": f"last of scan {row['scan_from_0']}"}
    rows[5]["caption_1"] = "first"
    data.write_rows(rows)
    assert read_table(data.table).captions[5] == ("first", "same", "last of scan 5", "last of scan 9")


def test_without_captions_and_split(data: CustomData) -> None:
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


def test_regions_on_the_grid_and_per_voxel(data: CustomData, tmp_path: Path) -> None:
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


Mistake = Callable[[CustomData], None]


def cells(line: int = 2, **changes: str) -> Mistake:
    """Other cells in one line of the table (line 0 of the trials is line 2 of the file)."""

    def spoil(data: CustomData) -> None:
        rows = data.rows()
        rows[line] |= changes
        data.write_rows(rows)

    return spoil


def column(old: str, new: str) -> Mistake:
    return lambda data: data.write_rows([{new if key == old else key: row[key] for key in row} for row in data.rows()])


def table_text(change: Callable[[list[str]], list[str]]) -> Mistake:
    return lambda data: data.table.write_text("\n".join(change(data.table.read_text().splitlines()))) and None


def scans(change: Callable[[CustomData], Any]) -> Mistake:
    return lambda data: np.save(data.scans, change(data), allow_pickle=True)


def with_row(row: int, value: Any) -> Mistake:
    def spoil(data: CustomData) -> None:
        matrix = data.matrix.astype(np.float64)
        matrix[row] = matrix[value] if isinstance(value, int) else value
        np.save(data.scans, matrix)

    return spoil


TABLE, SCANS = "trials.csv", "betas.npy"


@pytest.mark.parametrize(
    ("mistake", "names"),
    [
        (cells(scan_from_0="1"), (TABLE, "lines 3 and 4", "scan 1")),
        (lambda data: data.write_rows(data.rows()[:-1]), (SCANS, "12", "trials.csv lists 11")),
        (cells(11, scan_from_0="12"), (TABLE, "none of them is 11")),
        (cells(scan_from_0="two"), (TABLE, "line 4", "'two'")),
        (cells(picture="../secret.png"), (TABLE, "line 4", "'../secret.png'", "leads out")),
        (cells(picture="/etc/passwd"), (TABLE, "'/etc/passwd'", "leads out")),
        (cells(picture="NaN"), (TABLE, "line 4", "names no picture")),
        (cells(8, split="test"), (TABLE, "p04.png", "train in line 6", "test in line 10")),
        (cells(split="validation"), (TABLE, "line 4", "'validation'")),
        (cells(session=""), (TABLE, "line 4", "session")),
        (cells(captions=" | "), (TABLE, "p02.png", "1 of 8")),
        (cells(captions="nan|NaN"), (TABLE, "p02.png", "1 of 8")),
        (column("scan_from_0", "scan"), (TABLE, "0 or 1", "--scan-base")),
        (column("scan_from_0", "trial"), (TABLE, "no column of scans")),
        (column("picture", "image"), (TABLE, "scan_from_0, image", "picture")),
        (column("session", "SPLIT"), (TABLE, "split twice")),
        (table_text(lambda lines: [*lines[:3], lines[3] + ",more", *lines[4:]]), (TABLE, "line 4 has 6 cells", "5")),
        (table_text(lambda lines: lines[:1]), (TABLE, "1 lines")),
        (
            lambda data: data.write_rows(
                [row | {"split": "train" if row["picture"] == PICTURES[0] else "test"} for row in data.rows()]
            ),
            (TABLE, "1 training pictures", "7 test pictures"),
        ),
        (lambda data: data.table.write_bytes(b"scan_from_0,picture\n0,\xff\xfe\n") and None, (TABLE, "UTF-8")),
        (lambda data: data.scans.unlink(), (SCANS, "no such file")),
        (with_row(3, np.where(np.arange(30) == 7, np.nan, 1)), (SCANS, "scan 3", "voxel 7")),
        (with_row(3, 0.0), (SCANS, "scan 3", "is 0 in all voxels")),
        (with_row(3, 2), (SCANS, "scans 2 and 3", "identical", "p02.png and p03.png")),
        (with_row(3, np.full(30, 1e300)), (SCANS, "1e+300", "32-bit")),
        (scans(lambda data: data.matrix.astype(np.float64) * 1e-300), (SCANS, "e-30", "32-bit")),
        (scans(lambda data: data.matrix.T), (SCANS, "30 scans", "transposed")),
        (scans(lambda data: np.array({"betasmd": data.volumes}, dtype=object)), (SCANS, "pickled", "GLMsingle")),
        (scans(lambda data: data.matrix.astype(complex)), (SCANS, "complex")),
        (scans(lambda data: data.volumes[..., 0]), (SCANS, "(4, 3, 5)")),
        (scans(lambda data: data.volumes), (SCANS, "(4, 3, 5)", "--mask")),
    ],
)
def test_what_is_wrong_is_named(data: CustomData, mistake: Mistake, names: tuple[str, ...]) -> None:
    mistake(data)
    with pytest.raises(InputError) as caught:
        read_custom(read_table(data.table), data.scans)
    head, _, rest = str(caught.value).partition(": ")
    assert head == str(data.root / names[0])
    assert "\n" not in rest
    for name in names[1:]:
        assert name in rest


def test_options_that_do_not_fit_the_table(data: CustomData) -> None:
    with pytest.raises(InputError, match="scan_from_0 and --scan-base 1"):
        read_table(data.table, scan_base=1)
    data.write_rows([{key: value for key, value in row.items() if key != "session"} for row in data.rows()])
    with pytest.raises(InputError, match=r"trials\.csv: .*session"):
        read_custom(read_table(data.table), data.scans, zscore="session")


def test_the_same_scan_twice_for_one_picture_is_a_warning(data: CustomData, caplog: pytest.LogCaptureFixture) -> None:
    with_row(8, 4)(data)
    read_custom(read_table(data.table), data.scans)
    assert "scans 4 and 8 (counted from 0) are identical" in caplog.text


def test_one_picture_in_two_normal_forms_is_one_picture(data: CustomData) -> None:
    cells(4, picture="caf\u00e9.png")(data)
    cells(8, picture="cafe\u0301.png")(data)
    table = read_table(data.table)
    assert table.pictures.count("caf\u00e9.png") == 1
    assert table.stimulus_ids[4] == table.stimulus_ids[8]


def text_file(text: str) -> Callable[[Path], Path]:
    return lambda folder: folder.joinpath("betas.csv").write_text(text) and folder / "betas.csv"


def old_matlab(folder: Path) -> Path:
    savemat(folder / "betas.mat", {"betas": np.ones((12, 30))})
    return folder / "betas.mat"


def cut_volumes(folder: Path) -> Path:
    path = folder / "betas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 5, 12)), np.diag([2, 2, 2, 1])), path)
    path.write_bytes(path.read_bytes()[:-4])
    return path


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (text_file("1,2\n3,four\n"), ("line 2", "'four'", "column 2")),
        (text_file("a,2\n3,4\n"), ("line 1", "'a'")),
        (text_file(",v1,v2\n0,1,2\n"), ("first column", "index=False")),
        (text_file("scan,v1,v2\n" + "".join(f"{n},{n * n},3\n" for n in range(5))), ("named scan", "index=False")),
        (text_file("trial,v1\n" + "".join(f"{n},{n * n}.5\n" for n in range(1, 9))), ("named trial", "index=False")),
        (text_file("1,2\n3\n"), ("line 2", "1 cells")),
        (text_file("\n"), ("no numbers",)),
        (cut_volumes, ("truncated",)),
        (old_matlab, ("-v7.3", "import numpy, scipy.io", "scipy.io.loadmat('betas.mat')")),
        (lambda folder: folder / "betas.npz", (".npy, .csv",)),
    ],
)
def test_files_that_are_no_matrix(data: CustomData, write: Callable[[Path], Path], names: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        open_scans(write(data.root), read_mask(data.mask_file))
    for name in names:
        assert name in str(caught.value)


def test_masks_that_do_not_fit(data: CustomData, tmp_path: Path) -> None:
    table, volumes = read_table(data.table), data.save_nifti(tmp_path / "betas.nii.gz", data.volumes)
    other = data.save_nifti(tmp_path / "other.nii.gz", np.ones((4, 3, 6), dtype=np.int16))
    moved = data.save_nifti(tmp_path / "moved.nii.gz", data.mask.astype(np.int16), shift=2)
    empty = data.save_nifti(tmp_path / "empty.nii.gz", -data.mask.astype(np.int16))
    np.save(tmp_path / "short.npy", np.ones(29))
    for scans_file, mask, regions, names in (
        (volumes, other, {}, ("betas.nii.gz", "(4, 3, 5)", "other.nii.gz has (4, 3, 6)")),
        (volumes, moved, {}, ("betas.nii.gz", "another place")),
        (data.scans, other, {}, ("betas.npy", "30 columns", "72 voxels")),
        (volumes, empty, {}, ("empty.nii.gz", "no voxel above 0")),
        (volumes, data.mask_file, {"V1": other}, ("other.nii.gz", "mask.nii.gz has (4, 3, 5)")),
        (data.scans, None, {"V1": other}, ("other.nii.gz", "region V1")),
        (data.scans, None, {"V1": tmp_path / "short.npy"}, ("short.npy", "29 values for region V1", "30")),
    ):
        with pytest.raises(InputError) as caught:
            read_custom(table, scans_file, mask, regions)
        head, _, rest = str(caught.value).partition(": ")
        assert head.endswith(names[0])
        for name in names[1:]:
            assert name in rest


def test_datasets_of_hdf5_are_named(data: CustomData) -> None:
    path = data.root / "betas.h5"
    write_hdf5(path, {"run/betas": data.matrix, "other": data.matrix[:, :4]})
    for dataset, names in ((None, "other, run/betas"), ("nothing", "no dataset nothing"), ("run", "run is a group")):
        with pytest.raises(InputError, match=names):
            open_scans(path, dataset=dataset)
    assert open_scans(path, dataset="other").voxels == 4
    assert split_dataset(f"{path}:run/betas") == (path, "run/betas")

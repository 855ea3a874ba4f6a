"""BIDS derivatives of GLMsingle and LAION-fMRI, against a naive reading of the arrays that were written."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest
from bids_tree import (
    LABELS,
    SHOWN,
    TEST,
    TRAIN,
    BidsData,
    make,
    save,
    split,
    write_captions,
    write_glmsingle,
    write_laion,
)

from unibrain.errors import InputError
from unibrain.scans import Subject, read_bids, read_custom, read_picture_split
from unibrain.scans.custom import ListedScans
from unibrain.scans.custom_table import read_captions

WRITERS: dict[str, Callable[[BidsData], None]] = {"laion": write_laion, "glmsingle": write_glmsingle}


@pytest.fixture
def data(tmp_path: Path) -> BidsData:
    return make(tmp_path)


def listed(data: BidsData, **options: object) -> ListedScans:
    chosen = {"split": read_picture_split(str(data.split_file))} | options
    return read_bids(data.root, "01", **chosen)  # type: ignore[arg-type]


def read(data: BidsData, found: ListedScans, **options: object) -> Subject:
    return read_custom(found.table, found.scans, found.mask or data.mask_file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_subject_equals_a_naive_reading(data: BidsData, layout: str) -> None:
    WRITERS[layout](data)
    found = listed(data)
    assert found.table.sessions == ("ses-01", "ses-02")
    assert [path.parent.parent.name for path in found.scans] == ["ses-01", "ses-02"]
    subject = read(data, found)
    averages = data.matrix().groupby(level="picture").mean().loc[sorted((*TRAIN, *TEST))]
    train = averages.loc[list(TRAIN)]
    # A voxel without any estimate is dropped; a picture of the one session without gets the training mean.
    expected = ((averages - train.mean()) / train.std()).dropna(axis=1, how="all").fillna(0)
    assert expected.shape == (6, 24)
    np.testing.assert_allclose(subject.betas, expected, atol=1e-5)
    assert [found.table.pictures[n] for n in subject.stimulus_ids] == [LABELS[n] for n in expected.index]
    assert [LABELS.index(found.table.pictures[n]) for n in subject.test.stimulus_ids] == list(TEST)
    assert subject.repeats.tolist() == data.matrix().groupby(level="picture").size()[list(expected.index)].tolist()
    assert subject.voxel_indices.tolist() == np.delete(np.flatnonzero(data.mask), 9).tolist()
    assert subject.grid_shape == (4, 3, 5)
    np.testing.assert_allclose(subject.statistics, [train.mean().dropna(), train.std().dropna()], rtol=1e-5)
    assert "4 of 5 training and 2 of 2 test pictures have scans; 3 scans of other pictures" in found.table.split


def test_z_scores_of_a_session_by_itself(data: BidsData) -> None:
    write_laion(data)
    subject = read(data, listed(data), zscore="session", average="test")
    trials = data.matrix()
    trials = trials[trials.index.get_level_values("picture").isin((*TRAIN, *TEST))]
    training = trials[trials.index.get_level_values("picture").isin(TRAIN)].xs("ses-01", level="session")
    expected = (trials.xs("ses-01", level="session").loc[4] - training.mean()) / training.std()
    row = subject.betas[subject.stimulus_ids == 4][0]  # shown once, in the first session
    kept = np.delete(np.arange(25), 9)
    known = expected.to_numpy().ravel()[kept]
    assert np.isfinite(known).sum() == 23
    np.testing.assert_allclose(row[np.isfinite(known)], known[np.isfinite(known)], atol=1e-5)
    assert subject.preparation["sessions"] == ["ses-01", "ses-02"]


def test_a_split_of_the_installed_package_is_read_and_its_code_is_not_run(
    data: BidsData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_laion(data)
    with pytest.raises(InputError, match="laion_fmri is not installed"):
        read_picture_split("tau", "sub-01")
    package = tmp_path / "site" / "laion_fmri"
    for pool in ("sub-01", "shared"):
        (package / "splits" / "data" / pool).mkdir(parents=True)
        (package / "splits" / "data" / pool / "tau.json").write_text(json.dumps(split()))
    (package / "__init__.py").write_text("raise SystemExit('this was run')")
    monkeypatch.syspath_prepend(package.parent)
    for name, pool in (("tau", "sub-01"), ("shared/tau", "shared")):
        found = read_picture_split(name, "sub-01")
        assert found.is_test == read_picture_split(str(data.split_file)).is_test
        assert found.origin == f"tau of laion_fmri (pool {pool})"
    with pytest.raises(InputError, match=r"sub-01/ood\.json: no such file.*the splits tau"):
        read_picture_split("ood", "sub-01")
    with pytest.raises(InputError, match=r"sub-02/tau\.json: no such file.*the pools shared, sub-01"):
        read_picture_split("tau", "sub-02")
    with pytest.raises(InputError, match=r"--split is \.\./tau"):
        read_picture_split("../tau", "sub-01")


def test_captions_of_a_table_of_their_own(data: BidsData, tmp_path: Path) -> None:
    write_laion(data)
    write_captions(tmp_path / "captions.csv")
    table = listed(data, captions=tmp_path / "captions.csv").table
    assert table.captions[2] == (f"first of {table.pictures[2]}", f"second of {table.pictures[2]}")
    assert read_captions(tmp_path / "captions.csv")["unique_a.jpg"][0] == "first of unique_a.jpg"


def test_without_a_split_pictures_are_drawn_and_the_only_mask_is_found(data: BidsData) -> None:
    write_glmsingle(data)
    assert listed(data).mask is None
    save(data.root / "sub-01" / "sub-01_desc-brain_mask.nii.gz", data.mask.astype(np.uint8))
    found = read_bids(data.root, "sub-01", test_share=0.25)
    assert found.mask == data.root / "sub-01" / "sub-01_desc-brain_mask.nii.gz"
    assert "drawn by picture with seed 0: 2 of 8" in found.table.split
    assert len(found.table.scans) == sum(map(len, SHOWN.values()))
    assert read(data, found).betas.shape == (8, 24)


def edit(sessions: str, change: Callable[[pandas.DataFrame], pandas.DataFrame]) -> Callable[[BidsData], None]:
    def spoil(data: BidsData) -> None:
        for session in sessions.split():
            table = pandas.read_csv(data.trials(session), sep="\t")
            change(table).to_csv(data.trials(session), sep="\t", index=False, na_rep="n/a")

    return spoil


def split_of(**changes: object) -> Callable[[BidsData], None]:
    return lambda data: data.split_file.write_text(json.dumps(split() | changes)) and None


def variant(train: list[str], test: list[str]) -> Callable[[BidsData], None]:
    return split_of(n_train=len(train), n_test=len(test), variants=[{"train_ids": train, "test_ids": test}])


def copy_betas(data: BidsData) -> None:
    save(data.file("ses-01", "desc-SingletrialOther_statmap.nii.gz"), data.volumes["ses-01"])


def no_betas(data: BidsData) -> None:
    for session in SHOWN:
        data.betas(session).unlink()


def smaller(data: BidsData) -> None:
    save(data.betas("ses-02"), data.volumes["ses-02"][:3])


def hole(data: BidsData) -> None:
    volumes = data.volumes["ses-02"]
    volumes[(*np.argwhere(data.mask)[7], 4)] = np.nan
    save(data.betas("ses-02"), volumes)


def twice(data: BidsData) -> None:
    first, second = (np.nan_to_num(data.volumes[session]) for session in SHOWN)
    second[..., 1] = first[..., 0]
    save(data.betas("ses-01"), first)
    save(data.betas("ses-02"), second)


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (no_betas, ("sub-01: holds no betas", "*desc-singletrial*_statmap.nii*", "--betas")),
        (copy_betas, ("desc-SingletrialBetas_statmap.nii.gz", "desc-SingletrialOther_", "may both", "--betas")),
        (lambda data: data.trials("ses-02").unlink(), ("ses-02", "no table of trials beside", "*_events.tsv")),
        (edit("ses-01", lambda t: t.rename(columns={"label": "shown"})), ("trials.tsv", "shown", "stim_file")),
        (edit("ses-01", lambda t: t[t.beta_index != 3]), ("trials.tsv", "8 scans", "none of them is 3")),
        (edit("ses-01", lambda t: t.assign(beta_index=0)), ("trials.tsv", "lines 2 and 3", "scan 0")),
        (edit("ses-02", lambda t: t[t.beta_index < 5]), ("statmap.nii.gz: holds 6 scans", "trials.tsv lists 5")),
        (edit("ses-01 ses-02", lambda t: t.assign(split="dev")), ("trials.tsv: line 2", "'dev'")),
        (edit("ses-01 ses-02", lambda t: t.assign(split="train")), ("a column split, and --split",)),
        (edit("ses-02", lambda t: t.assign(label="/etc/passwd")), ("ses-02", "'/etc/passwd'", "leads out")),
        (smaller, ("ses-02", "(3, 3, 5)", "visual.nii.gz")),
        (hole, ("ses-02", "scan 4 holds a NaN", "voxel 7")),
        (twice, ("ses-02", "scan 1 is identical to scan 0 of sub-01_ses-01", "cluster_0", "cluster_2")),
        (lambda data: data.split_file.write_text("[1]") and None, ("tau.json", "no split", "train_ids")),
        (lambda data: data.split_file.unlink(), ("tau.json", "no such file")),
        (split_of(n_test=3), ("tau.json", "test_ids has 2 pictures, not 3")),
        (variant([LABELS[1], LABELS[0]], [LABELS[0]]), ("tau.json", f"{LABELS[0]} is listed twice")),
        (variant([LABELS[1], "x"], ["y"]), ("sub-01", "1 training pictures and 0 test pictures")),
        (variant(["x", "y"], ["z"]), ("sub-01", "none of its 15 scans", "tau.json")),
        (variant([3], ["z"]), ("tau.json", "3, which is no file name")),
    ],
)
def test_what_is_wrong_is_named(data: BidsData, spoil: Callable[[BidsData], None], names: tuple[str, ...]) -> None:
    write_laion(data)
    spoil(data)
    with pytest.raises(InputError) as caught:
        read(data, listed(data))
    for name in names:
        assert name in str(caught.value)


def test_folders_events_and_files_of_glmsingle_that_do_not_fit(data: BidsData) -> None:
    write_glmsingle(data)
    for subject, match in (("02", r"sub-02: no such folder \(subjects there: sub-01\)"), ("../01", "--subject is")):
        with pytest.raises(InputError, match=match):
            read_bids(data.root, subject)
    with pytest.raises(InputError, match=r"holds no betas named mine\*"):
        read_bids(data.root, "01", "mine*")
    events = next((data.root / "sub-01" / "ses-01").rglob("*run-10_events.tsv"))
    text = events.read_text()
    for before, after, match in (
        ("4.0\t2.0", "-4.0\t2.0", r"run-10_events\.tsv: line 3 begins before"),
        ("4.0\t2.0", "soon\t2.0", "line 3 has the onset 'soon'"),
    ):
        events.write_text(text.replace(before, after, 1))
        with pytest.raises(InputError, match=match):
            read_bids(data.root, "01")
    events.write_text(text)
    with h5py.File(next((data.root / "sub-01" / "ses-02").rglob("TYPED*")), "r+") as file:
        short = file["betasmd"][:20]
        del file["betasmd"]
        file["betasmd"] = short
    with pytest.raises(InputError, match=r"has 20 voxels, but visual\.nii\.gz has 25"):
        read(data, listed(data))

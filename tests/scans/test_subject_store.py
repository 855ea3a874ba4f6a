import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.scans import Subject, load_subject, read_nsd, save_subject


@pytest.fixture(scope="module")
def subject(tree: Path) -> Subject:
    return read_nsd(tree)


def test_round_trip(subject: Subject, tmp_path: Path) -> None:
    save_subject(tmp_path / "subject.npz", subject)
    back = load_subject(tmp_path / "subject.npz")
    for name in ("betas", "stimulus_ids", "is_test", "repeats", "voxel_indices", "noise_ceiling"):
        np.testing.assert_array_equal(getattr(back, name), getattr(subject, name))
        assert getattr(back, name).dtype == getattr(subject, name).dtype
    assert list(back.regions) == list(subject.regions)
    for name, voxels in subject.regions.items():
        np.testing.assert_array_equal(back.regions[name], voxels)
    assert (back.name, back.grid_shape, back.simulated) == (subject.name, subject.grid_shape, True)
    assert [path.name for path in tmp_path.iterdir()] == ["subject.npz"]


def test_no_pickle_is_inside(subject: Subject, tmp_path: Path) -> None:
    save_subject(tmp_path / "subject.npz", subject)
    with np.load(tmp_path / "subject.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(file["description"].tobytes())["name"] == "subj01"


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.npz: found no such file"):
        load_subject(tmp_path / "nothing.npz")


def test_truncated(subject: Subject, tmp_path: Path, truncate: Callable[[Path], None]) -> None:
    path = tmp_path / "subject.npz"
    save_subject(path, subject)
    truncate(path)
    with pytest.raises(InputError, match=r"subject\.npz.*truncated"):
        load_subject(path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "subject.npz"
    np.savez(path, description=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"subject\.npz"):
        load_subject(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays: arrays.pop("repeats"), "no array repeats"),
        (lambda arrays: arrays.update(betas=arrays["betas"].astype(float)), "float64"),
        (lambda arrays: arrays.update(betas=arrays["betas"][:, 1:]), "one entry per voxel"),
        (lambda arrays: arrays.update(description=np.frombuffer(b"{", dtype=np.uint8)), "cannot be read"),
        (
            lambda arrays: arrays.update(
                description=np.frombuffer(
                    arrays["description"].tobytes().replace(b'"version": 1', b'"version": 9'), dtype=np.uint8
                )
            ),
            "version 9",
        ),
    ],
)
def test_something_else(subject: Subject, tmp_path: Path, change: Callable[[dict], None], says: str) -> None:
    path = tmp_path / "subject.npz"
    save_subject(path, subject)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=says):
        load_subject(path)


def test_full_disk_leaves_the_old_file(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "subject.npz"
    save_subject(path, subject)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="no space left"):
        save_subject(path, subject)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1

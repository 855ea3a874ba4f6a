"""A subject in memory and in its file."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unibrain.errors import DamagedFileError, InputError
from unibrain.scans import PrepareSettings, Subject, load_subject, read_nsd, save_subject

ARRAYS = ("betas", "stimulus_ids", "is_test", "repeats", "voxel_indices", "noise_ceiling", "statistics")


@pytest.fixture(scope="module")
def subject(tree: Path) -> Subject:
    return read_nsd(tree, 1, PrepareSettings(protocol="single-trial"))


def test_round_trip(subject: Subject, tmp_path: Path) -> None:
    save_subject(tmp_path / "subject.npz", subject)
    back = load_subject(tmp_path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(subject, name))
        assert getattr(back, name).dtype == getattr(subject, name).dtype
    assert list(back.regions) == list(subject.regions)
    for name, voxels in subject.regions.items():
        np.testing.assert_array_equal(back.regions[name], voxels)
    assert (back.name, back.grid_shape, back.simulated) == (subject.name, subject.grid_shape, True)
    assert back.preparation == subject.preparation
    save_subject(tmp_path / "again.npz", back)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "subject.npz").read_bytes()


def test_one_line_says_what_it_is(subject: Subject) -> None:
    rows = f"{len(subject.betas)} rows, 6 of them test; {subject.betas.shape[1]} voxels, 8 regions"
    assert repr(subject) == f"Subject(subj01: {rows}, simulated)"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def pickled(path: Path) -> None:
    np.savez(path, description=np.array([{"a": 1}], dtype=object))


def rewritten(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        change(arrays)
        np.savez(path, **arrays)

    return write


def one_number(arrays: dict) -> None:
    arrays["betas"][3, 4] += 1


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        pickled,
        lambda path: path.write_bytes(b""),
        rewritten(one_number),
        rewritten(lambda arrays: arrays.pop("repeats")),
        rewritten(lambda arrays: arrays.pop("checksum")),
        rewritten(lambda arrays: arrays.update(betas=arrays["betas"].astype(float))),
    ],
)
def test_damage_is_never_read(subject: Subject, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "subject.npz"
    save_subject(path, subject)
    damage(path)
    with pytest.raises(DamagedFileError, match=r"subject\.npz: .*Prepare the subject again") as caught:
        load_subject(path)
    assert caught.value.path == path


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


def test_what_a_subject_refuses(subject: Subject) -> None:
    test, train = np.flatnonzero(subject.is_test), np.flatnonzero(~subject.is_test)
    twice, both, wild = subject.stimulus_ids.copy(), subject.stimulus_ids.copy(), subject.betas.copy()
    twice[test[1]] = twice[test[0]]
    both[train[0]] = both[test[0]]
    wild[0, 0] = np.nan
    for changes, says in (
        ({"stimulus_ids": twice}, "id of a test image appears twice"),
        ({"stimulus_ids": both}, f"{both[test[0]]} is both in training and in test"),
        ({"repeats": np.full_like(subject.repeats, 3)}, "average of 3 trials"),
        ({"betas": wild}, "NaN"),
        ({"betas": subject.betas[:, 1:]}, "one entry per voxel"),
        ({"is_test": subject.is_test[1:]}, "one entry per image"),
        ({"regions": {"V1": np.ones(3, dtype=bool)}}, "region V1"),
    ):
        with pytest.raises(InputError, match=says):
            replace(subject, **changes)

"""Each file is read once, some volumes at a time; a stopped preparation continues at the session."""

import logging
import shutil
import tracemalloc
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from unibrain.demo.nsd_tree import write_betas
from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.scans import nsd as ceiling
from unibrain.scans import nsd_betas as sessions
from unibrain.scans.nsd_design import Design
from unibrain.scans.nsd_layout import NsdLayout


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sessions in the order in which they are read."""
    numbers: list[int] = []
    real = sessions.read_betas

    def read(path: Path, *rest: object) -> np.ndarray:
        numbers.append(int(path.name[len("betas_session") :][:2]))
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "read_betas", read)
    return numbers


@pytest.mark.parametrize(
    "settings", [PrepareSettings(), PrepareSettings(noise_ceiling="recompute", protocol="session-zscore")]
)
def test_each_file_is_read_once(tree: Path, opened: list[int], settings: PrepareSettings) -> None:
    read_nsd(tree, 1, settings)
    assert opened == [1, 2, 3]


def test_a_stopped_preparation_continues_at_the_session(own_tree: NsdLayout, tmp_path: Path, opened: list[int]) -> None:
    whole = read_nsd(own_tree.root)
    third = own_tree.betas(3, "hdf5")
    content = third.read_bytes()
    third.write_bytes(content[: len(content) // 2])
    scratch = tmp_path / "scratch"
    with pytest.raises(InputError, match="truncated"):
        read_nsd(own_tree.root, 1, None, scratch)
    third.write_bytes(content)
    opened.clear()
    np.testing.assert_array_equal(read_nsd(own_tree.root, 1, None, scratch).betas, whole.betas)
    assert opened == [3]
    opened.clear()
    read_nsd(own_tree.root, 1, PrepareSettings(zscore="session"), scratch)
    assert opened == [], "what was read does not depend on what comes after"


def test_what_changed_is_read_again(own_tree: NsdLayout, tmp_path: Path, opened: list[int]) -> None:
    scratch = tmp_path / "scratch"
    read_nsd(own_tree.root, 1, None, scratch)
    opened.clear()
    with h5py.File(own_tree.betas(2, "hdf5"), "r+") as file:
        file["betas"][...] = file["betas"][...] * 2
    changed = read_nsd(own_tree.root, 1, None, scratch)
    assert opened == [2]
    np.testing.assert_array_equal(changed.betas, read_nsd(own_tree.root).betas)
    opened.clear()
    read_nsd(own_tree.root, 1, PrepareSettings(mask="V1"), scratch)
    assert opened == [1, 2, 3]
    assert len(list(scratch.iterdir())) == 3, "nothing of another mask is kept"
    kept = next(scratch.iterdir())
    kept.write_bytes(kept.read_bytes()[:-5])
    opened.clear()
    read_nsd(own_tree.root, 1, PrepareSettings(mask="V1"), scratch)
    assert len(opened) == 1, "a file that was cut short is not believed"


def test_no_temporary_folder_is_left(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read_nsd(tree)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["hdf5", "nifti"])
def test_a_session_is_never_in_memory_as_a_whole(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, grid, trials = NsdLayout(tmp_path), (20, 20, 20), 500
    brain = np.zeros(grid, dtype=bool)
    brain[5:15, 5:15, 5:15] = True
    stored = np.random.default_rng(0).integers(-9, 9, (trials, 1000)).astype(np.int16)
    write_betas(layout, 1, brain, stored, (kind,))
    mask = np.zeros(grid, dtype=bool)
    mask[5:8, 5:15, 5:7] = True
    monkeypatch.setattr(sessions, "_BYTES_AT_ONCE", 2**19)
    tracemalloc.start()
    try:
        read, stored_as = sessions.read_betas(layout.betas(1, kind), mask, trials, kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(read, stored.T[mask[brain]])
    assert stored_as == "plain"
    assert peak < trials * 8000 * 2 / 4, "a quarter of the file"


@pytest.mark.parametrize("dtype", ["<f4", ">i2"])
def test_betas_of_any_type(own_tree: NsdLayout, dtype: str) -> None:
    before = read_nsd(own_tree.root)
    for session in (1, 2, 3):
        path = own_tree.betas(session, "nifti")
        image = nibabel.load(path)
        stored = np.asarray(image.dataobj).astype(dtype)
        nibabel.save(nibabel.Nifti1Image(stored, image.affine, nibabel.Nifti1Header(endianness=dtype[0])), path)
        with h5py.File(own_tree.betas(session, "hdf5"), "r+") as file:
            stored = file["betas"][...]
            del file["betas"]
            file["betas"] = stored.astype(dtype)
    for kind in ("nifti", "hdf5"):
        np.testing.assert_array_equal(read_nsd(own_tree.root, 1, PrepareSettings(file_format=kind)).betas, before.betas)


def test_sessions_of_another_subject_are_pointed_out(own_tree: NsdLayout, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_nsd(own_tree.root, 1, PrepareSettings(mask="brainmask"))
    assert "resemble" not in caplog.text
    shutil.copy(NsdLayout(own_tree.root, 2).betas(2, "hdf5"), own_tree.betas(2, "hdf5"))
    with caplog.at_level(logging.WARNING):
        read_nsd(own_tree.root, 1, PrepareSettings(mask="brainmask"))
    assert "betas_session02.hdf5: its mean response over voxels does not resemble" in caplog.text
    shutil.copy(own_tree.betas(1, "hdf5"), own_tree.betas(2, "hdf5"))
    with caplog.at_level(logging.WARNING):
        read_nsd(own_tree.root)
    assert "betas_session02.hdf5: holds the same betas as betas_session01.hdf5" in caplog.text


def test_the_recomputed_ceiling_is_that_of_the_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = read_nsd(tree)
    again = read_nsd(tree, 1, PrepareSettings(noise_ceiling="recompute"))
    np.testing.assert_allclose(again.noise_ceiling, stored.noise_ceiling, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(ceiling, "_VALUES_AT_ONCE", 0)  # blocks of 16 voxels
    blocks = read_nsd(tree, 1, PrepareSettings(noise_ceiling="recompute"))
    np.testing.assert_array_equal(blocks.noise_ceiling, again.noise_ceiling)


def test_a_ceiling_needs_images_with_three_trials(tmp_path: Path) -> None:
    design = Design((1,), np.ones(4, dtype=np.int64), np.array([5, 5, 6, 7]), np.zeros(4, dtype=bool))
    stored = sessions.MaskedSessions({1: tmp_path / "session.npy"}, {1: tmp_path / "betas_session01.hdf5"})
    with pytest.raises(InputError, match="no image has 3 trials"):
        ceiling.recompute_noise_ceiling(stored, design)

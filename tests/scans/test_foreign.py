"""Files of others: each fault has its own sentence; paths inside, pickles and impossible sizes are refused."""

import errno
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from scipy.io import savemat

from unibrain.errors import DamagedFileError, InputError
from unibrain.scans import foreign
from unibrain.scans.foreign import (
    file_inside,
    hdf5_dataset,
    open_hdf5,
    open_nifti,
    open_npy,
    read_columns,
    read_json,
    read_mat,
    read_volume,
    reading,
    whole_numbers,
)

SECRET = np.arange(6.0)


def hdf5(path: Path) -> Any:
    with open_hdf5(path, "betas") as file:
        return hdf5_dataset(path, file, "betas")[()]


def volume(path: Path) -> Any:
    return read_volume(path, "a mask")


def mat(path: Path) -> Any:
    return read_mat(path, ["order"], "the design")


READERS: dict[str, Callable[[Path], Any]] = {
    "a.h5": hdf5,
    "a.npy": lambda path: open_npy(path, "betas"),
    "text.npy": lambda path: open_npy(path, "captions", kinds="U"),
    "a.nii": volume,
    "a.nii.gz": volume,
    "a.mat": mat,
    "a.csv": lambda path: whole_numbers(path, read_columns(path, ",", ["id"], "the table"), ["id"]),
    "a.json": lambda path: read_json(path, "captions"),
}


def write_hdf5(path: Path, values: Any = SECRET, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=values, **options)


def external_storage(path: Path) -> None:
    (path.parent / "secret").write_bytes(SECRET.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", (6,), "f8", external=[(str(path.parent / "secret"), 0, h5py.h5f.UNLIMITED)])


def link(path: Path) -> None:
    write_hdf5(path.parent / "other.h5")
    with h5py.File(path, "w") as file:
        file["betas"] = h5py.ExternalLink(str(path.parent / "other.h5"), "betas")


def virtual(path: Path) -> None:
    write_hdf5(path.parent / "other.h5")
    layout = h5py.VirtualLayout((6,), "f8")
    layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "betas", (6,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("betas", layout)


def group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["betas/inside"] = SECRET


def half(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def write_npy(path: Path, values: Any = SECRET) -> None:
    np.save(path, values, allow_pickle=True)


def huge_npy(path: Path) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)}
        np.lib.format.write_array_header_1_0(file, header)


VOLUME = np.ones((3, 4, 5), np.int16)


def write_nifti(path: Path, values: Any = VOLUME) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), dtype=values.dtype), path)


def huge_nifti(path: Path) -> None:
    write_nifti(path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def write_text(text: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text.encode() if isinstance(text, str) else text) and None


def cell(path: Path) -> None:
    values = np.empty((1, 2), dtype=object)
    values[:] = [["a", 1]]
    savemat(path, {"order": values})


def mat73(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["order"] = np.arange(6).reshape(3, 2)


def matlab(attribute: str, value: Any) -> Callable[[Path], None]:
    """As MATLAB 7.3 writes text, and an empty array."""

    def make(path: Path) -> None:
        mat73(path)
        with h5py.File(path, "a") as file:
            file["order"].attrs[attribute] = value

    return make


TRUNCATED, ELSEWHERE = "truncated or damaged", "other files"


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("a.h5", external_storage, ELSEWHERE),
        ("a.h5", virtual, ELSEWHERE),
        ("a.h5", link, "link"),
        ("a.h5", group, "is a group"),
        ("a.h5", lambda path: write_hdf5(path, None, dtype="f8", shape=(10**7, 10**7), chunks=(1000, 1000)), TRUNCATED),
        ("a.h5", half(write_hdf5), TRUNCATED),
        ("a.h5", lambda path: write_hdf5(path, np.array([b"a"])), "text"),
        ("a.h5", lambda path: write_hdf5(path, h5py.Empty("f8")), "empty"),
        ("a.h5", lambda path: h5py.File(path, "w").close(), "no dataset betas"),
        ("a.h5", write_text("<html>"), "no HDF5"),
        ("a.h5", write_text(""), "is empty"),
        ("a.npy", lambda path: write_npy(path, {"a": 1}), "pickled"),
        ("a.npy", lambda path: write_npy(path, np.array([1j])), "complex"),
        ("a.npy", huge_npy, TRUNCATED),
        ("a.npy", half(write_npy), TRUNCATED),
        ("a.npy", write_text("PK\3\4"), "no .npy"),
        ("text.npy", write_npy, "not text"),
        ("a.nii.gz", lambda path: write_nifti(path, np.ones((2, 2, 2), np.complex64)), "complex"),
        ("a.nii.gz", lambda path: write_nifti(path, np.ones((2, 2), np.int16)), "(2, 2)"),
        ("a.nii.gz", huge_nifti, TRUNCATED),
        ("a.nii.gz", half(write_nifti), TRUNCATED),
        ("a.nii", half(write_nifti), TRUNCATED),
        ("a.nii", write_text("x" * 400), "no NIfTI"),
        ("a.nii.gz", write_text("<html>"), "gzip"),
        ("a.mat", cell, "Python objects"),
        ("a.mat", lambda path: savemat(path, {"order": "text"}), "text"),
        ("a.mat", lambda path: savemat(path, {"other": 1}), "no field order"),
        ("a.mat", half(lambda path: savemat(path, {"order": SECRET})), TRUNCATED),
        ("a.mat", half(mat73), TRUNCATED),
        ("a.mat", matlab("MATLAB_class", np.bytes_(b"char")), "text"),
        ("a.mat", matlab("MATLAB_empty", np.uint8(1)), "is empty"),
        ("a.csv", write_text("name\nx\n"), "no column id"),
        ("a.csv", write_text("id\n1\nx\n"), "'x' in row 2"),
        ("a.csv", write_text(b"id\n\xff\n"), TRUNCATED),
        ("a.json", write_text('{"a": '), TRUNCATED),
        ("a.json", write_text("[" * 100_000), TRUNCATED),
    ],
)
def test_each_fault_has_its_own_sentence(tmp_path: Path, name: str, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError) as caught:
        READERS[name](path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert says in text
    assert "\n" not in text
    assert (TRUNCATED in text) == (says == TRUNCATED), "only what is damaged is called so"


@pytest.mark.parametrize("read", READERS.values())
def test_what_is_not_there(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    for name, says in (("nothing.nii", "no such file"), ("", "folder"), ("loop.nii", "loop of symbolic links")):
        with pytest.raises(InputError, match=says):
            read(tmp_path / name)


def test_good_files_are_read(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", np.zeros((1000, 1000)), compression="gzip")
    assert not hdf5(tmp_path / "a.h5").any(), "much smaller on disk than in memory"
    mat73(tmp_path / "new.mat")
    savemat(tmp_path / "old.mat", {"order": np.arange(6).reshape(3, 2).T})
    np.testing.assert_array_equal(mat(tmp_path / "new.mat")["order"], mat(tmp_path / "old.mat")["order"])
    image = nibabel.Nifti1Image(np.linspace(-1, 1, 60).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel then writes a slope
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert open_nifti(tmp_path / "a.nii.gz", "a mask").slope != 1
    np.testing.assert_allclose(volume(tmp_path / "a.nii.gz")[0], image.get_fdata(), atol=1e-4)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError(), "memory"),
        (KeyError("betas"), TRUNCATED),
        (OSError("bad object header"), TRUNCATED),
    ],
)
def test_why_a_library_failed(error: Exception, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"scan\.x: .*{says}"), reading(tmp_path / "scan.x", "test"):
        raise error
    if says == TRUNCATED:
        with pytest.raises(DamagedFileError) as caught, reading(tmp_path / "a.npz", "npz", ours=True):
            raise error
        assert caught.value.path == tmp_path / "a.npz"


@pytest.mark.parametrize("error", [ModuleNotFoundError("nibabel"), AttributeError("a bug"), NotImplementedError()])
def test_what_is_no_damage_passes(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, reading(tmp_path / "scan.x", "test"):
        raise error
    assert caught.value is error


def test_a_compression_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "a.h5", compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda _: False)
    with pytest.raises(InputError, match="compressed with 'deflate'"):
        hdf5(tmp_path / "a.h5")


def test_names_in_another_normal_form_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "caf\u00e9"
    (folder / "e\u0301").mkdir(parents=True)
    (folder / "e\u0301" / "u\u0308.png").touch()
    assert file_inside(folder, "\u00e9/\u00fc.png").is_file()
    assert not file_inside(folder, "\u00e9/nothing\u00fc.png").exists()


def test_no_name_leads_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "here").symlink_to(folder)
    for name in ("../secret.png", "link.png", "/etc/passwd"):
        with pytest.raises(InputError, match="leads out of"):
            file_inside(folder, name)
    assert file_inside(folder, "here/here/a.png") == folder / "here/here/a.png"
    with pytest.raises(InputError, match="loop of symbolic links"):
        foreign.require_file(file_inside(folder, "loop.png"), "a picture")

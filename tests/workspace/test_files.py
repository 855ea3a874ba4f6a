import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace.files import atomic_folder, atomic_path, is_partial, read_json, sweep_partials, write_json


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "betas.nii.gz"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
    assert target.read_bytes() == b"half"
    assert entries(tmp_path) == ["betas.nii.gz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, PermissionError])
@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_an_error_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, write: Callable[[Path], Iterator[Path]], error: type[BaseException]
) -> None:
    target = tmp_path / "scores"
    target.write_text("old")
    with pytest.raises(error), write(target) as temporary:  # type: ignore[attr-defined]
        (temporary / "new" if temporary.is_dir() else temporary).write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert entries(tmp_path) == ["scores"]


class SafetensorError(Exception):
    """Stands for the errors of libraries that pass on only the system's words."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("unable to write (errno = 28, error message = 'No space left on device')"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_changes_nothing(
    tmp_path: Path, error: Exception, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "subject.npz"
    target.write_text("old")

    def full(*_: object) -> None:
        raise error

    if moment != "write":
        monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[moment], full)
    with pytest.raises(InputError, match=r"subject\.npz: no space left on the disk"), atomic_path(target) as temporary:
        temporary.write_text("ha")
        if moment == "write":
            raise error
    assert target.read_text() == "old"
    assert entries(tmp_path) == ["subject.npz"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "latents"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)
    assert entries(target) == ["second"]
    assert entries(tmp_path) == ["latents"]


def test_a_stop_between_the_two_renames_of_a_folder_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "latents"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("old")
    real, calls = Path.replace, []

    def stopped(source: Path, goal: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, goal)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert entries(target) == ["old"]
    assert entries(tmp_path) == ["latents"]


class Disk:
    """Notes what was brought to the disk, as a power cut would show: by inode, with the size at that moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.safe: dict[int, int] = {}
        self.renamed: list[Path] = []
        sync, replace = os.fsync, Path.replace

        def note_sync(descriptor: int) -> None:
            sync(descriptor)
            status = os.fstat(descriptor)
            self.safe[status.st_ino] = status.st_size

        def note_rename(source: Path, target: Path) -> None:
            for path in (source, *(source.rglob("*") if source.is_dir() else ())):
                assert self.is_safe(path), f"{path} would be empty after a power cut"
            replace(source, target)
            self.safe.pop(target.parent.stat().st_ino, None)
            self.renamed.append(target)

        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(Path, "replace", note_rename)

    def is_safe(self, path: Path) -> bool:
        status = path.stat()
        known = self.safe.get(status.st_ino)
        return known is not None and (path.is_dir() or known == status.st_size)


def test_content_is_on_the_disk_before_its_name_and_the_name_before_we_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with atomic_path(tmp_path / "subject.npz") as temporary:
        temporary.write_text("whole")
    assert disk.is_safe(tmp_path)
    with atomic_folder(tmp_path / "latents") as folder:
        (folder / "deep" / "er").mkdir(parents=True)
        for name in ("a", "deep/b", "deep/er/c"):
            (folder / name).write_text(name)
    assert disk.is_safe(tmp_path)
    assert [path.name for path in disk.renamed] == ["subject.npz", "latents"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_the_user_asked_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "decoder.safetensors") as temporary:
            temporary.write_text("private")
            temporary.chmod(0o600)
        with atomic_folder(tmp_path / "latents") as folder:
            (folder / "z").write_text("private")
            (folder / "z").chmod(0o600)
    finally:
        assert os.umask(before) == umask
    for path in (tmp_path / "decoder.safetensors", tmp_path / "latents" / "z"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_killed_writers_left_is_swept_everywhere_and_nothing_else(tmp_path: Path) -> None:
    deep = tmp_path / "predicted" / ".cache"
    deep.mkdir(parents=True)
    kept = ["settings.toml", ".lock", "my.partial.txt", ".hidden.partial"]
    for folder in (tmp_path, deep):
        for name in kept:
            (folder / name).write_text("mine")
        left = atomic_path(folder / "a.b.npz").__enter__()  # never left again: what SIGKILL does
        left.write_text("half")
        assert is_partial(left)
        (folder / ".nsd.123-0123abcd.partial").mkdir()
        (folder / ".nsd.123-0123abcd.partial" / "betas").write_text("half")
    assert len(sweep_partials(tmp_path)) == 4
    assert entries(tmp_path) == sorted([*kept, "predicted"])
    assert entries(deep) == sorted(kept)


def test_json_refuses_nan_and_keeps_letters(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert entries(tmp_path) == []
    write_json(path, {"title": "Übung"})
    assert read_json(path) == json.loads(path.read_text(encoding="utf-8")) == {"title": "Übung"}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_json_that_was_cut_off_names_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scores.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=str(path)) as caught:
        read_json(path)
    assert caught.value.path == path

import errno
import json
from pathlib import Path

import pytest

from unibrain.errors import InputError
from unibrain.workspace.files import atomic_folder, atomic_path, is_partial, sweep_partials, write_json


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
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "scores.json"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert entries(tmp_path) == ["scores.json"]


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
def test_a_full_disk_is_one_sentence_and_changes_nothing(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "subject.npz"
    target.write_text("old")
    sentence = r"subject\.npz: no space left on the disk.*free some space"
    with pytest.raises(InputError, match=sentence), atomic_path(target) as temporary:
        temporary.write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert entries(tmp_path) == ["subject.npz"]


def test_a_disk_that_fills_during_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="no space left"):
        write_json(tmp_path / "record.json", {"a": 1})
    assert entries(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "latents"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)
    assert entries(target) == ["second"]
    assert entries(tmp_path) == ["latents"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "latents"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "new").write_text("ne")
        raise RuntimeError
    assert entries(target) == ["old"]
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


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = ["settings.toml", ".lock", "my.partial.txt", ".hidden.partial"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    context = atomic_path(tmp_path / "a.b.npz")
    left = context.__enter__()  # never left again: what SIGKILL does
    left.write_text("half")
    (tmp_path / ".nsd.123-0123abcd.partial").mkdir()
    assert is_partial(left)
    assert len(sweep_partials(tmp_path)) == 2
    assert entries(tmp_path) == sorted(kept)


def test_json_refuses_nan_and_keeps_letters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "scores.json", {"value": float("nan")})
    assert entries(tmp_path) == []
    write_json(tmp_path / "scores.json", {"title": "Übung"})
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == {"title": "Übung"}

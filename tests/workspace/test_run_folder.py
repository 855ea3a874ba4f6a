import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unibrain.errors import InputError
from unibrain.workspace.run_folder import RunFolder, folder_lock, holder

HOLD = """
import sys
from pathlib import Path
from unibrain.workspace.run_folder import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_works_there_and_changes_nothing(tmp_path: Path) -> None:
    first = hold(tmp_path)
    try:
        (tmp_path / ".stages").mkdir()
        (tmp_path / ".nsd.123-0123abcd.partial").write_text("the first run is writing this")
        before = (tmp_path / ".lock").read_bytes()
        for _ in range(2):  # a refused attempt must not take the holder's name away
            with pytest.raises(InputError, match=rf"\(process {first.pid} on "), RunFolder(tmp_path).lock():
                pytest.fail("two runs in one folder")
        assert (tmp_path / ".nsd.123-0123abcd.partial").exists()
        assert (tmp_path / ".lock").read_bytes() == before
    finally:
        first.communicate("")
    with RunFolder(tmp_path).lock():
        assert not (tmp_path / ".nsd.123-0123abcd.partial").exists()


def test_the_lock_of_a_killed_run_is_recovered(tmp_path: Path) -> None:
    process = hold(tmp_path)
    assert f"process {process.pid} on " in holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert holder(tmp_path) == ""
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_locked_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = RunFolder(tmp_path / "run")
    with run.lock():
        who = rf"\(process {os.getpid()} on "
        with pytest.raises(InputError, match=who), RunFolder(run.root).lock():
            pytest.fail("two runs in one folder")
    with RunFolder(run.root).lock():
        pass


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", '{"pid": "x"}', "[" * 100_000])
def test_an_unreadable_lock_file_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with folder_lock(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(InputError, match="another run"), folder_lock(tmp_path):
            pass


def test_a_run_folder_locks_once_for_blocks_in_blocks(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new" / "run")
    with run.lock():
        with run.lock():
            pass
        with pytest.raises(InputError, match="another run"), RunFolder(run.root).lock():
            pass
    with RunFolder(run.root).lock():
        pass


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "nsd").mkdir()
    (tmp_path / "nsd" / "precious").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files \(nsd\)"), RunFolder(tmp_path).lock():
        pytest.fail("would be overwritten")
    assert [path.name for path in tmp_path.iterdir()] == ["nsd"]


def test_a_folder_made_for_nothing_is_removed_and_one_with_work_in_it_stays(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(InputError), run.lock():
        run.settings.write_text("[simulate]\n")
        run.record("prepare").write_text("{}")
        raise InputError("a mistyped path")
    assert not run.root.exists()
    with pytest.raises(InputError), run.lock():
        run.cache("prepare").mkdir(parents=True)
        raise InputError("a damaged file in session 20")
    assert run.cache("prepare").exists()


def test_a_settings_file_alone_makes_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[simulate]\n")
    with pytest.raises(InputError), RunFolder(tmp_path).lock():
        raise InputError("something else")
    assert (tmp_path / "settings.toml").exists(), "it was there before"


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file"), RunFolder(tmp_path / "run").lock():
        pass

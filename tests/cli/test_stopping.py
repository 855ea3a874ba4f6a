"""Ctrl-C and `kill`: a run cleans up and continues; a second Ctrl-C ends it at once, and neither prints a traceback."""

import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from unibrain.cli.main import Stopped, stoppable

COMMAND = [sys.executable, "-m", "unibrain", "simulate", "run", "--training-images", "30", "--test-images", "2"]
COMMAND += ["--sessions", "12", "--verbose"]


def started(folder: Path, command: list[str] = COMMAND, start_new_session: bool = False) -> subprocess.Popen[str]:
    """A simulation that is writing its sessions: all libraries are there, and some swallow exceptions."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
        # A shell ignores Ctrl-C for what it runs in the background, and tests may run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert any(line.startswith("simulating subj01") for line in process.stderr)
    assert list((folder / "run").glob(".nsd.*.partial"))
    return process


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 4], ids=["kill", "Ctrl-C again and again"])
def test_a_stopped_stage_leaves_nothing_half_written_and_no_traceback(tmp_path: Path, signals: list[int]) -> None:
    process = started(tmp_path)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    if len(signals) == 1:
        assert said.endswith("stopped; run the same command to continue\n")
        assert not list((tmp_path / "run").glob("*nsd*"))


def processes_of(group: int) -> list[str]:
    """Commands of the processes of a group that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(folder.name)) == group and ") Z " not in (folder / "stat").read_text():
                found.append((folder / "cmdline").read_text())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is imported ahead, and there is no /proc")
def test_ctrl_c_while_workers_are_made_ready_leaves_no_process_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unibrain", "demo", "--out", "run", "--threads", "2", "--training-images", "400"]
    process = started(tmp_path, [*command, "--device", "cpu", "--verbose"], start_new_session=True)
    assert len(processes_of(process.pid)) > 1
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)  # until the last process has closed standard error
    assert process.returncode == 130
    assert said.endswith("stopped; run the same command to continue\n")
    assert "Traceback" not in said
    deadline = time.monotonic() + 60
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes_of(process.pid)


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(Stopped), stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            with pytest.raises(Stopped):  # os._exit returns here, as it never does
                signal.raise_signal(signal.SIGTERM)
    assert ended == [130]


def test_a_stop_inside_a_callback_that_drops_exceptions_is_not_lost() -> None:
    class Thing:
        pass

    def callback(_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), sys.unraisablehook
    thing = Thing()
    reference = weakref.ref(thing, callback)
    with pytest.raises(Stopped), stoppable():
        del thing  # the callback runs here, and what it raises is dropped
        assert reference() is None
        for _ in range(200):
            time.sleep(0.05)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), sys.unraisablehook) == before

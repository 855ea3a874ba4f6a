"""Shards in processes of this machine, with workers that are killed, hang, are stopped, or find the disk full."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty import faulty, make_work, results, tries, whole

from unibrain.engines import engine_of, local
from unibrain.errors import InputError, UnfinishedError
from unibrain.workspace.files import sweep_partials, write_json
from unibrain.workspace.progress import show
from unibrain.workspace.shards import Counted, Work, read_work

FAULTS = {"a": "none", "b": "killed", "c": "hangs", "d": "stopped", "e": "full", "f": "raises", "g": "short"}


def test_every_fault_is_survived_and_what_always_fails_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "_GRACE", 0.4)
    work, engine = make_work(tmp_path / "work", FAULTS), engine_of("local:2", 1.5 / 60, faulty)
    with pytest.raises(UnfinishedError) as missing:
        engine(work)
    said = str(missing.value)
    assert "1 of 7 shards are missing" in said
    assert "rows of f: the picture of image id 7 is not finite" in said
    assert "Traceback" in work.log("f").read_text()
    assert str(work.log("f")) in said
    assert "time.sleep" in work.log("c").read_text() or "faulty.py" in work.log("c").read_text()
    sweep_partials(work.folder)
    assert results(work) == whole(*"abcdeg")
    counts = {name: len(tries(work, name)) for name in FAULTS}
    assert counts == {"a": 1, "b": 2, "c": 2, "d": 2, "e": 2, "f": 3, "g": 1}
    assert [shard.name for shard in work.left()] == ["f"]
    assert {name: record.get("remarks") for name, record in work.records().items() if "remarks" in record} == {
        "g": ["memory is short: 4 at a time"]
    }
    told = capsys.readouterr().err
    for words in ("its worker process died", "it took longer than 0.025 min", "no space left on the disk"):
        assert words in told

    with pytest.raises(UnfinishedError):
        engine(work)
    assert {name: len(tries(work, name)) for name in FAULTS} == counts | {"f": 6}, "only what is missing"


CLIENT = """
import sys
from pathlib import Path
from faulty import faulty
from unibrain.engines import engine_of
from unibrain.workspace.shards import read_work
if __name__ == "__main__":
    engine_of(sys.argv[2], 1.0, faulty)(read_work(Path(sys.argv[1])))
"""


def client(work: Work, on: str) -> subprocess.Popen[bytes]:
    """A client in a process of its own, some shards after it began."""
    script = work.folder.parent / "client.py"
    script.write_text(CLIENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script), str(work.folder), on], env=environment)
    deadline = time.monotonic() + 120
    while not len(work.shards) - len(work.left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_workers_end_with_their_client_and_another_one_goes_on(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", dict.fromkeys("abcdef", "none"), seconds=0.25)
    process = client(work, "local:1")
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {shard.name for shard in work.shards} - {shard.name for shard in work.left()}
    assert 0 < len(done) < 6
    worker = tries(work, "a")[0]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists(), "no worker is left behind"

    engine_of("local:1", 1.0, faulty)(work)
    sweep_partials(work.folder)
    assert results(work) == whole(*"abcdef")
    assert all(len(tries(work, name)) == 1 for name in done)


def test_each_worker_has_a_graphics_card_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_cards", lambda: ["3", "GPU-5"])
    work = make_work(tmp_path / "work", dict.fromkeys("abcd", "none"), seconds=0.4, device="auto")
    engine_of("local", 1.0, faulty)(work)
    assert {record["device"] for record in work.records().values()} == {"3", "GPU-5"}


def test_workers_have_the_environment_of_now_and_their_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Counted(engine_of("local:2", 1.0, faulty))
    assert engine.peak_memory_mb() == 0
    monkeypatch.setenv("FAULT", "none")  # what makes the workers runs already
    monkeypatch.delenv("HOME", raising=False)
    work = make_work(tmp_path / "work", dict.fromkeys("abcd", "environment"), seconds=0.2)
    engine(work)
    assert {path.read_text() for path in (work.folder / "results").iterdir()} == {"none, no home"}
    peaks = dict[int, list[float]]()
    for record in work.records().values():
        peaks.setdefault(record["process"], []).append(record["peak_memory_mb"])
    assert engine.peak_memory_mb() == pytest.approx(sum(map(max, peaks.values())))
    assert all(min(each) > 10 for each in peaks.values())


def test_a_bar_counts_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = make_work(tmp_path / "work", dict.fromkeys("abc", "none"))
    show("verbose")
    try:
        engine_of("local:1", 1.0, faulty)(work)
    finally:
        show("normal")
    assert "3/3" in capsys.readouterr().err


def test_a_worker_that_must_not_work_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", {"a": "none"})
    path = work.folder / "work.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"token": "another"}))
    with pytest.raises(InputError, match="sees another folder as"):
        engine_of("local", 1.0, faulty)(work)
    path.unlink()
    with pytest.raises(InputError, match="does not see the run folder"):
        engine_of("local", 1.0, faulty)(work)
    assert not (work.folder / "tries").exists()


def test_a_plan_stays_while_it_is_the_same_and_names_in_it_are_no_paths(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", {"a": "none"})
    write_json(work.record("a"), {})
    assert make_work(tmp_path / "work", {"a": "none"}) == work
    other = make_work(tmp_path / "work", {"a": "none", "b": "none"})
    assert other.token != work.token
    assert [shard.name for shard in other.left()] == ["b"], "what is the same stays done"
    changed = make_work(tmp_path / "work", {"a": "full", "b": "none"})
    assert [shard.name for shard in changed.left()] == ["a", "b"], "and what is another shard is not"
    path = tmp_path / "work" / "work.json"
    path.write_text(path.read_text().replace('"name": "b"', '"name": "../b"'))
    with pytest.raises(InputError, match="cannot be read as a plan of shards"):
        read_work(tmp_path / "work")

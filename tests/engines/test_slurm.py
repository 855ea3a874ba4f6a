"""Job arrays by submitit's local executor: the same code as on a cluster, with processes in place of jobs."""

import os
import signal
import sys
from pathlib import Path

import pytest
from faulty import faulty, make_work, results, tries, whole
from test_local import client

from unibrain.engines import engine_of, slurm
from unibrain.engines.following import Following
from unibrain.errors import InputError, UnfinishedError
from unibrain.workspace.files import sweep_partials


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find the modules of tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_jobs_share_the_shards_and_what_a_dead_one_left_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "TRIES", 2)
    faults = {"a": "none", "b": "killed", "c": "raises", "d": "none", "e": "full"}
    work = make_work(tmp_path / "work", faults)
    with pytest.raises(UnfinishedError, match="rows of c: the picture of image id 7 is not finite"):
        engine_of("slurm:workers=2,submit=local", 1.0, faulty)(work)
    sweep_partials(work.folder)
    assert results(work) == whole(*"abde")
    assert {name: len(tries(work, name)) for name in faults} == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 2}
    assert "its job ended in the middle of it; tried again" in capsys.readouterr().err


def test_jobs_outlive_their_client_and_another_one_waits_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = make_work(tmp_path / "work", dict.fromkeys("abcdef", "none"), seconds=0.6)
    process = client(work, "slurm:workers=1,submit=local")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert work.left()
    engine_of("slurm:workers=1,submit=local", 1.0, faulty)(work)
    assert "jobs of an earlier call still run, and are waited for" in capsys.readouterr().err
    assert results(work) == whole(*"abcdef")
    assert all(len(tries(work, name)) == 1 for name in "abcdef")


def test_a_job_that_was_queued_again_keeps_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "11")
    task = slurm.Task(str(tmp_path), "token", 1, 60.0, faulty)
    assert task.take("a")
    assert task.checkpoint().function is task
    assert task.take("a"), "its own, from before"
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "12")
    assert not task.take("a")
    assert task.take("b")


def test_what_jobs_leave_is_told_and_is_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "11")
    work = make_work(tmp_path / "work", {"a": "none"})
    slurm.Task(str(work.folder), "another", 4, 60.0, faulty)()
    assert not (work.folder / "tries").exists()
    with Following(work, "slurm", 60.0) as following:
        following.failed = lambda shard, reason: reasons.append(reason) or False  # type: ignore[method-assign]
        reasons: list[str] = []
        with pytest.raises(InputError, match="sees another folder"):
            slurm.report(work, following, 4, {"a"})
        slurm.report(work, following, 5, {"a"})
        assert reasons == ["no job began it"], "what was said in an earlier turn is over"
        slurm.Task(str(work.folder), work.token, 5, 60.0, faulty)()
    assert results(work) == whole("a")

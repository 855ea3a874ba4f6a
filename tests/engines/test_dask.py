"""Shards on a Dask cluster of real processes on loopback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import faulty, make_work, results, tries, whole

from unibrain.engines import engine_of
from unibrain.engines.dask import check_workers
from unibrain.engines.worker import RefusedError
from unibrain.errors import InputError, UnfinishedError
from unibrain.workspace.files import sweep_partials


class Cluster:
    """A scheduler and a worker with its nanny, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{self.port}", folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        self.add_worker()

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self.processes[-1]

    def add_worker(self) -> None:
        places = ["--local-directory", str(self.folder), "--death-timeout", "20"]
        self.start("worker", self.address, "--nthreads", "1", *places)

    def restart_scheduler(self) -> None:
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        self.add_worker()

    def end(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dask"))
    yield found
    found.end()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.engines.dask._PATIENCE", 30.0)


def test_faults_on_a_dask_cluster(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.engines.following.TRIES", 2)
    work = make_work(tmp_path / "work", {"a": "none", "b": "killed", "c": "raises", "d": "full"})
    with pytest.raises(UnfinishedError, match="rows of c: the picture of image id 7 is not finite"):
        engine_of(f"dask:{cluster.address}", 1.0, faulty)(work)
    sweep_partials(work.folder)
    assert results(work) == whole(*"abd")
    assert [len(tries(work, name)) for name in "abcd"] == [1, 2, 2, 2]


def test_the_scheduler_restarts_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", dict.fromkeys("abcdef", "none"), seconds=0.3)

    def restart() -> None:
        while not len(work.shards) - len(work.left()):
            time.sleep(0.02)
        cluster.restart_scheduler()

    thread = threading.Thread(target=restart, daemon=True)  # which waits for ever if nothing is done
    thread.start()
    engine_of(f"dask:{cluster.address}", 1.0, faulty)(work)
    thread.join()
    assert results(work) == whole(*"abcdef")
    assert sum(len(tries(work, name)) for name in "abcdef") <= 7, "no more than the one under way is done again"


class Workers:
    """What a client of Dask tells of the workers."""

    def __init__(self, threads: int, answer: object) -> None:
        self.threads, self.answer = threads, answer

    def wait_for_workers(self, *_: object, **__: object) -> None:
        if not self.threads:
            raise TimeoutError

    def scheduler_info(self, **_: object) -> dict[str, object]:
        return {"workers": {"tcp://here:1": {"nthreads": self.threads}}}

    def run(self, *_: object, **__: object) -> dict[str, object]:
        return {"tcp://here:1": self.answer}


@pytest.mark.parametrize(
    ("workers", "named"),
    [
        (Workers(0, None), "has no workers"),
        (Workers(2, None), "would do 2 shards at a time in one process. Start workers with --nthreads 1"),
        (Workers(1, RefusedError("the worker on here has another precision")), "has another precision"),
    ],
)
def test_workers_that_must_not_work_are_refused(workers: Workers, named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        check_workers(workers, make_work(tmp_path / "work", {"a": "none"}), 1.0)

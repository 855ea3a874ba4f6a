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
        self.add_worker(1)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self.processes[-1]

    def add_worker(self, threads: int) -> None:
        places = ["--local-directory", str(self.folder), "--death-timeout", "20"]
        self.start("worker", self.address, "--nthreads", str(threads), *places)

    def restart_scheduler(self) -> None:
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        self.add_worker(1)

    def end(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
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


def test_faults_on_a_dask_cluster(cluster: Cluster, tmp_path: Path) -> None:
    faults = {"a": "none", "b": "killed", "c": "raises", "d": "full", "e": "hangs", "f": "none"}
    work = make_work(tmp_path / "work", faults)
    with pytest.raises(UnfinishedError, match="rows of c: the picture of image id 7 is not finite"):
        engine_of(f"dask:{cluster.address}", 0.5 / 60, faulty)(work)
    sweep_partials(work.folder)
    assert results(work) == whole(*"abdef")
    assert [len(tries(work, name)) for name in "abcdef"] == [1, 2, 3, 2, 2, 1]


def test_the_scheduler_restarts_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", dict.fromkeys("abcdef", "none"), seconds=0.3)

    def restart() -> None:
        while not len(work.shards) - len(work.left()):
            time.sleep(0.02)
        cluster.restart_scheduler()

    thread = threading.Thread(target=restart)
    thread.start()
    engine_of(f"dask:{cluster.address}", 1.0, faulty)(work)
    thread.join()
    assert results(work) == whole(*"abcdef")
    assert sum(len(tries(work, name)) for name in "abcdef") <= 7, "no more than the one under way is done again"


def test_a_worker_of_several_threads_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_worker(2)
    work = make_work(tmp_path / "work", dict.fromkeys("ab", "none"))
    engine = engine_of(f"dask:{cluster.address}", 1.0, faulty)
    with pytest.raises(InputError, match=r"would do 2 shards at a time .* --nthreads 1"):
        for _ in range(100):
            engine(work)
            work = make_work(tmp_path / f"work-{time.monotonic()}", dict.fromkeys("ab", "none"))

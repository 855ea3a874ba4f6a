"""A real SLURM on loopback: `slurmctld` and `slurmd` from Debian's packages (slurm-wlm), as `.ci/run` installs them."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import faulty, make_work, results, tries, whole

from unibrain.engines import engine_of
from unibrain.errors import InputError
from unibrain.workspace.files import sweep_partials

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), reason="SLURM is not installed (slurm-wlm)"
)

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


class Slurm:
    """Controller, node and munge, started by hand in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, host = folder, socket.gethostname()
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        for name in ("state", "spool"):
            (folder / name).mkdir()
        text = CONFIGURATION.format(user=getpass.getuser(), folder=folder, host=host, port=ports[0], other=ports[1])
        (folder / "slurm.conf").write_text(text)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={folder}/munge.key",
            f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        )
        self.wait(lambda: (folder / "munge.socket").exists())
        self.controller = self.start("slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf")
        self.start("slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", host)

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        with (self.folder / f"{command[0]}.out").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self.processes[-1]

    @staticmethod
    def wait(ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready()

    def idle(self) -> bool:
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        return asked.stdout.strip() == "idle"

    def queue(self) -> str:
        return subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=False).stdout

    def end(self) -> None:
        # A shard is done a moment before its job ends, and a job that is left behind by its node never does.
        self.wait(lambda: not self.queue())
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    found = Slurm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        try:
            found.wait(found.idle)
            yield found
        finally:
            found.end()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibrain.engines.slurm._POLL", 0.2)
    monkeypatch.setattr("unibrain.engines.slurm._ASK", 0.5)


def test_a_job_array_on_a_real_slurm_survives_kills(cluster: Slurm, tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", {"a": "none", "b": "killed", "c": "none"})
    engine_of("slurm:main,workers=2,time=5", 1.0, faulty)(work)
    sweep_partials(work.folder)
    assert results(work) == whole(*"abc")
    assert [len(tries(work, name)) for name in "abc"] == [1, 2, 1]


def test_a_partition_that_does_not_exist_is_told_in_slurms_own_words(cluster: Slurm, tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", {"a": "none"})
    with pytest.raises(InputError, match="invalid partition specified: nowhere"):
        engine_of("slurm:nowhere,time=5", 1.0, faulty)(work)
    with pytest.raises(InputError, match=r"SLURM did not take the jobs: .*nvalid node name"):
        engine_of("slurm:main,time=5,nodelist=elsewhere", 1.0, faulty)(work)

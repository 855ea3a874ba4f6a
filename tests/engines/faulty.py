"""Shards that go wrong as they are told, in a worker that imports this by name."""

import errno
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from unibrain.errors import InputError
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import remark
from unibrain.workspace.shards import Shard, Work, write_work


def make_work(folder: Path, faults: Mapping[str, str], seconds: float = 0.0, device: str = "cpu") -> Work:
    """Some work of one shard per fault; ``"none"`` is no fault."""
    shards = tuple(Shard(name, f"rows of {name}", 2, {"fault": fault}) for name, fault in faults.items())
    return write_work(Work(folder, "extract", "test", {"device": device, "seconds": seconds}, shards))


def faulty(work: Work, shard: Shard) -> None:
    """Write a result; before that, go wrong the first time, or always."""
    tries = work.folder / "tries" / shard.name
    tries.parent.mkdir(exist_ok=True)
    with tries.open("a") as file:
        file.write(f"{os.getpid()}\n")
    first, fault = tries.read_text().count("\n") == 1, shard.task["fault"]
    time.sleep(work.about["seconds"])
    with atomic_path(work.folder / "results" / f"{shard.name}.txt") as temporary:
        temporary.write_text(f"{shard.name} is half")
        if fault == "raises":
            raise InputError("the picture of image id 7 is not finite")
        if first and fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if first and fault == "hangs":
            time.sleep(60)
        if first and fault == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if first and fault == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if fault == "short":
            remark("memory is short: 4 at a time")
        if fault == "environment":
            temporary.write_text(f"{os.environ['FAULT']}, {os.environ.get('HOME', 'no home')}")
            return
        temporary.write_text(f"{shard.name} is whole")


def results(work: Work) -> dict[str, str]:
    """Everything that is in the folder of the results, half-written files too."""
    return {path.name: path.read_text() for path in (work.folder / "results").iterdir()}


def whole(*names: str) -> dict[str, str]:
    """What results have to be."""
    return {f"{name}.txt": f"{name} is whole" for name in names}


def tries(work: Work, name: str) -> list[int]:
    """Processes that tried a shard."""
    path = work.folder / "tries" / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []

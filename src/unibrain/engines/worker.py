"""What runs in a worker: it checks that it is the same program on the same weights, and does one shard after the other.

A worker gets a folder and names of shards. Everything else it reads, and everything it finds out it writes, in there.
"""

import faulthandler
import os
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import remarks
from unibrain.workspace.provenance import peak_memory_mb
from unibrain.workspace.shards import Shard, Work, read_work

if TYPE_CHECKING:
    from unibrain.pipeline import BackboneSource

Perform = Callable[[Work, Shard], None]
"""Does one shard and leaves its result; a function that can be imported by its name."""


class ShardError(Exception):
    """A shard failed; the message is a sentence, and the log has the rest."""


class RefusedError(Exception):
    """A worker that must not work: it sees another folder, or is another version, or has other weights."""


def perform(work: Work, shard: Shard) -> None:
    """Do a shard of a run, with the backbone that this process keeps."""
    from unibrain.pipeline.tasks import perform as do

    about = work.about
    do(work, shard, source(about["device"], about.get("dtype", "auto"), about.get("offload", False)))


@cache
def source(device: str, dtype: str, offload: bool) -> "BackboneSource":
    """The backbone of this process: opened once, for all shards that it does."""
    from unibrain.pipeline import BackboneSource

    return BackboneSource(device, dtype=dtype, offload=offload)


def check(folder: str, token: str) -> None:
    """Check that this process may do shards of the work in a folder.

    Parameters
    ----------
    folder : str
    token : str
        That of the plan, as the client wrote it.

    Raises
    ------
    RefusedError
        It says what differs here.
    """
    host = socket.gethostname()
    try:
        work = read_work(Path(folder))
    except (InputError, OSError) as error:
        raise RefusedError(f"the worker on {host} does not see the run folder: {error}") from None
    if work.token != token:
        raise RefusedError(f"the worker on {host} sees another folder as {folder}. Use a shared file system.")
    expected = work.about.get("same")
    if expected:
        from unibrain.pipeline import shards

        about = work.about
        try:
            if "backbone" in about:
                opened = source(about["device"], about["dtype"], about["offload"])
                found = shards.worker_facts(opened, about["backbone"])["same"]
            else:
                found = shards.program()
        except InputError as error:
            raise RefusedError(f"the worker on {host} cannot open the backbone: {error}") from None
        for name, value in expected.items():
            if found[name] != value:
                raise RefusedError(
                    f"the worker on {host} has another {name} ({found[name][:12]}, and the run has "
                    f"{value[:12]}). Install the same version of unibrain and the same weights there, and give the "
                    "same --dtype."
                )


def do(folder: str, name: str, limit: float, does: Perform = perform) -> float:
    """Do one shard, unless it is done.

    Parameters
    ----------
    folder : str
        Where the work lies.
    name : str
        The shard.
    limit : float
        Seconds after which this process ends itself: whatever it hangs in, the stacks of its threads are in the log.
    does : callable

    Returns
    -------
    float
        Seconds that it took; 0 if it was done before.

    Raises
    ------
    ShardError
        If it failed.
    """
    try:
        return _do(Path(folder), name, limit, does)
    except (OSError, InputError) as error:  # not even its log, or its record, could be written
        raise ShardError(" ".join(str(error).split())) from None


def _do(folder: Path, name: str, limit: float, does: Perform) -> float:
    work = read_work(folder)
    shard = next(one for one in work.shards if one.name == name)
    if work.record(name).exists():
        return 0.0
    limit_here(work.about.get("threads"))
    log = work.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        print(f"{_now()} {socket.gethostname()}, process {os.getpid()}: {shard.what}")
        faulthandler.dump_traceback_later(limit, exit=True, file=file)
        try:
            with remarks() as said:
                does(work, shard)
        except Exception as error:
            traceback.print_exc(file=file)
            known = isinstance(error, InputError)
            raise ShardError(str(error) if known else f"{type(error).__name__}: {error}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - began
    record = {
        "seconds": round(seconds, 3),
        "items": shard.items,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "finished": _now(),
    } | ({"remarks": said} if said else {})
    write_json(work.record(name), record)
    return seconds


def limit_here(threads: int | None, usable: int | None = None) -> None:
    """Give libraries as many threads as the client has, whatever the scheduler set: rounding depends on it.

    The process itself may use as many, or `usable`.
    """
    if threads is None:
        return
    from threadpoolctl import threadpool_limits

    from unibrain.workspace.progress import limit_threads

    limit_threads(usable or threads, threads)
    threadpool_limits(threads)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

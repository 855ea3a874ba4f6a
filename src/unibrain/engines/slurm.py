"""Shards by SLURM, through submitit: an array of jobs, each a worker that takes one shard after the other.

Who takes a shard says so by making a file, which can be made once. A job that reaches its wall time asks SLURM to queue
it again, and goes on. Jobs outlive the client: one that comes back waits for those that still run.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from unibrain.engines.following import TRIES, Following
from unibrain.engines.worker import Perform, RefusedError, ShardError, check, do
from unibrain.errors import PlaceError
from unibrain.pipeline.place import Place
from unibrain.workspace.files import read_json, write_json
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import JOBS
from unibrain.workspace.shards import Work, read_work

_WORKERS = 16
_MINUTES = 240
_NAMES = {"partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint"}
_WALL_TIMES = 100
_REFUSED = "refused.json"
_POLL = 2.0
"""Seconds between two looks at the records."""

_ASK = 20.0
"""Seconds between two questions to SLURM."""


class Task:
    """What a job does: shards that nobody has taken, until none is left. It holds paths and names only.

    Parameters
    ----------
    folder : str
    token : str
    turn : int
        Shards are taken once a turn; what a job left when it died is for the next turn.
    limit : float
    does : callable
    """

    def __init__(self, folder: str, token: str, turn: int, limit: float, does: Perform) -> None:
        self.folder, self.token, self.turn, self.limit, self.does = folder, token, turn, limit, does

    def __call__(self) -> None:
        """Work; the reasons of shards that failed are left in files, so that the client unpickles nothing."""
        folder = Path(self.folder)
        try:
            check(self.folder, self.token)
        except RefusedError as error:
            write_json(folder / _REFUSED, {"turn": self.turn, "reason": str(error)})
            return
        for shard in read_work(folder).left():
            if self.take(shard.name):
                try:
                    do(self.folder, shard.name, self.limit, self.does)
                except ShardError as error:
                    write_json(folder / "failed" / f"{shard.name}.json", {"turn": self.turn, "reason": str(error)})

    def take(self, name: str) -> bool:
        """Whether this job is the first to take a shard in this turn, or took it before it was queued again."""
        from submitit import JobEnvironment

        job = JobEnvironment().job_id
        file = Path(self.folder, "taken", str(self.turn), name)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as made:
                made.write(job)
        except FileExistsError:
            return file.read_text(encoding="utf-8") == job
        return True

    def checkpoint(self) -> Any:
        """What SLURM queues again when the wall time is near: the same, which skips what is done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm:
    """Does shards in job arrays, and waits for them."""

    def __call__(self, work: Work, place: Place, following: Following, does: Perform) -> None:
        """Do the shards that are left."""
        jobs = work.folder / JOBS
        local = place.options.get("submit") == "local"
        if not local and shutil.which("sbatch") is None:
            raise PlaceError(
                "sbatch is not on this machine. Run this where SLURM's commands are, such as a login node."
            )
        _wait(work, following, _earlier(jobs), None)
        for turn in range(_next_turn(work), _next_turn(work) + TRIES):
            left = work.left()
            if not left:
                return
            count = min(place.workers or _WORKERS, len(left))
            submitted = _submit(place, work, [Task(str(work.folder), work.token, turn, following.limit, does)] * count)
            names = [str(job.job_id) for job in submitted]
            write_json(jobs, {"local": local, "jobs": names})
            say(f"{work.stage}: submitted {len(names)} jobs, {names[0]} to {names[-1]}")
            try:
                _wait(work, following, (local, names), submitted)
            except KeyboardInterrupt:
                stop = "" if local else f"; `scancel {names[0].split('_')[0]}` stops them"
                say(f"{work.stage}: the jobs run on, and the same command waits for them{stop}")
                raise
            report(work, following, turn, {shard.name for shard in left})


def load_submitit() -> Any:
    """Import submitit, and keep it from setting up logging: that closes the handlers of everybody else."""
    name = "SUBMITIT_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = "NOCONFIG"
    try:
        return import_module("submitit")
    except ModuleNotFoundError:
        raise PlaceError(
            "--on slurm needs the package submitit. Install it with pip install unibrain[cluster]."
        ) from None
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _next_turn(work: Work) -> int:
    turns = [int(path.name) for path in (work.folder / "taken").glob("*") if path.name.isdigit()]
    return max(turns, default=0) + 1


def _submit(place: Place, work: Work, tasks: list[Task]) -> list[Any]:
    submitit = load_submitit()
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    # Jobs unpickle what lies there: in a new folder there is only what is written now.
    folder, cluster = work.folder / "slurm" / uuid.uuid4().hex[:8], place.options.get("submit", "slurm")
    folder.mkdir(parents=True)
    # Every wall time is an end and a new beginning; a shard that never ends is ended by its own limit.
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=_WALL_TIMES)
    executor.update_parameters(**parameters(place, work.stage, work.about, len(tasks)))
    try:
        found: list[Any] = executor.submit_array(tasks)
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        words = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise PlaceError(f"SLURM did not take the jobs: {words[:400]}") from None
    return found


def parameters(place: Place, stage: str, about: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What the job array asks for, as submitit names it."""
    options: dict[str, Any] = dict(place.options)
    device = about.get("device", "cpu")
    found: dict[str, Any] = {
        "name": f"unibrain-{stage}",
        "timeout_min": int(options.pop("time", _MINUTES)),
        "cpus_per_task": int(options.pop("cpus", about.get("threads") or 1)),
        "gpus_per_node": int(options.pop("gpus", 0 if device == "cpu" else 1)),
    }
    if "memory" in options:
        found["mem_gb"] = int(options.pop("memory"))
    if options.pop("submit", "slurm") == "slurm":
        found["slurm_array_parallelism"] = count
        found |= {f"slurm_{name}": options.pop(key) for key, name in _NAMES.items() if key in options}
        # A lost node is no reason to lose the job.
        found["slurm_additional_parameters"] = {"requeue": True} | options
    return found


def job_script(place: Place, stage: str, folder: Path, device: str) -> str:
    """The job script that would be submitted for a stage."""
    import torch

    load_submitit()
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    count = place.workers or _WORKERS
    chosen = parameters(place, stage, {"device": device, "threads": torch.get_num_threads()}, count)
    renamed = {key.removeprefix("slurm_"): value for key, value in chosen.items()}
    own: dict[str, Any] = dict(SlurmExecutor._equivalence_dict())
    converted = {str(own.get(key, key)): value for key, value in renamed.items()}
    if "mem" in converted:
        converted["mem"] = f"{converted['mem']}GB"
    command = f"{sys.executable} -u -m submitit.core._submit {folder / 'slurm'}"
    text: str = _make_sbatch_string(command=command, folder=folder / "slurm", map_count=count, **converted)
    return text


def _earlier(jobs: Path) -> tuple[bool, list[str]]:
    """Jobs of a client that went away."""
    if not jobs.is_file():
        return False, []
    found = read_json(jobs)
    return bool(found["local"]), [str(name) for name in found["jobs"]]


def _wait(work: Work, following: Following, jobs: tuple[bool, list[str]], submitted: list[Any] | None) -> None:
    """Count shards as they are done, until all are, or no job is left."""
    local, names = jobs
    known = {shard.name for shard in work.left()}
    by_name, asked, alive = {shard.name: shard for shard in work.shards}, -_ASK, bool(names)
    if names and submitted is None:
        alive = _alive(local, names, None)
        if alive:
            say(f"{work.stage}: jobs of an earlier call still run, and are waited for")
    while alive:
        left = {shard.name for shard in work.left()}
        for name in known - left:
            following.done(by_name[name])
        known = left
        if not left:
            return
        if time.monotonic() - asked > (_POLL if local else _ASK):
            asked, alive = time.monotonic(), _alive(local, names, submitted)
        time.sleep(min(_POLL, 0.2) if local else _POLL)
    for name in known - {shard.name for shard in work.left()}:
        following.done(by_name[name])


def _alive(local: bool, names: Iterable[str], submitted: list[Any] | None) -> bool:
    """Whether any of some jobs waits or runs."""
    if local and submitted is not None:
        return any(not job.done() for job in submitted)
    if local:
        for name in names:
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(name), 0)
                return True
        return False
    arrays = sorted({name.split("_")[0] for name in names})
    # The queue is asked, not the accounts: not every cluster keeps them.
    asked = subprocess.run(
        ["squeue", "--noheader", "--format=%i", "--jobs", ",".join(arrays)], capture_output=True, text=True, check=False
    )
    if asked.returncode and "Invalid job id" not in asked.stderr:
        return True  # the controller does not answer: it may be restarting, and jobs run on
    return bool(asked.stdout.strip())


def report(work: Work, following: Following, turn: int, tried: set[str]) -> None:
    """Take note of what jobs said of shards that are not done."""
    refused = _said(work.folder / _REFUSED, turn)
    if refused is not None:
        raise PlaceError(refused)
    for shard in work.left():
        if shard.name in tried:
            reason = _said(work.folder / "failed" / f"{shard.name}.json", turn)
            following.failed(shard, reason or _death(work, shard.name))


def _said(path: Path, turn: int) -> str | None:
    """The reason that a job left in a file, in this turn."""
    found = read_json(path) if path.is_file() else {}
    return str(found["reason"]) if found.get("turn") == turn else None


def _death(work: Work, name: str) -> str:
    return "its job ended in the middle of it" if work.log(name).exists() else "no job began it"

"""Clients of several subjects that go wrong as they are told, in a worker that imports this by name."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from unibrain.engines import subjects
from unibrain.errors import InputError
from unibrain.pipeline import RunFolder, Settings
from unibrain.workspace.shards import Shard, Work

AT_ONCE = ("subj01", "subj02")
"""Subjects whose clients wait for each other."""


def faulty_client(work: Work, shard: Shard) -> None:
    """Be a client whose run is no more than a note of who tried it, and where its shards would have been done."""
    subjects.run_all = partial(_run_all, shard.task["on"])  # type: ignore[assignment]
    subjects.run_subject(work, shard)


def _run_all(on: str, run: RunFolder, settings: Settings, *_: object) -> None:
    assert settings.engine.on is None, "what was asked for in one call is not kept"
    with (run.root / "tried").open("a") as file:
        file.write(f"{os.getpid()} {on}\n")
    deadline = time.monotonic() + 120
    while run.root.name in AT_ONCE and not all((run.root.parent / name / "tried").exists() for name in AT_ONCE):
        assert time.monotonic() < deadline, "clients do not work at the same time"
        time.sleep(0.02)
    if run.root.name == "subj02" and len(tried(run.root)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if run.root.name == "subj05":
        raise InputError("betas_session03.nii.gz: this file ends in the middle. Download it again.")


def tried(root: Path) -> list[list[str]]:
    """Process and place of each try."""
    return [line.split() for line in (root / "tried").read_text().splitlines()]

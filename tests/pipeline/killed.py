"""Shards whose worker is killed in the middle of one, in a worker that imports this by name."""

import os
import signal
from functools import partial
from typing import Any

import numpy as np

from unibrain.engines.worker import perform
from unibrain.workspace.shards import Shard, Work


def killed_in_the_middle(work: Work, shard: Shard) -> None:
    """Do a shard; in a fit, the first process that has written a result, and not yet renamed it, is killed."""
    if work.stage == "fit" and _first(work, os.getpid()):
        np.save = partial(_save_and_die, np.save)  # type: ignore[assignment]
    perform(work, shard)


def _first(work: Work, process: int) -> bool:
    try:
        with (work.folder / "killed").open("x") as file:
            file.write(str(process))
    except FileExistsError:
        return False
    return True


def _save_and_die(save: Any, *arguments: Any, **options: Any) -> None:
    save(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

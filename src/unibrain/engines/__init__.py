"""Where shards are done: on this machine, on a Dask cluster, or by SLURM. `ENGINES` is the table of them.

An engine hands out names of shards, and no more: workers read the plan, and write results and records, in the run
folder, which all of them see. What is done is what has a record there.
"""

from collections.abc import Callable, Mapping
from importlib import import_module

from unibrain.engines.following import Following
from unibrain.engines.worker import Perform, perform
from unibrain.pipeline.place import Place, parse_place
from unibrain.workspace.shards import Engine, Work

__all__ = ["ENGINES", "Run", "engine_of"]

Run = Callable[[Work, Place, Following, Perform], None]
"""Does the shards that are left: takes the work, the place, what follows it, and what does one shard."""

ENGINES: Mapping[str, str] = {
    "local": "unibrain.engines.local:Local",
    "dask": "unibrain.engines.dask:Dask",
    "slurm": "unibrain.engines.slurm:Slurm",
}
"""Name to what makes an engine, of type `Run`; its libraries are imported when it is first used."""


def engine_of(on: str, time_limit: float = 60.0, does: Perform = perform) -> Engine:
    """Make the engine that `on` names.

    Parameters
    ----------
    on : str
        As in `unibrain.pipeline.place.parse_place`.
    time_limit : float
        Minutes after which a shard is taken for hanging.
    does : callable
        Does one shard, see `unibrain.engines.worker`; a function that workers can import.

    Returns
    -------
    callable
        Takes `Work`, and returns when all of it is done.
    """
    place = parse_place(on)
    module, name = ENGINES[place.engine].split(":")
    run: Run = getattr(import_module(module), name)()

    def engine(work: Work) -> None:
        with Following(work, on, 60 * time_limit) as following:
            if following.left:
                run(work, place, following, does)

    return engine

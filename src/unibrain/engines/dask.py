"""Shards on a Dask cluster, by the address of its scheduler."""

import time
from typing import Any

from unibrain.engines.following import TRIES, Following
from unibrain.engines.worker import Perform, ShardError, check, do
from unibrain.errors import PlaceError
from unibrain.pipeline.place import Place
from unibrain.workspace.progress import say
from unibrain.workspace.shards import Shard, Work

_PATIENCE = 10.0
"""Seconds for a scheduler to answer, and for workers to be there."""

_RESTART = 60.0
"""Seconds in which a scheduler that went away may come back."""


class Dask:
    """Does shards with the workers of the scheduler at `place.address`."""

    def __call__(self, work: Work, place: Place, following: Following, does: Perform) -> None:
        """Do the shards that are left."""
        patience = _PATIENCE
        for _ in range(TRIES):
            client = _connect(place.address, patience)
            try:
                check_workers(client, work, patience)
                if _do_all(client, work, following, does):
                    return
            finally:
                client.close(timeout=2)
            say(f"{work.stage}: the scheduler at {place.address} went away; what is left is submitted again")
            patience = _RESTART


def _connect(address: str, patience: float) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise PlaceError(
            "--on dask needs the package distributed. Install it with pip install unibrain[cluster]."
        ) from None
    deadline = time.monotonic() + patience
    while True:
        try:
            return Client(address, timeout=min(patience, _PATIENCE), set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            if time.monotonic() > deadline:
                reason = " ".join(str(error).split())[:200]
                raise PlaceError(
                    f"--on dask:{address}: no scheduler answers there ({reason}). Start one with `dask scheduler`, or "
                    "check the address."
                ) from None
            time.sleep(1)


def check_workers(client: Any, work: Work, patience: float) -> None:
    """Refuse a cluster with a worker that must not work, before anything is done."""
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError:
        raise PlaceError(
            "the Dask scheduler has no workers. Start some with `dask worker ADDRESS --nthreads 1`."
        ) from None
    threads = {name: about["nthreads"] for name, about in client.scheduler_info(n_workers=-1)["workers"].items()}
    wide = [name for name, count in threads.items() if count != 1]
    if wide:
        raise PlaceError(
            f"the Dask worker {wide[0]} would do {threads[wide[0]]} shards at a time in one process. Start workers "
            "with --nthreads 1; how many threads a shard computes with is told by --threads."
        )
    found = client.run(check, str(work.folder), work.token, on_error="return")
    refused = [result for result in found.values() if isinstance(result, BaseException)]
    if refused:
        raise PlaceError(" ".join(str(refused[0]).split()))


def _do_all(client: Any, work: Work, following: Following, does: Perform) -> bool:
    """Do what is left; whether the scheduler lived to see it."""
    from distributed import CancelledError, as_completed

    shards: dict[Any, Shard] = {}

    def submit(shard: Shard) -> Any:
        future = client.submit(do, str(work.folder), shard.name, following.limit, does, pure=False)
        shards[future.key] = shard
        return future

    sequence = as_completed([submit(shard) for shard in work.left()], loop=client.loop)
    for future in sequence:
        shard = shards[future.key]
        if future.status == "finished":
            following.done(shard)
            continue
        if future.status in ("cancelled", "lost"):
            return False
        try:
            error = future.exception()
        except CancelledError:
            return False
        reason = str(error) if isinstance(error, ShardError) else "its worker died again and again"
        if following.failed(shard, reason):
            sequence.add(submit(shard))
    return True

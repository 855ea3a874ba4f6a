"""Shards on this machine: one process a worker, each with graphics cards of its own if there are any.

A worker is a `concurrent.futures` pool of one process, so that one that is killed takes nothing with it but its shard.
Workers live from stage to stage, and keep the backbone that they have opened. They are forks of one process that has
imported the libraries, which it does while the client does something else.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from typing import Any

from unibrain.engines.following import Following
from unibrain.engines.worker import Perform, RefusedError, ShardError, check, do
from unibrain.errors import PlaceError, UnfinishedError
from unibrain.pipeline.place import Place
from unibrain.workspace.progress import say
from unibrain.workspace.shards import Shard, Work

_GRACE = 10.0
"""Seconds beyond the time limit after which a worker that did not end itself is killed: it may be stopped, or deaf."""

_START = 600.0
"""Seconds that a worker has to begin, where the time limit of a shard is shorter: weights may be on a slow disk."""

_STARTS = 3
"""How often a worker may die before it has begun."""

_IMPORTED = (
    "unibrain.pipeline.tasks",
    "unibrain.backbone.loading",
    "unibrain.latents",
    "unibrain.reconstruction",
    "unibrain.evaluation.evaluate",
    "skimage.metrics",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What shards need; it takes seconds."""


class Local:
    """Does shards with the processes of this machine: `place.workers` of them, by default one per graphics card."""

    def __init__(self) -> None:
        self._context = _start_ahead()
        self._workers: list[_Worker] = []

    def __call__(self, work: Work, place: Place, following: Following, does: Perform) -> None:
        """Do the shards that are left."""
        # Workers stay for later stages, which may want cards where this one does not.
        cards, on_card = visible_cards(), str(work.about.get("device", "cpu")).split(":")[0] in ("auto", "cuda")
        count = min(place.workers or max(1, len(cards) * on_card), len(following.left))
        _warn_of_threads(work, count, bool(cards) and on_card)
        for number in range(len(self._workers), count):
            own = cards[number :: place.workers or len(cards)] or [cards[number % len(cards)]] if cards else []
            self._workers.append(_Worker(self._context, ",".join(own) or None))
        try:
            _do_all(self._workers[:count], work, following, does)
        except BaseException:
            for worker in self._workers:
                worker.end()
            self._workers = []
            raise


def _start_ahead() -> Any:
    """Begin with what all workers import, in a process that they are forks of; return what makes them.

    That process computes nothing: a fork of the client would share what CUDA and threads hold.
    """
    if sys.platform != "linux":  # the system's own libraries do not survive a fork on macOS
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    resource_tracker.ensure_running()  # which lets signals through
    # Ctrl-C goes to the whole group of processes, and would print a traceback from in between the imports.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _do_all(workers: "list[_Worker]", work: Work, following: Following, does: Perform) -> None:
    queue, running = deque(following.left), dict[Future[Any], _Running]()
    while queue or running:
        for worker in [one for one in workers if one.idle]:
            if not queue:
                break
            if worker.starts >= _STARTS:
                workers.remove(worker)
                continue
            ready = worker.token == work.token
            shard = queue.popleft() if ready else None
            task = (check, work.token) if shard is None else (do, shard.name, following.limit, does)
            limit = max(following.limit, _START) if shard is None else following.limit
            running[worker.submit(work, *task)] = _Running(worker, shard, limit)
        if not workers:
            raise UnfinishedError(f"{work.stage}: worker processes die before they have begun. Is there enough memory?")
        finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in finished:
            _settle(future, running.pop(future), work, following, queue)
        for one in running.values():
            if time.monotonic() > one.deadline:
                one.worker.kill()


def visible_cards() -> list[str]:
    """Graphics cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _warn_of_threads(work: Work, workers: int, cards: bool) -> None:
    threads, processors = work.about.get("threads") or 1, os.cpu_count() or 1
    if not cards and workers * threads > processors:
        say(
            f"{workers} workers with {threads} threads each share {processors} processors; --threads "
            f"{max(1, processors // workers)} would be faster, and may round otherwise"
        )


@dataclass(frozen=True)
class _Running:
    """A shard that a worker does; None: it is checked."""

    worker: "_Worker"
    shard: Shard | None
    limit: float
    began: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        return self.began + self.limit + _GRACE


def _settle(future: Future[Any], one: _Running, work: Work, following: Following, queue: deque[Shard]) -> None:
    """Take note of how a check or a shard ended."""
    worker, shard = one.worker, one.shard
    worker.idle = True
    try:
        future.result()
    except RefusedError as error:
        raise PlaceError(str(error)) from None
    except BrokenProcessPool:
        worker.renew()
        if shard is None:
            worker.starts += 1
        elif work.record(shard.name).exists():  # it died behind the record
            following.done(shard)
        else:
            late = time.monotonic() - one.began >= one.limit
            reason = f"it took longer than {one.limit / 60:.3g} min" if late else "its worker process died"
            if following.failed(shard, reason):
                queue.append(shard)
    except ShardError as error:
        assert shard is not None
        if following.failed(shard, str(error)):
            queue.append(shard)
    else:
        if shard is None:
            worker.token, worker.starts = work.token, 0
        else:
            following.done(shard)


class _Worker:
    """One process that lives for as long as it can, and is replaced when it died."""

    def __init__(self, context: Any, card: str | None) -> None:
        self.context, self.card, self.idle, self.starts = context, card, True, 0
        self.process: Any = None
        self.renew()

    def renew(self) -> None:
        self.token, self.process = "", None
        own = dict(os.environ) | ({} if self.card is None else {"CUDA_VISIBLE_DEVICES": self.card})
        self.pool = ProcessPoolExecutor(1, mp_context=self.context, initializer=_begin, initargs=(own,))

    def submit(self, work: Work, function: Any, *arguments: Any) -> Future[Any]:
        self.idle, before = False, set(multiprocessing.active_children())
        future = self.pool.submit(function, str(work.folder), *arguments)
        # A pool starts its process when it is first used, and does not tell which it is.
        self.process = next(iter(set(multiprocessing.active_children()) - before), self.process)
        return future

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def end(self) -> None:
        self.kill()
        self.pool.shutdown(cancel_futures=True)


def _begin(environment: dict[str, str]) -> None:
    """Begin a worker: with the client's environment and a graphics card, and with an end when the client ends."""
    os.environ.clear()
    os.environ.update(environment)
    # What was imported is shared with the other workers, until the collector writes into it.
    gc.freeze()
    # Ctrl-C goes to the whole group of processes; the client is told, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(process: Any = parent) -> None:
        process.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""One thread that works through a queue of jobs: they can be watched, shared and cancelled."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from unibrain.errors import InputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]

_WAITING = 64
_REMEMBERED = 64
_BUG = "Something went wrong in here; the terminal of `unibrain explore` says what."


class CancelledError(Exception):
    """Nobody waits for this job any more."""


@dataclass(eq=False)
class Job:
    """One piece of work; `events` are what it showed so far."""

    key: str
    work: Callable[["Job"], Any]
    state: State = "waiting"
    events: list[Any] = field(default_factory=list)
    result: Any = None
    error: str = ""
    wanted: int = 1
    changed: threading.Condition = field(default_factory=threading.Condition)

    def show(self, event: Any) -> None:
        """Tell those who watch what there is by now; the place where a cancelled job ends."""
        self.go_on()
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def go_on(self) -> None:
        """Raise `CancelledError` if nobody waits for this job."""
        if self.wanted < 1:
            raise CancelledError

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.state in ("done", "failed", "cancelled")

    def wait(self, after: int, seconds: float) -> None:
        """Wait until there are more than `after` events, or it is over, or time is up."""
        with self.changed:
            self.changed.wait_for(lambda: self.over or len(self.events) > after, seconds)

    def finish(self, state: State, result: Any = None, error: str = "") -> None:
        """End it."""
        with self.changed:
            self.state, self.result, self.error = state, result, error
            self.changed.notify_all()


class Worker:
    """A queue, first come, first served, and the one thread that works through it.

    Parameters
    ----------
    report : callable
        Called with an exception that is a mistake of ours.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()

    def submit(self, key: str, work: Callable[[Job], Any]) -> Job:
        """Queue a job; one of the same key that waits or runs is shared.

        Raises
        ------
        InputError
            If too many are waiting.
        """
        with self._change:
            known = self._jobs.get(key)
            if known is not None and not known.over and known.wanted > 0:
                known.wanted += 1
                return known
            if len(self._queue) >= _WAITING:
                raise InputError(f"{len(self._queue)} requests are waiting. Cancel some, or wait until they are done.")
            job = self._jobs[key] = Job(key, work)
            self._jobs.move_to_end(key)
            for old in [old for old, one in self._jobs.items() if one.over][: max(0, len(self._jobs) - _REMEMBERED)]:
                del self._jobs[old]
            self._queue.append(job)
            self._change.notify_all()
            return job

    def find(self, key: str) -> Job | None:
        """The job of a key, if it is remembered."""
        with self._change:
            return self._jobs.get(key)

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self._change:
            if job not in self._queue:
                return 0
            return self._queue.index(job) + any(one.state == "running" for one in self._jobs.values())

    def leave(self, job: Job) -> None:
        """Wait no longer for a job; it is cancelled once nobody does."""
        with self._change:
            job.wanted -= 1
            if job.wanted < 1 and job in self._queue:
                self._queue.remove(job)
                job.finish("cancelled")

    def close(self) -> None:
        """Cancel everything, and wait for the thread to end."""
        with self._change:
            self._closed = True
            for job in self._jobs.values():
                job.wanted = 0
            for job in self._queue:
                job.finish("cancelled")
            self._queue.clear()
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or bool(self._queue))
                if self._closed:
                    return
                job = self._queue.pop(0)
                job.state = "running"
            try:
                job.go_on()
                job.finish("done", job.work(job))
            except CancelledError:
                job.finish("cancelled")
            except InputError as error:
                job.finish("failed", error=str(error))
            except Exception as error:
                self._report(error)
                job.finish("failed", error=_BUG)

"""`Following`: what the client knows of the shards that engines do: what is left, what failed, and how fast it goes."""

import time
from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from unibrain.errors import UnfinishedError
from unibrain.workspace.progress import progress_bar, readable_seconds, say
from unibrain.workspace.shards import Shard, Work

TRIES = 3
"""How often a shard is tried before it counts as failed."""

_EVERY = 30.0
"""Seconds between two lines of progress."""

_SHOWN = 5


class Following:
    """Follows the shards of some work; at the end of the block it says what was done, and raises what is missing.

    Parameters
    ----------
    work : Work
    on : str
        Where it is done, for people.
    limit : float
        Seconds after which a shard is taken for hanging.

    Attributes
    ----------
    left : tuple of Shard
        What was not done when the block began.
    """

    def __init__(self, work: Work, on: str, limit: float) -> None:
        self.work, self.on, self.limit = work, on, limit
        self.left = work.left()
        self._tries = Counter[str]()
        self._reasons: dict[str, str] = {}
        self._began = self._told = time.monotonic()
        self._done = 0
        self._bar = ExitStack()

    def __enter__(self) -> Self:
        total, left = len(self.work.shards), len(self.left)
        earlier = f", {total - left} of them done before" if left < total else ""
        say(f"{self.work.stage}: {total} shards on {self.on}{earlier}")
        self._advance = self._bar.enter_context(progress_bar(left, self.work.stage, unit="shard"))
        return self

    def done(self, shard: Shard) -> None:
        """Count a shard, and tell now and then how it goes."""
        self._done += 1
        self._advance()
        self._reasons.pop(shard.name, None)
        now, left = time.monotonic(), len(self.left) - self._done
        if now - self._told > _EVERY and left:
            self._told, each = now, (now - self._began) / self._done
            say(
                f"{self.work.stage}: {self._done} of {len(self.left)} shards, {60 / each:.3g} a minute, about "
                f"{readable_seconds(each * left)} to go"
            )

    def failed(self, shard: Shard, reason: str) -> bool:
        """Count a try that failed; whether the shard is to be tried again."""
        self._tries[shard.name] += 1
        self._reasons[shard.name] = reason
        again = self._tries[shard.name] < TRIES
        say(f"{self.work.stage}: {shard.what}: {reason}; {'tried again' if again else 'given up'}")
        return again

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.close()
        if error is not None:
            return
        left, known = self.work.left(), self.work.records()
        seconds = time.monotonic() - self._began
        records = [known[shard.name] for shard in self.left if shard.name in known]
        if records:
            busy = sum(record["seconds"] for record in records)
            workers = len({(record["host"], record["process"]) for record in records})
            say(
                f"{self.work.stage}: {len(records)} shards in {seconds:.1f} s by {workers} worker"
                f"{'s' * (workers > 1)}, which were busy for {busy:.1f} s"
            )
        if left:
            raise UnfinishedError(self._missing(left))

    def _missing(self, left: tuple[Shard, ...]) -> str:
        total = len(self.work.shards)
        lines = [f"{self.work.stage}: {len(left)} of {total} shards are missing, the others are done and kept."]
        for shard in left[:_SHOWN]:
            reason = self._reasons.get(shard.name, "no worker did it")
            log = self.work.log(shard.name)
            lines.append(f"  {shard.what}: {reason}" + (f" (log: {log})" if log.exists() else ""))
        if len(left) > _SHOWN:
            lines.append(f"  and {len(left) - _SHOWN} more")
        lines.append("The same command does what is missing.")
        return "\n".join(lines)

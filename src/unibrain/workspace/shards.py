"""Work in shards: what a stage leaves to several processes, what of it is done, and where its logs are.

Work lies in a folder: ``work.json`` says what there is to do, and for each shard that was done there is a small record,
``done/NAME.json``, renamed into place when its results are. The folder belongs to one declaration of a stage: what is
done there was done with this very input, code and weights.
"""

import json
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace.files import read_json, write_json
from unibrain.workspace.progress import remark

PLAN = "work.json"
_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """A part of some work that one process does alone; done again, it writes the same bytes.

    Attributes
    ----------
    name : str
        Of letters, digits and dashes; it names files.
    what : str
        For people, such as ``"picture of rows 0 to 31"``.
    items : int
        How many images or scans it is about.
    task : mapping
        What it takes to do it: names and row numbers, JSON-ready.
    """

    name: str
    what: str
    items: int
    task: Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """What a stage leaves to several processes.

    Attributes
    ----------
    folder : pathlib.Path
        Where plan, records and logs are; all workers have to see it.
    stage : str
        The stage, or the experiment, for people.
    kind : str
        How its shards are done: a key of `unibrain.pipeline.shards.TASKS`.
    about : mapping
        What all shards share, JSON-ready.
    shards : tuple of Shard
    token : str
        Made anew with each plan, so that a worker can show that it sees this folder and no other of the same name.
    """

    folder: Path
    stage: str
    kind: str
    about: Mapping[str, Any]
    shards: tuple[Shard, ...]
    token: str = ""

    def record(self, name: str) -> Path:
        """What is written when a shard is done."""
        return self.folder / "done" / f"{name}.json"

    def log(self, name: str) -> Path:
        """What a worker said while it did a shard."""
        return self.folder / "logs" / f"{name}.log"

    def left(self) -> tuple[Shard, ...]:
        """The shards that are not done."""
        try:
            done = {path.name for path in (self.folder / "done").iterdir()}
        except FileNotFoundError:
            done = set()
        return tuple(shard for shard in self.shards if f"{shard.name}.json" not in done)

    def records(self) -> dict[str, dict[str, Any]]:
        """Records of the shards that are done, by name.

        Each has ``seconds``, ``items``, ``host``, ``process``, ``peak_memory_mb`` of that process, ``finished``, and
        ``remarks`` if there were any.
        """
        found = {}
        for shard in self.shards:
            with suppress(FileNotFoundError):  # not done
                found[shard.name] = read_json(self.record(shard.name))
        return found


Engine = Callable[[Work], None]
"""Does work, wherever it does it, and returns when all is done.

Raises `UnfinishedError` if some shards could not be done, once all others are.
"""


class Counted:
    """An engine for the works of one stage, which keeps account of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: list[dict[str, Any]] = []
        self._elapsed = 0.0

    def __call__(self, work: Work) -> None:
        """Have some work done."""
        began = time.monotonic()
        self._engine(work)
        self._elapsed += time.monotonic() - began
        records = work.records().values()
        self._records += records
        for text in sorted({text for record in records for text in record.get("remarks", ())}):
            remark(text)

    def peak_memory_mb(self) -> float:
        """Most memory that the workers on this machine have held, all together."""
        peaks = dict[int, float]()
        for record in self._records:
            if record["host"] == socket.gethostname():
                process = record["process"]
                peaks[process] = max(peaks.get(process, 0.0), record.get("peak_memory_mb", 0.0))
        return sum(peaks.values())

    def notes(self) -> dict[str, Any]:
        """For the record: how many shards, their seconds, those that went by meanwhile, and how many workers."""
        return {
            "count": len(self._records),
            "seconds": round(sum(record["seconds"] for record in self._records), 3),
            "elapsed": round(self._elapsed, 3),
            "workers": len({(record["host"], record["process"]) for record in self._records}),
        }


def write_work(work: Work) -> Work:
    """Write a plan, and return it as workers will read it; the same plan from before stays, workers may be using it.

    Of another plan from before, shards that are the same now stay done.
    """
    before: Work | None = None
    with suppress(InputError):  # none from before
        before = read_work(work.folder)
    now = _as_read(work)
    if before is not None and replace(before, token="") == now:
        return before
    known = {} if before is None else {shard.name: shard for shard in before.shards}
    for shard in now.shards:
        if known.get(shard.name) != shard:
            work.record(shard.name).unlink(missing_ok=True)
    content = {
        "format": _FORMAT,
        "stage": work.stage,
        "kind": work.kind,
        "about": dict(work.about),
        "shards": [asdict(shard) for shard in work.shards],
        "token": uuid.uuid4().hex,
    }
    write_json(work.folder / PLAN, content)
    return read_work(work.folder)


def _as_read(work: Work) -> Work:
    """Some work as it comes back from JSON."""
    about, shards = json.loads(json.dumps([dict(work.about), [asdict(shard) for shard in work.shards]]))
    return replace(work, about=about, shards=tuple(Shard(**shard) for shard in shards), token="")


def read_work(folder: Path) -> Work:
    """Read a plan; `InputError` if there is none, `DamagedFileError` if it is none of this version."""
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{folder}: there is no plan of shards here. Check that this machine sees the run folder.")
    found = read_json(path)
    try:
        if found["format"] != _FORMAT:
            raise ValueError(found["format"])
        shards = tuple(Shard(**shard) for shard in found["shards"])
        for shard in shards:
            if not shard.name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(shard.name)
        return Work(folder, found["stage"], found["kind"], found["about"], shards, found["token"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(path, f"{path}: it cannot be read as a plan of shards ({error}). Run again.") from None

"""Stages of a run, and the chain that they form: what is current, what has to run, and why.

A run is a chain of artefacts. A stage is declared by everything that decides what it writes: settings, the code that
computes it, facts such as the fingerprint of the weights, artefacts of earlier stages, and files outside the run. When
it ends, a record of all that is kept, with fingerprints of what it wrote. It is current for as long as its declaration,
its record and the disk agree, and so do all stages above it.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace.files import write_json
from unibrain.workspace.fingerprints import LARGE, Fingerprint, code_digest, digest, fingerprint, same
from unibrain.workspace.progress import remarks, say
from unibrain.workspace.provenance import Provenance
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Counted, Engine


@dataclass(frozen=True)
class Stage:
    """One step of a run, declared without doing it.

    Attributes
    ----------
    name : str
    settings : mapping
        Everything chosen by the user that changes what the stage writes, JSON-ready.
    inputs, outputs : tuple of str
        Artefacts of the run folder that it reads and writes (keys of `ARTEFACTS`).
    work : callable
        Does it: takes a folder of its own, in which it may keep what lets it resume, and an engine that does the shards
        that it asks for (None: it does everything itself), and writes every output atomically. What it returns is kept
        in its record as `Record.notes`.
    code : tuple of str
        Packages and modules that compute the result, as in `code_digest`.
    outside : mapping of str to pathlib.Path
        Files and folders outside the run folder that it reads. They need not be there.
    facts : callable
        Gives what else decides the result, such as the fingerprint of the weights.
    call : mapping of str to str
        What else was chosen for this call alone, such as the precision. It counts when this stage is asked for, and not
        when a later one is.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[Path, Engine | None], Mapping[str, Any] | None]
    code: tuple[str, ...] = ()
    outside: Mapping[str, Path] = field(default_factory=dict)
    facts: Callable[[], Mapping[str, str]] = dict
    call: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class Record:
    """What a stage did last: its declaration as it was then, and what it wrote."""

    stage: str
    settings: dict[str, Any]
    facts: dict[str, str]
    call: dict[str, str]
    code: str
    inputs: dict[str, Fingerprint]
    outside: dict[str, Fingerprint | None]
    outputs: dict[str, Fingerprint]
    notes: dict[str, Any]
    provenance: Provenance

    @property
    def shared_seconds(self) -> float:
        """Seconds that its shards took their workers; 0 if it was not divided."""
        return float(self.notes.get("shards", {}).get("seconds", 0.0))

    @property
    def worker_seconds(self) -> float:
        """Seconds that it takes one worker, whoever did it."""
        elapsed = float(self.notes.get("shards", {}).get("elapsed", 0.0))
        return max(0.0, self.provenance.seconds - elapsed) + self.shared_seconds


@dataclass(frozen=True)
class StageResult:
    """What became of a stage.

    Attributes
    ----------
    name : str
    skipped : bool
        True if everything was up to date.
    seconds : float
        Of the work, now or, if it was skipped, when it was done.
    outputs : tuple of pathlib.Path
    """

    name: str
    skipped: bool
    seconds: float
    outputs: tuple[Path, ...]


@cache
def _reader() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def read_record(run: RunFolder, name: str) -> Record | None:
    """What is on record of the last time that stage `name` ended; None if it never did, or the record is damaged."""
    try:
        content = run.record(name).read_bytes()
        # Parsed by the standard library first: pydantic's parser takes NaN and goes deeper than Python can follow.
        record = _reader().validate_python(json.loads(content))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, Record) and record.stage == name else None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    # What JSON cannot keep apart (tuples and lists) must not look like a change.
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain


def _difference(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{kind} {key} changed from {old.get(key)!r} to {new.get(key)!r}"
    return None


class Chain:
    """All stages of a run as they are declared now: the one place that knows what is up to date.

    Parameters
    ----------
    run : RunFolder
        Locked by the caller while stages run.
    stages : iterable of Stage
        In the order in which they run; each artefact is written by one of them.
    seen : dict, optional
        Artefacts that were read in full under the same lock, as an earlier chain of it left them.
    engine : callable, optional
        Does the shards of stages; without it, this process does everything.
    """

    def __init__(
        self,
        run: RunFolder,
        stages: Iterable[Stage],
        seen: dict[str, Fingerprint] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.run_folder = run
        self.stages = {stage.name: stage for stage in stages}
        self.producer = {output: stage.name for stage in self.stages.values() for output in stage.outputs}
        self.seen = {} if seen is None else seen
        self.engine = engine

    def above(self, name: str) -> list[str]:
        """Every stage that `name` depends on, in the order in which they run."""
        needed = {name}
        for other in reversed(self.stages.values()):
            if other.name in needed:
                needed |= {self.producer[artefact] for artefact in other.inputs}
        return [other for other in self.stages if other in needed - {name}]

    def is_current(self, name: str) -> bool:
        """Whether a stage and everything above it is up to date, as far as the file system tells."""
        return all(self._reason(self.stages[other], read=()) is None for other in (*self.above(name), name))

    def require(self, name: str) -> None:
        """Refuse to go on with what `name` wrote unless it and everything above it is up to date."""
        for other in (*self.above(name), name):
            reason = self._reason(self.stages[other], read=self.stages[name].outputs)
            if reason is not None:
                root = self.run_folder.root
                raise InputError(f"{root}: {other} is not up to date ({reason}). Run `unibrain {other} {root}` first.")

    def run(self, name: str, ready: Callable[[], None] | None = None) -> StageResult:
        """Run a stage unless it is up to date, once all stages above it are.

        What it reads itself is read in full before; what lies further up counts as unchanged where the file system says
        that it was not touched. Its record is written last: a stage that was stopped has none, and runs again.

        Parameters
        ----------
        name : str
        ready : callable, optional
            Called before anything runs, once nothing is in the way.

        Returns
        -------
        StageResult

        Raises
        ------
        InputError
            If a stage above it is not current; the sentence names the first one to run, and why.
        DamagedFileError
            If an artefact could not be read to its end. The stage that wrote it is no longer on record as done.
        """
        for earlier in self.above(name):
            reason = self._reason(self.stages[earlier], read=self.stages[name].inputs)
            if reason is not None:
                root = self.run_folder.root
                raise InputError(
                    f"{root}: {name} needs {earlier}, which is not up to date ({reason}). Run `unibrain {earlier} "
                    f"{root}` first, or add --with-earlier."
                )
        if ready is not None:
            ready()
        stage = self.stages[name]
        again = self._reason(stage, read=stage.outputs, asked=True)
        if again is not None:
            return self._do(stage, again)
        say(f"{name}: up to date")
        record = read_record(self.run_folder, name)
        seconds = 0.0 if record is None else record.provenance.seconds
        return StageResult(name, True, seconds, self._paths(stage))

    def _paths(self, stage: Stage) -> tuple[Path, ...]:
        return tuple(self.run_folder.artefact(name) for name in stage.outputs)

    def _look(self, name: str, known: Fingerprint | None = None) -> Fingerprint | None:
        """Fingerprint of an artefact; without `known` it is read in full, once under one lock."""
        found = fingerprint(self.run_folder.artefact(name), self.seen.get(name) if known is None else known)
        if found is not None and known is None:
            self.seen[name] = found
        return found

    def _reason(self, stage: Stage, read: tuple[str, ...], asked: bool = False) -> str | None:
        """Why a stage is not current, apart from the stages above it; artefacts of `read` are read in full."""
        record = read_record(self.run_folder, stage.name)
        if record is None:
            return "it did not end before" if self.run_folder.record(stage.name).exists() else "not done before"
        if record.code != code_digest(*stage.code):
            return "it was done by another version of the code"
        return (
            _difference("setting", record.settings, _plain(stage.settings))
            or self._other_facts(stage, record, asked)
            or self._other_inputs(stage, record, asked)
            or self._other_outputs(stage, record, read)
        )

    @staticmethod
    def _other_facts(stage: Stage, record: Record, asked: bool) -> str | None:
        try:
            facts = stage.facts()
        except InputError:
            # Weights that are not on this machine cannot have changed under a later stage, which has no need of them.
            if asked:
                raise
            facts = record.facts
        changed = sorted(key for key in record.facts.keys() | facts.keys() if record.facts.get(key) != facts.get(key))
        if changed:
            return f"{', '.join(changed)} changed"
        return _difference("option", record.call, stage.call()) if asked else None

    def _other_inputs(self, stage: Stage, record: Record, asked: bool) -> str | None:
        if record.inputs.keys() != set(stage.inputs):
            return f"{', '.join(sorted(record.inputs.keys() ^ set(stage.inputs)))} came or went"
        for name in stage.inputs:
            producer = read_record(self.run_folder, self.producer[name])
            if producer is None or not same(producer.outputs.get(name), record.inputs[name]):
                return f"{name} changed"
        known = record.outside
        now = {
            name: fingerprint(path, None if asked else known.get(name), LARGE) for name, path in stage.outside.items()
        }
        if not asked and not any(now.values()) and any(known.values()):
            return None  # an archive that is not within reach, as on another machine, has not changed
        for name in sorted(now.keys() | known.keys()):
            if not same(now.get(name), known.get(name)):
                return f"{name} changed"
        return None

    def _other_outputs(self, stage: Stage, record: Record, read: tuple[str, ...]) -> str | None:
        for name in stage.outputs:
            now = self._look(name, None if name in read else record.outputs.get(name))
            if now is None:
                return f"{self.run_folder.artefact(name).name} is missing"
            if not same(now, record.outputs.get(name)):
                return f"{self.run_folder.artefact(name).name} was changed or damaged"
        return None

    def _do(self, stage: Stage, reason: str) -> StageResult:
        # Said first: what decides the result may take seconds to look at, and opening the backbone as many to import.
        say(f"{stage.name}: starts ({reason})" if reason != "not done before" else f"{stage.name}: starts")
        run = self.run_folder
        outside = {name: fingerprint(path, None, LARGE) for name, path in stage.outside.items()}
        producers = {name: read_record(run, self.producer[name]) for name in stage.inputs}
        declared: dict[str, Any] = {
            "settings": _plain(stage.settings),
            "facts": dict(stage.facts()),
            "call": dict(stage.call()),
            "code": code_digest(*stage.code),
            "inputs": {name: record.outputs[name] for name, record in producers.items() if record is not None},
            "outside": outside,
        }
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        write_json(run.record(stage.name), {"stage": stage.name, "started": started})
        for name in stage.outputs:
            self.seen.pop(name, None)
        try:
            cache = self._cache(stage.name, declared)
            engine = None if self.engine is None else Counted(self.engine)
            with remarks() as said:
                notes = dict(stage.work(cache, engine) or {})
            notes |= {"remarks": said} if said else {}
            notes |= {"shards": engine.notes()} if engine is not None and engine.notes()["count"] else {}
        except DamagedFileError as error:
            self._forget(error.path)
            raise
        seconds = time.monotonic() - clock
        made = {name: self._look(name) for name in stage.outputs}
        absent = [name for name, found in made.items() if found is None]
        if absent:
            raise RuntimeError(f"stage {stage.name} ended without writing {', '.join(absent)}")
        about = Provenance.of_now(started, seconds, 0.0 if engine is None else engine.peak_memory_mb())
        record = Record(stage=stage.name, **declared, outputs=made, notes=_plain(notes), provenance=about)  # type: ignore[arg-type]
        write_json(run.record(stage.name), asdict(record))
        shutil.rmtree(run.cache(stage.name), ignore_errors=True)
        say(f"{stage.name}: done in {seconds:.1f} s")
        return StageResult(stage.name, False, seconds, self._paths(stage))

    def _cache(self, name: str, declared: Mapping[str, Any]) -> Path:
        """A folder to resume in, for exactly this declaration: what was begun under another is removed."""
        plain = {part: value for part, value in declared.items() if part not in ("inputs", "outside")}
        content = [
            [place, artefact, [[file, *state.content()] for file, state in (found or {}).items()]]
            for place in ("inputs", "outside")
            for artefact, found in declared[place].items()
        ]
        own = self.run_folder.cache(name) / digest(plain, content)[:16]
        if own.parent.is_dir():
            for other in own.parent.iterdir():
                if other != own:
                    shutil.rmtree(other, ignore_errors=True)
        return own

    def _forget(self, path: Path) -> None:
        """Take the "done" from the stage that wrote `path`."""
        for artefact, producer in self.producer.items():
            place = self.run_folder.artefact(artefact).resolve()
            if path.resolve() == place or place in path.resolve().parents:
                self.seen.pop(artefact, None)
                write_json(self.run_folder.record(producer), {"stage": producer, "damaged": path.name})

"""A stage reads named artefacts, writes its own, and is redone only when something changed."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.workspace.files import write_json
from unibrain.workspace.fingerprints import Fingerprint, fingerprint, same, stat_fingerprint
from unibrain.workspace.progress import say
from unibrain.workspace.provenance import Provenance
from unibrain.workspace.run_folder import ARTEFACTS, RunFolder


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes
    ----------
    name : str
    settings : mapping
        Everything chosen by the user that changes what the stage writes, JSON-ready.
    inputs : tuple of str
        Artefacts of the run folder that the stage reads (keys of `ARTEFACTS`).
    outputs : tuple of str
        Artefacts that it writes.
    work : callable
        Does it. Takes nothing; writes every output atomically.
    outside : mapping of str to pathlib.Path
        Files and folders outside the run folder that it reads; compared by size and time of change.
    facts : mapping of str to str
        What else decides the result, for example the fingerprint of the backbone's weights.
    version : int
        Raised when the code of the stage changes what it writes.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[], None]
    outside: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    version: int = 1


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


def read_record(run: RunFolder, name: str) -> dict[str, Any] | None:
    """What is on record of the last time that stage `name` ended; None if it never did, or the record is damaged."""
    try:
        record = json.loads(run.record(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("state") != "done":
        return None
    parts = ("settings", "facts", "inputs", "outputs", "provenance")
    return record if all(isinstance(record.get(part), dict) for part in parts) else None


def _known(record: Mapping[str, Any] | None, side: str, name: str) -> Fingerprint | None:
    entry = (record or {}).get(side, {}).get(name)
    return entry if isinstance(entry, dict) else None


def _check_inputs(run: RunFolder, stage: Stage) -> dict[str, Fingerprint | None]:
    found: dict[str, Fingerprint | None] = {}
    for name in stage.inputs:
        path, producer = run.artefact(name), ARTEFACTS[name][1]
        remedy = f"run `unibrain {producer} {run.root}`"
        record = read_record(run, producer)
        if not path.exists():
            raise InputError(f"{path} is not there, expected what the stage {producer} writes: {remedy} first")
        if record is None:
            raise InputError(
                f"{path} was left by a stage {producer} that did not end, expected a finished one: {remedy}"
            )
        known = _known(record, "outputs", name)
        found[name] = fingerprint(path, known)
        if not same(found[name], known):
            raise InputError(
                f"{path} was changed or damaged after the stage {producer} wrote it, expected it as written: {remedy}"
            )
    for name, path in stage.outside.items():
        found[name] = stat_fingerprint(path)
        if found[name] is None:
            raise InputError(f"{path} is not there, expected {name}: check the path in {run.settings}")
    return found


def _difference(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{kind} {key} changed from {old.get(key)!r} to {new.get(key)!r}"
    return None


def _reason(run: RunFolder, stage: Stage, inputs: Mapping[str, Fingerprint | None]) -> str | None:
    record = read_record(run, stage.name)
    if record is None:
        return "it did not end before" if run.record(stage.name).exists() else "not done before"
    if record.get("version") != stage.version:
        return f"it was done by another version of this stage ({record.get('version')}, now {stage.version})"
    # What JSON cannot keep apart (tuples and lists) must not look like a change.
    settings = json.loads(json.dumps(dict(stage.settings)))
    changed = _difference("setting", record.get("settings", {}), settings)
    if changed is None and record.get("facts", {}) != dict(stage.facts):
        changed = f"{', '.join(stage.facts) or 'what it depends on'} changed"
    if changed is not None:
        return changed
    for name, now in inputs.items():
        if not same(now, _known(record, "inputs", name)):
            return f"{name} changed"
    for name in stage.outputs:
        known = _known(record, "outputs", name)
        now = fingerprint(run.artefact(name), known)
        if now is None:
            return f"{run.artefact(name).name} is missing"
        if not same(now, known):
            return f"{run.artefact(name).name} was changed or damaged"
    return None


def reason_to_run(run: RunFolder, stage: Stage) -> str | None:
    """Say why `stage` has to run (again); None if it is up to date.

    Raises
    ------
    InputError
        If an input is missing, unfinished or damaged; the sentence names the stage to run.
    """
    return _reason(run, stage, _check_inputs(run, stage))


def run_stage(run: RunFolder, stage: Stage) -> StageResult:
    """Run `stage` unless it is up to date.

    Its record is written last: a stage that was stopped has none, and runs again.

    Parameters
    ----------
    run : RunFolder
    stage : Stage

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If another run works in the folder, or an input is missing, unfinished or damaged.
    """
    outputs = tuple(run.artefact(name) for name in stage.outputs)
    with run.lock():
        inputs = _check_inputs(run, stage)
        reason = _reason(run, stage, inputs)
        if reason is None:
            say(f"{stage.name}: up to date")
            record = read_record(run, stage.name) or {}
            return StageResult(stage.name, True, float(record.get("provenance", {}).get("seconds", 0.0)), outputs)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        write_json(run.record(stage.name), {"stage": stage.name, "state": "started", "started": started})
        say(f"{stage.name}: starts ({reason})" if reason != "not done before" else f"{stage.name}: starts")
        stage.work()
        seconds = time.monotonic() - clock
        made = {name: fingerprint(run.artefact(name)) for name in stage.outputs}
        absent = [name for name, found in made.items() if found is None]
        if absent:
            raise RuntimeError(f"stage {stage.name} ended without writing {', '.join(absent)}")
        record = {
            "stage": stage.name,
            "state": "done",
            "version": stage.version,
            "settings": dict(stage.settings),
            "facts": dict(stage.facts),
            "inputs": inputs,
            "outputs": made,
            "provenance": Provenance.of_now(started, seconds).as_dict(),
        }
        write_json(run.record(stage.name), record)
        say(f"{stage.name}: done in {seconds:.1f} s")
    return StageResult(stage.name, False, seconds, outputs)

"""The runs of several subjects: one after the other, or several at a time, each by a client of its own.

A client is a shard of some work, whose result is the run folder: it shares out the shards of its stages as ever. What
all subjects see is encoded before, by all workers.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from unibrain.engines import engine_of
from unibrain.engines.local import visible_cards
from unibrain.engines.worker import source as source_of
from unibrain.errors import InputError, PlaceError, UnfinishedError
from unibrain.pipeline import BackboneSource, RunFolder, Settings, read_settings, run_all, run_one, write_settings
from unibrain.pipeline.place import parse_place, place_text
from unibrain.pipeline.shards import program
from unibrain.pipeline.sources import ENCODED
from unibrain.workspace.files import read_json, write_json
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import folder_lock
from unibrain.workspace.shards import Engine, Shard, Work, write_work

_FOR_EVER = 1e6
"""Minutes that a client may take; the shards that it hands out have limits of their own."""


def run_subjects(
    out: Path, runs: Mapping[str, Settings], source: BackboneSource, on: str | None = None
) -> dict[str, str]:
    """Run all stages of several subjects.

    Parameters
    ----------
    out : pathlib.Path
        Folder of their run folders; locked meanwhile.
    runs : mapping of str to Settings
        Name of a run folder to its settings.
    source : BackboneSource
    on : str, optional
        Where shards are done; by default where the settings of the first say, or here.

    Returns
    -------
    dict of str to str
        Run folder to why it is not finished; all others are.

    Raises
    ------
    InputError
        If another call works in `out`, or nothing can be done where shards were to be done.
    """
    section, out = next(iter(runs.values())).engine, out.absolute()
    on = on or section.on
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        (out / ENCODED).mkdir(exist_ok=True)
        for name, settings in runs.items():
            if not RunFolder(out / name).begun:  # so that it can be planned
                write_settings(RunFolder(out / name).settings, settings)
        clients = 1 if on is None else min(len(runs), _workers(on, source.device, len(runs)))
        if on is not None and clients > 1:
            _encode_for_all(out, runs, source, on)
            failed = _side_by_side(out, runs, source, on, clients)
        else:
            engine = None if on is None else engine_of(on, section.time_limit)
            failed = _one_by_one(out, runs, source, engine)
        if not failed:  # else it serves the next call
            shutil.rmtree(out / ENCODED)
    return failed


def _one_by_one(
    out: Path, runs: Mapping[str, Settings], source: BackboneSource, engine: Engine | None
) -> dict[str, str]:
    failed = {}
    for name, settings in runs.items():
        say(f"{name}:")
        try:
            run_all(RunFolder(out / name), settings, source, engine)
        except (InputError, UnfinishedError) as error:
            failed[name] = str(error)
    return failed


def _encode_for_all(out: Path, runs: Mapping[str, Settings], source: BackboneSource, on: str) -> None:
    """Extract the first subject that can be: then what all subjects see is encoded. Its engine ends with this."""
    for name, settings in runs.items():
        engine = engine_of(on, settings.engine.time_limit)
        try:
            run_one("extract", RunFolder(out / name), settings, source, with_earlier=True, engine=engine)
            return
        except PlaceError:
            raise  # of no use to the others either
        except (InputError, UnfinishedError):
            continue  # told by its own client


def _side_by_side(
    out: Path, runs: Mapping[str, Settings], source: BackboneSource, on: str, clients: int
) -> dict[str, str]:
    folder, shards = out / ".cache" / "subjects", []
    shutil.rmtree(folder, ignore_errors=True)  # what is done is for each run to say
    for number, (name, settings) in enumerate(runs.items()):
        task = {"settings": str(folder / f"{name}.toml"), "run": str(out / name), "on": share_of(on, clients, number)}
        write_settings(task["settings"], settings)
        shards.append(Shard(name, f"the run in {out / name}", 1, task))
    about = {"device": source.device, "dtype": source.dtype, "offload": source.offload}
    work = write_work(Work(folder, "subjects", "run", about | {"same": program()}, tuple(shards)))
    say(f"subjects: {clients} at a time; `unibrain status {out}` tells how far each is, {folder / 'logs'} what it says")
    failed = {}
    try:
        engine_of(f"local:{clients}", _FOR_EVER, run_subject)(work)
    except UnfinishedError:
        failed = {shard.name: f"its client ended early (log: {work.log(shard.name)})" for shard in work.left()}
    failed |= {path.stem: str(read_json(path)["reason"]) for path in (folder / "failed").glob("*.json")}
    if not failed:
        shutil.rmtree(folder)
    return {name: failed[name] for name in runs if name in failed}


def run_subject(work: Work, shard: Shard) -> None:
    """Run one subject, in a worker that is its client; what the user has to mend is written down, not tried again."""
    about, settings = work.about, read_settings(shard.task["settings"])
    engine = engine_of(shard.task["on"], settings.engine.time_limit)
    source = source_of(about["device"], about["dtype"], about["offload"])
    try:
        run_all(RunFolder(shard.task["run"]), settings, source, engine)
    except (InputError, UnfinishedError) as error:
        write_json(work.folder / "failed" / f"{shard.name}.json", {"reason": str(error)})


def _workers(on: str, device: str, subjects: int) -> int:
    """Workers of a place, which subjects share; a cluster has some for each of them."""
    place = parse_place(on)
    if place.engine != "local":
        return subjects
    return place.workers or (len(visible_cards()) if device in ("auto", "cuda") else 1)


def share_of(on: str, parts: int, number: int) -> str:
    """What one of several clients gets of a place: its share of the workers, of which there are at least as many.

    Examples
    --------
    >>> share_of("local:5", 2, 0), share_of("local:5", 2, 1), share_of("slurm:gpu,workers=8,time=60", 4, 0)
    ('local:3', 'local:2', 'slurm:gpu,time=60,workers=2')
    """
    place = parse_place(on)
    if place.workers is None:
        return on
    more = number < place.workers % parts
    return place_text(replace(place, workers=max(1, place.workers // parts + more)))

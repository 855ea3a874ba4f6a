"""What a run has left to do, from what was measured: shards, seconds, disk; and how far it is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.run import kept_settings
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.shards import SHARDS
from unibrain.pipeline.stages import STAGES, declare
from unibrain.workspace.files import free_bytes, readable_bytes
from unibrain.workspace.progress import readable_seconds
from unibrain.workspace.run_folder import RunFolder, holder
from unibrain.workspace.shards import PLAN, Work, read_work
from unibrain.workspace.stages import Chain, Record, read_record

DIVIDED = ("extract", "fit", "reconstruct", "controls", "evaluate")
"""Stages that are done in shards, in part at least."""


@dataclass(frozen=True)
class StagePlan:
    """What a stage has left.

    Attributes
    ----------
    name : str
    state : str
        ``"up to date"``, or that it has to run.
    shards : int or None
        None where it is not divided, or its input is not known yet.
    items : int or None
        Images or scans that it is about.
    seconds : float or None
        That it takes one worker, at the speed that was measured; None if it was not.
    shared : float
        How many of them are those of shards.
    size : int or None
        Bytes that it writes, as measured.
    """

    name: str
    state: str
    shards: int | None
    items: int | None
    seconds: float | None
    shared: float
    size: int | None


def plan_run(run: RunFolder, like: RunFolder | None = None, backbone: BackboneSource | None = None) -> list[StagePlan]:
    """Plan what a run, of which there may be no more than its settings, has left to do; nothing is computed.

    Where it was not measured yet, the measured speed of `like` counts.
    """
    if not run.settings.exists():
        raise InputError(f"{run.root}: there is no run in this folder. Check the path, or copy a settings.toml there.")
    settings = kept_settings(run)
    stages = declare(run, settings, backbone)
    chain, found = Chain(run, stages), []
    for stage in stages:
        state = "up to date" if chain.is_current(stage.name) else "to do"
        items, shards = _counts(stage.name, run, settings)
        measured = _measured(stage.name, run)
        if measured[0] is None and like is not None:
            there, _ = _counts(stage.name, like, kept_settings(like))
            if items and there:
                measured = _measured(stage.name, like, items / there)
        found.append(StagePlan(stage.name, state, shards, items, *measured))
    return found


def _counts(name: str, run: RunFolder, settings: Settings) -> tuple[int | None, int | None]:
    """How many items and shards a stage has; unknown while the scans are not prepared."""
    from unibrain.evaluation.controls import CONTROLS
    from unibrain.evaluation.evaluate import metrics_of, scored_metrics
    from unibrain.reconstruction.reconstruct import BATCH

    record = read_record(run, name)
    done = record.notes.get("shards", {}).get("count") if record is not None else None
    known = _images(run, settings)
    if known is None:
        return None, None
    images, test, simulated = known
    if name == "extract":
        return images, done or ceil(images / settings.extract.batch_size)
    if name == "fit":
        return images - test, done or _blocks(run, settings, gains=True)
    if name == "reconstruct":
        batches = 2 * ceil(test / (settings.reconstruct.batch_size or BATCH))
        blocks = _blocks(run, settings, gains=False)
        return test, done or (None if blocks is None else batches + blocks)
    if name == "controls":
        section, few = settings.controls, min(test, settings.controls.images)
        wanted = [CONTROLS[key] for key in section.names()]
        batches = 2 * ceil(few / (section.batch_size or BATCH))
        decoded = [row for row in wanted if row.diffuses or row.name == "z_only"]
        return few * sum(row.diffuses for row in wanted), batches * len(decoded)
    if name == "evaluate":
        metrics = scored_metrics(metrics_of(settings.evaluate.dialect, settings.evaluate.protocol), simulated)
        return test, len({(metric.kind, metric.network) for metric in metrics})
    return test if name == "report" else images, None


def _blocks(run: RunFolder, settings: Settings, gains: bool) -> int | None:
    """Blocks of columns that fitting (its gains) or predicting takes, with one penalty for a latent."""
    from unibrain.latents import open_latents
    from unibrain.regression.blocks import count_blocks
    from unibrain.regression.rescale import left_out_rows
    from unibrain.scans import load_subject

    try:
        subject, stored = load_subject(run.artefact("subject")), open_latents(run.artefact("latents"), verify=False)
        train, section = stored.select(subject.train.stimulus_ids), settings.fit
        left_out = left_out_rows(train.stimulus_ids, section.rescale, section.seed)
        return count_blocks(train, len(left_out) if gains else int(subject.is_test.sum()), section.memory * 1e9)
    except InputError:  # not there yet, or of other images
        return None


def _images(run: RunFolder, settings: Settings) -> tuple[int, int, bool] | None:
    """Images in all, test images, and whether they are simulated."""
    import numpy as np

    if run.artefact("subject").exists():
        from unibrain.scans import load_subject

        subject = load_subject(run.artefact("subject"))
        return len(np.unique(subject.stimulus_ids)), int(subject.is_test.sum()), subject.simulated
    section = settings.simulate
    if section is None:
        return None
    return section.training_images + section.test_images, section.test_images, True


def _measured(name: str, run: RunFolder, share: float = 1.0) -> tuple[float | None, float, int | None]:
    """Seconds of a stage in a run, those of its shards, and bytes; of a share of its items, which may be above 1."""
    record = read_record(run, name)
    if record is not None:
        seconds = record.worker_seconds
        # What one process did can be shared all the same, but for products with latents: most of `fit` is not that.
        shared = record.shared_seconds or (seconds if name in DIVIDED and name != "fit" else 0.0)
        return share * seconds, share * shared, int(share * _size(record))
    work = work_of(run, name)
    records = [] if work is None else list(work.records().values())
    items = sum(one["items"] for one in records)
    if work is None or not items:
        return None, 0.0, None
    expected = share * sum(shard.items for shard in work.shards) * sum(one["seconds"] for one in records) / items
    return expected, expected, None


def _size(record: Record) -> int:
    return sum(state.size for found in record.outputs.values() for state in found.values())


def work_of(run: RunFolder, name: str) -> Work | None:
    """The shards of a stage that is under way, or was stopped: its last work."""
    plans = run.cache(name).glob(f"*/{SHARDS}/*/{PLAN}")
    try:
        newest = max(plans, key=lambda path: path.stat().st_mtime, default=None)
        return None if newest is None else read_work(newest.parent)
    except (InputError, FileNotFoundError):  # damaged, or gone: the stage ends
        return None


def plan_text(plan: Sequence[StagePlan], root: Path, workers: int) -> str:
    """Lay out a plan as a table, with the sum over what is to do."""
    lines = [f"{'stage':<12}{'state':<12}{'items':>8}{'shards':>8}{'one worker':>14}{'disk':>10}"]
    for stage in plan:
        known_seconds = "-" if stage.seconds is None else readable_seconds(stage.seconds)
        cells = f"{_shown(stage.items):>8}{_shown(stage.shards):>8}{known_seconds:>14}"
        size = "-" if stage.size is None else readable_bytes(stage.size)
        lines.append(f"{stage.name:<12}{stage.state:<12}{cells}{size:>10}")
    todo = [stage for stage in plan if stage.state != "up to date"]
    shared = sum(stage.shared for stage in todo)
    alone = sum(stage.seconds or 0 for stage in todo) - shared
    # A worker too many has nothing to do: no stage is done sooner than its rounds of shards.
    rounds = sum(s.shared * ceil((s.shards or 1) / workers) / (s.shards or 1) for s in todo)
    unknown = [stage.name for stage in todo if stage.seconds is None]
    lines += [
        "",
        f"To do: {readable_seconds(alone + shared)} with one worker, "
        f"{readable_seconds(alone + rounds)} with {workers}; "
        f"{shared / 3600:.2f} hours of workers (GPU hours, where each has a graphics card).",
    ]
    if unknown:
        lines.append(
            f"Not measured yet, and not counted: {', '.join(unknown)}. --like RUN takes the speed of another run."
        )
    known = sum(stage.size or 0 for stage in todo)
    lines.append(f"Disk: {readable_bytes(known)} to be written as measured, {readable_bytes(free_bytes(root))} free.")
    return "\n".join(lines)


def status_text(run: RunFolder) -> str:
    """How far a run is, from its records and those of its shards; works while it runs, and takes no lock."""
    if not run.begun and not run.settings.exists():
        raise InputError(f"{run.root}: there is no run in this folder. Check the path.")
    lines = []
    for name in STAGES:
        work = work_of(run, name)
        under_way = [] if work is None else _under_way(name, work)
        record = read_record(run, name)  # after its shards, which go when it ends
        if record is not None:
            lines.append(
                f"{name:<12}done in {readable_seconds(record.provenance.seconds)} ({record.provenance.started})"
            )
        elif under_way:
            lines += under_way
        elif run.record(name).exists():
            lines.append(f"{name:<12}begun, and not ended")
        elif name not in ("simulate", "audit"):
            lines.append(f"{name:<12}not begun")
    who = holder(run.root)
    return "\n".join([*lines, "", f"Works here: {who}." if who else "Nobody holds the run."])


def _under_way(name: str, work: Work) -> list[str]:
    records, left = work.records(), work.left()
    done, total = len(records), len(work.shards)
    text = f"{name:<12}{done} of {total} shards"
    if records:
        ends = [datetime.fromisoformat(record["finished"]).timestamp() for record in records.values()]
        begins = [end - record["seconds"] for end, record in zip(ends, records.values(), strict=True)]
        each = max(max(ends) - min(begins), 0.001) / done
        hosts = sorted({f"{record['host']}, process {record['process']}" for record in records.values()})
        text += (
            f", {60 / each:.3g} a minute, about {readable_seconds(each * len(left))} to go; done by {'; '.join(hosts)}"
        )
    lines = [text]
    for shard in left:
        log = work.log(shard.name)
        with suppress(FileNotFoundError):  # not begun
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
            lines.append(f"{'':<12}begun: {shard.what}: {last[:100]} (log: {log})")
    return lines


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}"

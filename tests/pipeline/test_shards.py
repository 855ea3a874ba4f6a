"""Runs whose stages are done in shards: the same bytes, whatever the order, and nothing is computed twice."""

import errno
import fcntl
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import SETTINGS, command, toy

from unibrain.errors import UnfinishedError
from unibrain.pipeline import RunFolder, Settings, run_all, write_settings
from unibrain.pipeline.plan import plan_run, plan_text, status_text
from unibrain.pipeline.tasks import perform
from unibrain.workspace.files import write_json
from unibrain.workspace.shards import Work

SMALL_BATCHES = SETTINGS.changed("extract", {"batch_size": 7}, where="--")
SMALL_BATCHES = SMALL_BATCHES.changed("reconstruct", {"batch_size": 4}, where="--")
SMALL_BATCHES = SMALL_BATCHES.changed("controls", {"batch_size": 1}, where="--")


def shuffled(seed: int, stages: list[str], leave: str = "") -> Callable[[Work], None]:
    """An engine that does shards in this process in some order, each as if by a worker of its own."""

    def engine(work: Work) -> None:
        stages.append(work.stage)
        shards = list(work.left())
        random.Random(seed).shuffle(shards)
        for shard in shards:
            if leave and leave in shard.name:
                continue
            perform(work, shard, toy())
            record = {"seconds": 2.0, "items": shard.items, "host": "here", "process": 7}
            write_json(work.record(shard.name), record | {"finished": "2026-01-01T00:00:00+00:00"})
        if work.left():
            raise UnfinishedError("one is missing")

    return engine


def content(run: RunFolder) -> dict[str, bytes]:
    """Everything that a run computed, but for seconds."""
    files = {}
    for name in ("latents", "decoder", "predicted", "decoded", "controls"):
        folder = run.artefact(name)
        files |= {str(path.relative_to(run.root)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    scores = json.loads(run.artefact("scores").read_bytes())
    wanted = ("metrics", "latent_accuracy", "latent_identification")
    return files | {"scores": json.dumps([scores[name] for name in wanted]).encode()}


def test_shards_in_any_order_give_the_bytes_of_one_process(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "as on a network file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    stages, source, run = list[str](), toy(), RunFolder(tmp_path / "run")
    run_all(run, SMALL_BATCHES, source, shuffled(3, stages))
    assert stages == ["extract", "reconstruct", "controls", "evaluate"]
    assert content(run) == content(finished)
    calls = source.load("toy").calls  # type: ignore[attr-defined]
    assert not [call for call in calls if call.startswith("sample")], "the stages found their work done"
    assert not [call for call in calls if call.startswith("encode") and "z_image" in call]
    assert not list(run.root.glob(".cache/*"))
    extract = plan_run(run, backbone=toy())[2]
    assert (extract.state, extract.items, extract.shards, extract.seconds) == ("up to date", 36, 6, 12.0)


def test_a_shard_that_is_missing_stops_the_stage_and_the_next_call_does_it_alone(
    finished: RunFolder, tmp_path: Path
) -> None:
    run, stages = RunFolder(tmp_path / "run"), list[str]()
    with pytest.raises(UnfinishedError):
        run_all(run, SMALL_BATCHES, toy(), shuffled(1, stages, leave="caption-000004"))
    assert not run.artefact("decoded").exists()
    said = status_text(run)
    assert "3 of 4 shards" in said
    assert "Nobody holds the run." in said
    assert "controls    not begun" in said

    planned = {stage.name: stage for stage in plan_run(run, finished, toy())}
    assert planned["extract"].state == "up to date"
    assert (planned["reconstruct"].shards, planned["reconstruct"].state) == (4, "to do")
    assert "hours of workers" in plan_text(list(planned.values()), run.root, 2)

    left = list[int]()

    def count(work: Work) -> None:
        left.append(len(work.left()))
        shuffled(2, stages)(work)

    run_all(run, SMALL_BATCHES, toy(), count)
    assert left[0] == 1, "of reconstruct"
    assert content(run) == content(finished)


def test_runs_on_the_same_pictures_share_what_is_encoded(tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    def settings(subject: int) -> Settings:
        changed = SMALL_BATCHES.changed("prepare", {"subject": subject}, where="--")
        return changed.changed("extract", {"shared": str(shared)}, where="--")

    first, second = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    for run, subject in ((first, 1), (second, 1)):
        run.root.mkdir()
        write_settings(run.settings, settings(subject))
        command(run, "simulate")
        command(run, "prepare")
    source = toy()
    command(first, "extract", source)
    encoded = list(source.load("toy").calls)  # type: ignore[attr-defined]
    assert encoded
    again = toy()
    command(second, "extract", again)
    assert again.load("toy").calls == []  # type: ignore[attr-defined]
    names = [path.name for path in first.artefact("latents").iterdir()]
    assert all(
        (first.artefact("latents") / name).read_bytes() == (second.artefact("latents") / name).read_bytes()
        for name in names
    )
    for path in shared.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    second.record("extract").unlink()
    command(second, "extract", again)
    assert again.load("toy").calls == encoded, "what was cut off is encoded again"  # type: ignore[attr-defined]

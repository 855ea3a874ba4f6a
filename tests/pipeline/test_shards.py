"""Runs whose stages are done in shards: the same bytes, whatever the order, and nothing is computed twice."""

import errno
import fcntl
import json
import random
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from killed import killed_in_the_middle
from runs import SETTINGS, command, toy

from unibrain.engines import engine_of
from unibrain.errors import UnfinishedError
from unibrain.pipeline import BackboneSource, RunFolder, run_one
from unibrain.pipeline.plan import DIVIDED, plan_run, plan_text, status_text
from unibrain.pipeline.tasks import perform
from unibrain.workspace.files import write_json
from unibrain.workspace.shards import Engine, Work

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


def again(run: RunFolder, names: Sequence[str], source: BackboneSource, engine: Engine) -> None:
    """Do some stages again, from their inputs."""
    for name in names:
        run.record(name).unlink(missing_ok=True)
        run_one(name, run, SMALL_BATCHES, source, engine=engine)


def test_shards_in_any_order_give_the_bytes_of_one_process(
    finished: RunFolder, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "as on a network file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    stages, source = list[str](), toy()
    again(run, DIVIDED, source, shuffled(3, stages))
    assert stages == ["extract", "fit", "predict", "reconstruct", "controls", "evaluate"]
    assert content(run) == content(finished)
    calls = source.load("toy").calls  # type: ignore[attr-defined]
    assert not [call for call in calls if call.startswith("sample")], "the stages found their work done"
    assert not [call for call in calls if call.startswith("encode") and "z_image" in call]
    assert not list(run.root.glob(".cache/*"))
    extract = plan_run(run, backbone=toy())[2]
    assert (extract.state, extract.items, extract.shards, extract.shared) == ("up to date", 36, 6, 12.0)
    assert extract.seconds is not None
    assert extract.seconds > extract.shared, "one worker would do the client's part, too"


def test_a_shard_that_is_missing_stops_the_stage_and_the_next_call_does_it_alone(
    finished: RunFolder, run: RunFolder
) -> None:
    stages, left = list[str](), list[int]()
    shutil.rmtree(run.artefact("decoded"))
    run.record("controls").unlink()
    with pytest.raises(UnfinishedError):
        again(run, ["reconstruct"], toy(), shuffled(1, stages, leave="caption-000004"))
    assert not run.artefact("decoded").exists()
    said = status_text(run)
    assert "3 of 4 shards" in said
    assert "Nobody holds the run." in said
    assert "controls    not begun" in said
    planned = {stage.name: stage for stage in plan_run(run, finished, toy())}
    assert planned["extract"].state == "up to date"
    # Of four latents to predict, and four batches to decode.
    assert (planned["reconstruct"].shards, planned["reconstruct"].state) == (4 + 4, "to do")
    assert "hours of workers" in plan_text(list(planned.values()), run.root, 2)

    def count(work: Work) -> None:
        left.append(len(work.left()))
        shuffled(2, stages)(work)

    again(run, ["reconstruct"], toy(), count)
    assert left == [1]
    decoded = [run.artefact("decoded"), finished.artefact("decoded")]
    assert len({tuple(path.read_bytes() for path in sorted(folder.iterdir())) for folder in decoded}) == 1


def test_worker_processes_leave_the_bytes_of_this_one_though_one_is_killed_in_the_middle(
    finished: RunFolder, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = SETTINGS.changed("fit", {"memory": 0.000035}, where="--")

    def fit_and_predict(engine: Engine | None) -> dict[str, bytes]:
        for name in ("fit", "reconstruct"):
            run.record(name).unlink()
            run_one(name, run, narrow, toy(), engine=engine)
        return content(run)

    works, real = list[Work](), engine_of("local:2", 1.0, killed_in_the_middle)

    def engine(work: Work) -> None:
        (real if work.kind == "block" else shuffled(0, []))(work)
        works.append(work)
        assert len(work.records()) == len(work.shards)

    assert content(run) == content(finished)
    alone = fit_and_predict(None)
    assert fit_and_predict(engine) == alone
    assert [work.stage for work in works] == ["fit", "predict", "reconstruct"]
    assert all(len(work.shards) > 4 for work in works[:2]), "more blocks than latents"
    assert capsys.readouterr().err.count("its worker process died; tried again") == 1
    assert not list(run.root.glob(".cache/*"))
    assert plan_run(run, backbone=toy())[3].shards == len(works[0].shards)


def test_a_result_of_a_block_that_is_damaged_is_computed_again(finished: RunFolder, run: RunFolder) -> None:
    damaged = list[str]()

    def engine(work: Work) -> None:
        shuffled(0, [])(work)
        if work.kind == "block":
            path = sorted(run.root.glob(f".cache/**/{work.stage}/z_text-*.npy"))[0]
            path.write_bytes(path.read_bytes()[:-9])
            damaged.append(work.stage)
            with pytest.raises(ValueError, match=r"reshape|array"):
                np.load(path)

    again(run, ["fit", "reconstruct"], toy(), engine)
    assert damaged == ["fit", "predict"]
    assert content(run) == content(finished)


def test_runs_on_the_same_pictures_share_what_is_encoded(finished: RunFolder, run: RunFolder) -> None:
    shared = run.root.parent / "shared"

    def extract() -> list[str]:
        run.record("extract").unlink()
        source = toy()
        assert not command(run, "extract", source, shared=str(shared), batch_size=7).skipped
        return list(source.load("toy").calls)  # type: ignore[attr-defined]

    encoded = extract()
    assert len([call for call in encoded if "z_image" in call]) == 6
    assert extract() == []
    for path in shared.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert extract() == encoded, "what was cut off is encoded again"
    for path in finished.artefact("latents").iterdir():
        assert (run.artefact("latents") / path.name).read_bytes() == path.read_bytes()

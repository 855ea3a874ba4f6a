"""The chain of stages, with three tiny ones: `prepare` writes its setting, `extract` and `fit` what they read."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from unibrain.errors import DamagedFileError, InputError
from unibrain.workspace import fingerprints, stages
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import remark
from unibrain.workspace.provenance import LIBRARIES, Provenance, peak_memory_mb
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Engine, Shard, Work, write_work
from unibrain.workspace.stages import Chain, Stage, read_record


class Run:
    def __init__(self, root: Path) -> None:
        self.folder, self.archive, self.calls = RunFolder(root), root.parent / "archive", list[str]()
        self.declared: dict[str, Any] = {"a": 1, "alpha": "cv", "backbone": "0f", "precision": "fp32", "code": ()}
        self.trouble: Exception | None = None

    def stages(self) -> list[Stage]:
        path, now = self.folder.artefact, self.declared

        def prepare(*_: object) -> None:
            self.calls.append("prepare")
            path("subject").write_text(json.dumps({"a": now["a"]}) + "x" * 100)

        def extract(*_: object) -> dict[str, int]:
            self.calls.append("extract")
            path("latents").mkdir(exist_ok=True)
            (path("latents") / "z").write_text(path("subject").read_text() * 2)
            return {"images": 3}

        def fit(*_: object) -> None:
            self.calls.append("fit")
            if self.trouble is not None:
                raise self.trouble
            path("decoder").write_text((path("latents") / "z").read_text() + str(now["alpha"]))

        facts = {"backbone": now["backbone"]}
        return [
            Stage("prepare", {"a": now["a"]}, (), ("subject",), prepare, outside={"the scans": self.archive}),
            Stage(
                "extract",
                {"batch": (1, 2)},
                ("subject",),
                ("latents",),
                extract,
                now["code"],
                facts=lambda: facts,
                call=lambda: {"precision": now["precision"]},
            ),
            Stage("fit", {"alpha": now["alpha"]}, ("latents",), ("decoder",), fit),
        ]

    def chain(self) -> Chain:
        return Chain(self.folder, self.stages())

    def run(self, *names: str) -> list[str]:
        """Run stages, each as a command of its own; return those that worked."""
        self.calls.clear()
        for name in names or ("prepare", "extract", "fit"):
            with self.folder.lock():
                self.chain().run(name)
        return self.calls


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run")
    made.archive.mkdir()
    (made.archive / "betas").write_text("betas")
    assert made.run() == ["prepare", "extract", "fit"]
    return made


def test_what_is_done_is_skipped_with_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run() == []
    assert capsys.readouterr().err.splitlines() == [f"{name}: up to date" for name in ("prepare", "extract", "fit")]


@pytest.mark.parametrize(
    ("change", "first", "why"),
    [
        ({"a": 2}, "prepare", "setting a changed from 1 to 2"),
        ({"backbone": "1f"}, "extract", "backbone changed"),
        ({"code": ("workspace/progress.py",)}, "extract", "it was done by another version of the code"),
    ],
)
def test_a_stage_is_refused_while_one_above_it_is_stale(run: Run, change: dict[str, Any], first: str, why: str) -> None:
    run.declared |= change
    with pytest.raises(InputError, match=rf"fit needs {first}, which is not up to date \({why}.*unibrain {first} "):
        run.run("fit")
    assert run.calls == []
    order = ["prepare", "extract", "fit"]
    redone = run.run().copy()
    # The code is another, its result is the same: `fit` has nothing to do.
    assert redone == order[order.index(first) :][: 3 if first == "prepare" else 1]
    assert run.run() == []


def test_settings_of_the_stage_above_count_though_its_artefact_was_not_made_anew(run: Run) -> None:
    run.declared["alpha"] = 1000
    assert run.run("fit") == ["fit"]
    run.declared["alpha"] = "cv"
    assert run.run("extract") == []
    assert run.run() == ["fit"]


def test_what_is_redone_with_the_same_result_makes_nothing_below_stale(run: Run) -> None:
    run.folder.record("prepare").unlink()
    assert run.run() == ["prepare"]
    (run.archive / "more").write_text("not read")
    assert run.run() == ["prepare"]


def test_a_choice_for_one_call_counts_when_its_stage_is_asked_for(run: Run) -> None:
    run.declared["precision"] = "bf16"
    assert run.run("fit") == [], "fit was not told of the precision that extract had"
    assert run.run("extract") == ["extract"]


def test_weights_that_are_not_here_stop_only_the_stages_that_need_them(run: Run) -> None:
    def absent() -> dict[str, str]:
        raise InputError("official is not there")

    declared = run.stages()
    declared[1] = Stage(**{**vars(declared[1]), "facts": absent})
    with run.folder.lock():
        assert Chain(run.folder, declared).run("fit").skipped
        with pytest.raises(InputError, match="official is not there"):
            Chain(run.folder, declared).run("extract")


@pytest.mark.parametrize("change", ["edited", "added", "removed", "renamed"])
def test_files_outside_are_watched_from_every_stage_below(run: Run, change: str) -> None:
    betas = run.archive / "betas"
    if change == "edited":
        betas.write_text("other")
    elif change == "added":
        (run.archive / "responses.tsv").write_text("")
    elif change == "removed":
        (run.archive / "deep").mkdir()
        betas.rename(run.archive / "deep" / "betas")
    else:
        betas.rename(run.archive / "betas2")
    with pytest.raises(InputError, match=r"fit needs prepare.*the scans changed"):
        run.run("fit")
    assert run.run() == ["prepare"]


def test_an_archive_out_of_reach_has_not_changed(run: Run) -> None:
    run.archive.rename(run.archive.with_name("unmounted"))
    assert run.run("extract", "fit") == []
    assert run.run("prepare") == ["prepare"], "asked for, it has to look"


def test_large_files_outside_are_compared_by_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LARGE", 1)
    run.run()
    monkeypatch.setattr(fingerprints, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
    with run.folder.lock():
        assert run.chain().is_current("prepare")
    (run.archive / "betas").touch()
    with run.folder.lock():
        assert not run.chain().is_current("prepare")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: shutil.rmtree(run.artefact("latents")), "latents is missing"),
        (lambda run: (run.artefact("latents") / "z").write_text("damaged"), "latents was changed or damaged"),
        (lambda run: (run.artefact("latents") / "z").unlink(), "latents was changed or damaged"),
        (lambda run: run.record("extract").unlink(), "not done before"),
    ],
)
def test_a_damaged_artefact_is_never_read_and_made_again(
    run: Run, damage: Callable[[RunFolder], None], reason: str
) -> None:
    damage(run.folder)
    with pytest.raises(InputError, match=rf"fit needs extract.*\({reason}\)"):
        run.run("fit")
    assert run.run() == ["extract"]


RECORDS = [
    "",
    "{",
    "null",
    "[1]",
    "NaN",
    '{"stage": "extract", "state": "done"}',
    "[" * 100_000,
    '{"stage": {"stage": []}}',
    "\x00",
]


@pytest.mark.parametrize("content", RECORDS)
def test_a_damaged_record_is_that_of_a_stage_that_did_not_end(run: Run, content: str) -> None:
    run.folder.record("extract").write_text(content)
    assert read_record(run.folder, "extract") is None
    assert run.run() == ["extract"]


@pytest.mark.parametrize("value", [None, [1], {"": {"size": "x"}}, {"": None}, float("nan")])
@pytest.mark.parametrize("key", ["settings", "facts", "inputs", "outputs", "provenance", "outside", "code", "stage"])
def test_any_json_in_a_record_is_taken_or_not_and_never_a_traceback(run: Run, key: str, value: object) -> None:
    path = run.folder.record("extract")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert run.run() == ["extract"] * ((key, value) != ("outside", {"": None}))


def flip(path: Path) -> None:
    """Change a byte, and leave size and time as they were: bit rot."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_bit_rot_in_what_a_stage_reads_is_found_and_healed_whatever_the_size(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "LARGE", 10)
    monkeypatch.setattr(stages, "LARGE", 10)
    # The file system notes nothing either: what lies further up may be trusted, what is read may not.
    monkeypatch.setattr(fingerprints.FileState, "untouched", lambda self, earlier: earlier is not None)
    flip(run.folder.artefact("latents") / "z")
    with pytest.raises(InputError, match=r"fit needs extract.*latents was changed or damaged"):
        run.run("fit")
    assert run.run("extract", "fit") == ["extract"]


def test_a_file_that_a_stage_finds_damaged_is_made_again(run: Run) -> None:
    path = run.folder.artefact("latents") / "z"
    run.trouble, run.declared["alpha"] = DamagedFileError(path, f"{path} is truncated"), 3
    with pytest.raises(DamagedFileError, match="truncated"):
        run.run("fit")
    assert read_record(run.folder, "extract") is None
    run.trouble = None
    assert run.run() == ["extract", "fit"]


def test_what_was_read_under_one_lock_is_not_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = [], fingerprints.sha256_of
    monkeypatch.setattr(fingerprints, "sha256_of", lambda path: read.append(path.name) or real(path))
    seen: dict[str, fingerprints.Fingerprint] = {}
    with run.folder.lock():
        for name in ("prepare", "extract", "fit"):
            Chain(run.folder, run.stages(), seen).run(name)
    assert sorted(read) == ["betas", "decoder", "subject.npz", "z"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_stopped_stage_is_not_done_and_runs_again(run: Run, error: type[BaseException]) -> None:
    def work(*_: object) -> None:
        run.folder.artefact("subject").write_text("half")
        raise error

    with pytest.raises(error), run.folder.lock():
        Chain(run.folder, [Stage("prepare", {"a": 2}, (), ("subject",), work)]).run("prepare")
    with pytest.raises(InputError, match=r"fit needs prepare.*did not end"):
        run.run("fit")
    run.declared["a"] = 2
    assert run.run() == ["prepare", "extract", "fit"]


def test_what_was_begun_under_another_declaration_is_not_resumed(run: Run) -> None:
    folders: list[Path] = []

    def work(cache: Path, _: object) -> None:
        assert not cache.exists() or folders[-1] == cache
        cache.mkdir(parents=True, exist_ok=True)
        folders.append(cache)
        raise KeyboardInterrupt

    for alpha in (1, 1, 2, 1):
        chain = Chain(run.folder, [*run.stages()[:2], Stage("fit", {"alpha": alpha}, ("latents",), ("decoder",), work)])
        with pytest.raises(KeyboardInterrupt), run.folder.lock():
            chain.run("fit")
    assert folders[0] == folders[1] == folders[3] != folders[2]
    assert not folders[2].exists()
    run.run()
    assert not run.folder.cache("fit").exists()


def test_a_moved_run_folder_is_still_up_to_date(run: Run) -> None:
    copy = Run(run.folder.root.with_name("copy"))
    shutil.copytree(run.folder.root, copy.folder.root)
    assert copy.run() == []


def test_settings_are_kept_only_once_nothing_is_in_the_way(run: Run) -> None:
    kept: list[str] = []
    run.declared["a"] = 2
    with run.folder.lock():
        with pytest.raises(InputError, match="fit needs prepare"):
            run.chain().run("fit", ready=lambda: kept.append("refused"))
        run.chain().run("prepare", ready=lambda: kept.append("ran"))
    assert kept == ["ran"]


def test_a_stage_that_writes_nothing_is_an_error_of_ours(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError, match="without writing subject"), run.lock():
        Chain(run, [Stage("prepare", {}, (), ("subject",), lambda *_: None)]).run("prepare")


def test_the_record_tells_notes_versions_seconds_and_memory(run: Run) -> None:
    record = read_record(run.folder, "extract")
    assert record is not None
    assert record.notes == {"images": 3}
    about = asdict(record.provenance)
    assert set(about["libraries"]) == set(LIBRARIES)
    assert about["libraries"]["numpy"] == pytest.importorskip("numpy").__version__
    assert 0 <= about["seconds"] < 60
    assert 10 < about["peak_memory_mb"] <= peak_memory_mb() + 1


def test_remarks_and_the_shards_of_an_engine_are_on_record(run: Run) -> None:
    def divided(cache: Path, engine: Engine | None) -> None:
        assert engine is not None
        for name in ("a", "b"):
            engine(write_work(Work(cache / name, "fit", "test", {}, (Shard("one", "one", 2, {}),))))
        remark("memory is short here")
        run.folder.artefact("decoder").write_text("fitted")

    def slow(work: Work) -> None:
        record = {"seconds": 40.0, "items": 2, "host": "there", "process": 7, "remarks": ["memory is short there"]}
        write_json(work.record("one"), record)

    run.folder.record("fit").unlink()
    with run.folder.lock():
        stages = [*run.stages()[:2], Stage("fit", {"alpha": "cv"}, ("latents",), ("decoder",), divided)]
        Chain(run.folder, stages, engine=slow).run("fit")
    record = read_record(run.folder, "fit")
    assert record is not None
    assert record.notes["remarks"] == ["memory is short there", "memory is short here"]
    shards = record.notes["shards"]
    assert (shards["count"], shards["seconds"], shards["workers"]) == (2, 80.0, 1)
    assert record.shared_seconds == 80
    assert record.provenance.seconds < 40, "two workers were faster than one would be"
    assert 80 <= record.worker_seconds < 80 + record.provenance.seconds


def test_peak_memory_sees_what_was_held() -> None:
    before = peak_memory_mb()
    block = bytearray(int((before + 50) * 1e6))
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_mb() >= before + 49
    del block
    assert Provenance.of_now("2026-01-01T00:00:00+00:00", 1.0).peak_memory_mb >= before + 49

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unibrain.errors import InputError
from unibrain.workspace.provenance import LIBRARIES, Provenance, peak_memory_mb
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Stage, reason_to_run, run_stage


class Chain:
    """Two stages: `prepare` writes its settings, `extract` writes what it read twice."""

    def __init__(self, root: Path) -> None:
        self.run = RunFolder(root)
        self.calls: list[str] = []

    def prepare(self, **settings: object) -> Stage:
        def work() -> None:
            self.calls.append("prepare")
            self.run.artefact("subject").write_text(json.dumps(settings))

        return Stage("prepare", settings, (), ("subject",), work)

    def extract(self, version: int = 1, **facts: str) -> Stage:
        def work() -> None:
            self.calls.append("extract")
            self.run.artefact("latents").mkdir(exist_ok=True)
            (self.run.artefact("latents") / "z").write_text(self.run.artefact("subject").read_text() * 2)

        return Stage("extract", {"batch": (1, 2)}, ("subject",), ("latents",), work, facts=facts, version=version)

    def both(self, **settings: object) -> list[str]:
        self.calls.clear()
        run_stage(self.run, self.prepare(**settings))
        run_stage(self.run, self.extract())
        return self.calls


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "run")


def test_what_is_done_is_skipped_with_a_line(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    assert chain.both(a=1) == ["prepare", "extract"]
    capsys.readouterr()
    assert chain.both(a=1) == []
    assert capsys.readouterr().err.splitlines() == ["prepare: up to date", "extract: up to date"]


def test_a_changed_setting_redoes_the_stage_and_what_depends_on_it(
    chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    chain.both(a=1)
    capsys.readouterr()
    assert chain.both(a=2) == ["prepare", "extract"]
    said = capsys.readouterr().err
    assert "prepare: starts (setting a changed from 1 to 2)" in said
    assert "extract: starts (subject changed)" in said
    assert (chain.run.artefact("latents") / "z").read_text() == '{"a": 2}{"a": 2}'


def test_what_depends_on_a_stage_stays_if_its_content_stays(chain: Chain) -> None:
    chain.both(a=1)
    chain.run.record("prepare").unlink()
    assert chain.both(a=1) == ["prepare"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: shutil.rmtree(run.artefact("latents")), "latents is missing"),
        (lambda run: (run.artefact("latents") / "z").write_text("damaged"), "latents was changed or damaged"),
        (lambda run: (run.artefact("latents") / "z").unlink(), "latents was changed or damaged"),
        (lambda run: run.record("extract").unlink(), "not done before"),
        (lambda run: run.record("extract").write_text("{"), "it did not end before"),
        (lambda run: run.record("extract").write_text('{"state": "done"}'), "it did not end before"),
    ],
)
def test_damage_is_found_and_mended(chain: Chain, damage: Callable[[RunFolder], None], reason: str) -> None:
    chain.both(a=1)
    damage(chain.run)
    assert reason_to_run(chain.run, chain.extract()) == reason
    assert chain.both(a=1) == ["extract"]
    assert (chain.run.artefact("latents") / "z").read_text() == '{"a": 1}{"a": 1}'
    assert reason_to_run(chain.run, chain.extract()) is None


def test_other_weights_and_another_version_of_the_code_redo_a_stage(chain: Chain) -> None:
    chain.both(a=1)
    assert reason_to_run(chain.run, chain.extract(backbone="0f")) == "backbone changed"
    assert reason_to_run(chain.run, chain.extract(version=2)) is not None
    run_stage(chain.run, chain.extract(version=2, backbone="0f"))
    assert reason_to_run(chain.run, chain.extract(version=2, backbone="0f")) is None
    assert reason_to_run(chain.run, chain.extract(version=2, backbone="1f")) == "backbone changed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_stopped_stage_is_not_done_and_runs_again(chain: Chain, error: type[BaseException]) -> None:
    chain.both(a=1)

    def work() -> None:
        chain.run.artefact("subject").write_text("half")
        raise error

    with pytest.raises(error):
        run_stage(chain.run, Stage("prepare", {"a": 2}, (), ("subject",), work))
    with pytest.raises(
        InputError, match=r"subject\.npz was left by a stage prepare that did not end.*unibrain prepare"
    ):
        run_stage(chain.run, chain.extract())
    assert chain.both(a=2) == ["prepare", "extract"]


def test_a_missing_input_names_the_stage_that_writes_it(chain: Chain) -> None:
    with pytest.raises(
        InputError, match=r"subject\.npz is not there, expected what the stage prepare writes: run `unib"
    ):
        run_stage(chain.run, chain.extract())


def test_a_damaged_input_is_never_read(chain: Chain) -> None:
    chain.both(a=1)
    chain.run.artefact("subject").write_text("damaged")
    chain.calls.clear()
    with pytest.raises(InputError, match=r"subject\.npz was changed or damaged after the stage prepare wrote it"):
        run_stage(chain.run, chain.extract())
    assert chain.calls == []
    assert chain.both(a=1) == ["prepare"]


def test_files_outside_the_run_folder_are_watched(tmp_path: Path) -> None:
    run, archive, calls = RunFolder(tmp_path / "run"), tmp_path / "betas", []

    def work() -> None:
        calls.append(archive.read_text())
        run.artefact("subject").write_text("x")

    stage = Stage("prepare", {}, (), ("subject",), work, outside={"NSD's betas": archive})
    with pytest.raises(InputError, match=r"betas is not there, expected NSD's betas"):
        run_stage(run, stage)
    for content in ("one", "one", "three"):
        if not archive.exists() or archive.read_text() != content:
            archive.write_text(content)
        run_stage(run, stage)
    assert calls == ["one", "three"]


def test_a_moved_run_folder_is_still_up_to_date(chain: Chain, tmp_path: Path) -> None:
    chain.both(a=1)
    shutil.copytree(chain.run.root, tmp_path / "copy")
    assert Chain(tmp_path / "copy").both(a=1) == []


def test_a_stage_that_writes_nothing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="without writing subject"):
        run_stage(RunFolder(tmp_path / "run"), Stage("prepare", {}, (), ("subject",), lambda: None))


def test_the_record_tells_versions_seconds_and_memory(chain: Chain) -> None:
    chain.both(a=1)
    about = json.loads(chain.run.record("prepare").read_text())["provenance"]
    assert set(about["libraries"]) == set(LIBRARIES)
    assert about["libraries"]["numpy"] == pytest.importorskip("numpy").__version__
    assert 0 <= about["seconds"] < 60
    assert 10 < about["peak_memory_mb"] <= peak_memory_mb() + 1


def test_peak_memory_sees_what_was_held() -> None:
    before = peak_memory_mb()
    block = bytearray(int((before + 50) * 1e6))
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_mb() >= before + 49
    del block
    assert Provenance.of_now("2026-01-01T00:00:00+00:00", 1.0).peak_memory_mb >= before + 49

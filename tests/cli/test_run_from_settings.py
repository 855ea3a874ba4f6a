"""The whole command line over a small run with the backbone that comes with the package."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import cheaply

from unibrain.cli.main import main
from unibrain.reconstruction import load_decoded

SETTINGS = """
[simulate]
training_images = 16
test_images = 4
sessions = 2
[fit]
folds = 2
[reconstruct]
steps = 4
batch_size = 2
[controls]
controls = "random,oracle"
images = 2
[report]
title = "A page of chance"
"""


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with cheaply():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "settings.toml").write_text(SETTINGS)
    assert main(["run", str(folder / "settings.toml"), "--out", str(folder / "run"), "--device", "cpu"]) == 0
    return folder / "run"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_a_run_says_what_it_found_and_is_up_to_date_afterwards(finished: Path, call: Callable) -> None:
    code, said, progress = call("run", finished.parent / "settings.toml", "--out", finished, "--device", "cpu")
    assert code == 0
    assert progress.count(": up to date\n") == 9
    assert "SIMULATED SCANS" in said
    assert re.search(r"PixCorr .* 4 .*%$", said, re.MULTILINE)
    assert f"Page, open it in a browser: {finished}/report.html" in said
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "A page of chance" in page
    assert 'id="audit"' in page
    assert load_decoded(finished / "decoded").pictures.shape == (4, 64, 64, 3)


def test_what_is_on_record_beside_a_result_is_in_the_summary(finished: Path, tmp_path: Path, call: Callable) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / ".stages" / "reconstruct.json"
    record = json.loads(path.read_text())
    record["notes"]["remarks"] = ["memory is short: 4 at a time through the image flow, which may round otherwise"]
    path.write_text(json.dumps(record))
    _, said, _ = call("run", finished.parent / "settings.toml", "--out", tmp_path / "run", "--device", "cpu")
    assert "Note: reconstruct: memory is short: 4 at a time through the image flow" in said


def test_no_bars_where_nobody_looks(finished: Path, call: Callable) -> None:
    (finished / ".stages" / "evaluate.json").unlink()
    _, _, progress = call("evaluate", finished, "--device", "cpu")
    assert "\r" not in progress
    assert "%|" not in progress


def test_stages_say_what_they_found(finished: Path, call: Callable) -> None:
    code, said, _ = call("fit", finished)
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == f"{finished / 'decoder'} (up to date)"
    rows = [line.split() for line in lines if line.startswith(("z_", "c_"))]
    assert [row[0] for row in rows] == ["z_image", "z_text", "c_image", "c_text"]
    assert all(-1 <= float(row[-1]) <= 1 for row in rows)
    assert lines[-1] == f"Next: unibrain reconstruct {finished}"
    _, said, _ = call("evaluate", finished, "--device", "cpu")
    assert "Two-way identification" in said


def test_scores_for_people_and_programs(finished: Path, call: Callable) -> None:
    _, table, _ = call("scores", finished)
    assert "PixCorr" in table
    _, text, _ = call("scores", finished, "--json")
    found = json.loads(text)
    assert found["metrics"]["pixcorr"]["images"] == 4
    _, text, _ = call("scores", finished, "--csv")
    header, first, *_ = text.splitlines()
    assert header.startswith("name,title,kind,value,control,images")
    assert float(first.split(",")[3]) == found["metrics"]["pixcorr"]["value"]


def test_a_stale_chain_is_refused_or_redone(finished: Path, call: Callable) -> None:
    code, _, _ = call("fit", finished, "--alpha", "1000")
    assert code == 0
    code, _, error = call("evaluate", finished, "--device", "cpu")
    assert code == 2
    assert "unibrain reconstruct" in error
    assert "--with-earlier" in error
    _, said, error = call("scores", finished)
    assert "PixCorr" in said
    assert "the run has changed since it was scored" in error
    code, said, progress = call("evaluate", finished, "--device", "cpu", "--with-earlier", "--quiet")
    assert (code, progress) == (0, "")
    assert "PixCorr" in said
    _, _, error = call("scores", finished)
    assert error == ""
    _, said, _ = call("fit", finished)
    assert "The penalty was given" in said


def test_a_backbone_that_is_not_there(tmp_path: Path, call: Callable) -> None:
    (tmp_path / "settings.toml").write_text(f"{SETTINGS}[extract]\nbackbone = 'absent/here'\n")
    code, _, error = call("run", tmp_path / "settings.toml", "--out", tmp_path / "run")
    assert code == 2
    assert error.splitlines()[-1].startswith(f"Error: {tmp_path / 'absent' / 'here'}")


def test_a_worker_process_leaves_the_bytes_of_this_one(finished: Path, tmp_path: Path, call: Callable) -> None:
    run, made = tmp_path / "run", ("predicted", "decoded")
    shutil.copytree(finished, run)
    for name in made:
        shutil.rmtree(run / name)
    code, _, progress = call("reconstruct", run, "--on", "local:1", "--device", "cpu")
    assert code == 0
    assert "reconstruct: 4 shards on local:1\n" in progress
    assert re.search(r"reconstruct: 4 shards in .* by 1 worker", progress)
    for name in made:
        files = [path.relative_to(finished) for path in (finished / name).rglob("*") if path.is_file()]
        assert all((run / file).read_bytes() == (finished / file).read_bytes() for file in files)
    assert list((run / ".cache").iterdir()) == []

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bucket import S3, Between
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.fetch.numbers import parse_numbers
from unibrain.scans.nsd_layout import as_ranges

BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen")


def nsd(*arguments: str) -> int:
    return main(["nsd", *arguments])


def test_fetch_shows_the_list_the_terms_and_what_is_next(
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fetch", "--subject", "1", "--sessions", "1-2", "--to", str(tmp_path), "--endpoint", s3.endpoint]
    assert nsd(*call, "--accept-terms") == 0
    shown = capsys.readouterr().out
    assert "naturalscenesdataset.org" in shown
    assert "sessions 1-2" in shown
    assert "bytes)" in shown
    assert f"Next: unibrain nsd fetch-captions --to {tmp_path}" in shown
    assert (tmp_path / BETAS / "betas_session02.hdf5").is_file()
    assert not (tmp_path / BETAS / "betas_session03.hdf5").exists()
    assert nsd(*call) == 0
    assert "0 files downloaded" in capsys.readouterr().out


def test_terms_that_are_not_accepted(
    between: Between, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["fetch", "--subject", "1", "--to", str(tmp_path), "--endpoint", between.endpoint]
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    assert nsd(*call) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("Error: NSD's terms were not agreed to")
    assert "--accept-terms" in error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda text, default: False)
    assert nsd(*call) == 2
    assert "so nothing was downloaded" in capsys.readouterr().err
    assert not between.downloads()


def test_a_dry_run_asks_nothing(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["fetch", "--subject", "1", "--to", str(tmp_path / "nsd"), "--endpoint", s3.endpoint, "--dry-run"]
    assert nsd(*call) == 0
    shown = capsys.readouterr().out
    assert f"{BETAS}/betas_session03.hdf5" in shown
    assert not (tmp_path / "nsd").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--subject", "9"], "subject is 9"),
        (["--subject", "1", "--sessions", "38-40"], "found no session 38-40 of subj01 as hdf5, there are sessions 1-3"),
        (["--subject", "1", "--sessions", "5-2"], "--sessions is '5-2'"),
        (["--subject", "1", "--endpoint", "nowhere"], "the endpoint is 'nowhere'"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    arguments: list[str], said: str, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nsd("fetch", "--to", str(tmp_path), "--accept-terms", "--endpoint", s3.endpoint, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("Error: ")
    assert said in error[0]


def test_a_refused_file_ends_with_2_and_keeps_the_others(
    between: Between, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    between.status["nsd_stimuli.hdf5"] = [403]
    call = ["fetch", "--subject", "1", "--to", str(tmp_path), "--endpoint", between.endpoint, "--accept-terms"]
    assert nsd(*call, "--jobs", "1") == 2
    assert "nsd_stimuli.hdf5: the server refused access (403)" in capsys.readouterr().err
    assert nsd(*call) == 0


def test_ctrl_c_leaves_partials_that_the_same_command_continues(between: Between, tree: Path, tmp_path: Path) -> None:
    call = ["nsd", "fetch", "--subject", "1", "--to", str(tmp_path), "--endpoint", between.endpoint, "--accept-terms"]
    between.hang = threading.Event()
    process = subprocess.Popen([sys.executable, "-m", "unibrain", *call], stdout=subprocess.DEVNULL)
    try:
        until(lambda: any(path.stat().st_size for path in tmp_path.rglob("*.partial")))
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
    finally:
        process.kill()
        between.hang.set()
    assert any(path.stat().st_size for path in tmp_path.rglob("*.partial"))
    between.hang = None
    between.asked.clear()
    assert main(call) == 0
    assert any(asked.range for asked in between.downloads())
    assert not list(tmp_path.rglob("*.partial"))
    stimuli = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    assert (tmp_path / stimuli).read_bytes() == (tree / stimuli).read_bytes()


def test_fetch_captions_with_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    assert nsd("fetch-captions", "--to", str(tmp_path / "nsd"), "--zip", str(tmp_path / "a.zip")) == 2
    assert "expected annotations_trainval2017.zip as COCO publishes it" in capsys.readouterr().err


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, 999), min_size=1, max_size=60))
def test_numbers_are_read_as_they_are_written(numbers: set[int]) -> None:
    assert parse_numbers(as_ranges(numbers)) == tuple(sorted(numbers))


@pytest.mark.parametrize("text", ["", "0", "1-", "-3", "2-1", "1;2", "one", "1-99999", "1,,2", "1.5", "²"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(InputError, match="expected numbers from 1"):
        parse_numbers(text)

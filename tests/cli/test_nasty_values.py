"""Every command with every option, and values that no one expects: a sentence and exit code 2, and nothing written."""

import random
from pathlib import Path
from typing import NoReturn

import click
import pytest
from command_tree import commands, example

from unibrain.cli.main import main
from unibrain.errors import InputError

NASTY = [
    "",
    " ",
    "-1",
    "0",
    "nan",
    "-inf",
    "1e400",
    "9" * 400,
    "-" + "9" * 400,
    "9" * 5000,
    "1-" + "9" * 400,
    "[" * 100_000,
    '{"a":' * 5000,
    "\0",
    "a\0b",
    "~nobody-here/x",
    "\udcff",
    "a" * 5000,
    "../" * 3000,
    "=,;:+",
    "V1=V1=V1;;V1",
    "\u202e\U0001f9e0\n",
    "/dev/null",
    "/proc/self/mem",
]
EACH = 6
STOPPED = "this is as far as a test goes"
WORK = [
    "unibrain.pipeline.run_one",
    "unibrain.pipeline.run_all",
    "unibrain.pipeline.write_weights",
    "unibrain.nsd_download.fetch_nsd",
    "unibrain.nsd_download.fetch_captions",
    "unibrain.weights.fetch.fetch_official",
    "unibrain.doctor.examine",
]


@pytest.fixture(autouse=True)
def nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> NoReturn:
        raise InputError(STOPPED)

    for place in WORK:
        monkeypatch.setattr(place, stop)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path / "home"))


def trials(words: str, command: click.Command, seed: int) -> list[list[str]]:
    """The example of a command with one more option, or another argument, of a value drawn from `NASTY`."""
    draw, usual = random.Random(seed), example(command, words)
    found = []
    for parameter in command.params:
        for value in draw.sample(NASTY, EACH):
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                found.append([*words.split(), *usual, parameter.opts[0], value])
            elif isinstance(parameter, click.Argument):
                place = 0 if usual and not usual[0].startswith("-") else len(usual)
                found.append([*words.split(), *usual[:place], value, *usual[place + 1 :]])
    return found


@pytest.mark.parametrize("words", [words for words, c in commands().items() if not isinstance(c, click.Group)])
def test_nasty_values(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in trials(words, commands()[words], seed=7):
        code = main(arguments)
        said = capsys.readouterr().err
        shown = [argument[:60] for argument in arguments]
        assert code in (0, 2), shown
        if code == 2:
            assert "Error: " in said, shown
            assert "Traceback" not in said, shown
            assert len(said) < 1500, shown
    assert list(tmp_path.iterdir()) == []

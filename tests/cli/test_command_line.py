import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import click
import pytest

from unibrain import __version__
from unibrain.cli import main as module
from unibrain.cli.main import COMMANDS, cli, main
from unibrain.cli.stopping import Stopped, stoppable
from unibrain.errors import InputError
from unibrain.pipeline import SECTIONS, FitSection, PrepareSection, RunFolder, kept_settings

HEAVY = {
    "numpy",
    "torch",
    "transformers",
    "diffusers",
    "nltk",
    "matplotlib",
    "sklearn",
    "skimage",
    "pandas",
    "scipy",
    "h5py",
}


def commands() -> dict[str, click.Command]:
    """Every command by its words, groups included."""
    found: dict[str, click.Command] = {}

    def walk(words: str, command: click.Command) -> None:
        found[words] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                walk(f"{words} {name}".strip(), inner)

    walk("", cli)
    return found


@pytest.mark.parametrize("words", commands())
def test_help_has_a_paragraph_and_an_example_that_parses(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    command = commands()[words]
    assert len((command.help or "").split()) >= 15
    example = re.search(r"Example: unibrain (.+)$", shown)
    assert example is not None
    if not isinstance(command, click.Group):
        arguments = example[1].split()
        assert arguments[: len(words.split())] == words.split()
        command.make_context(words, arguments[len(words.split()) :])  # raises if an option is not there


@pytest.mark.parametrize("name", SECTIONS)
def test_options_of_a_stage_are_named_as_its_settings(name: str) -> None:
    settings = SECTIONS[name].__dataclass_fields__
    options = {parameter.name for parameter in commands()["import" if name == "own" else name].params}
    assert {setting for setting in settings if setting != "section"} <= options
    assert options - set(settings) <= {"run", "threads", "device", "dtype", "offload", "region"}


def test_the_line_in_the_list_of_commands_fits_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, (_, about) in COMMANDS.items():
        assert f"{name} {about}" in shown


def modules_after(code: str) -> set[str]:
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import unibrain",
        "from unibrain.cli.main import main; main(['--help'])",
        "from unibrain.cli.main import main; main(['demo', '--help'])",
        "from unibrain.cli.main import main; main(['fit', '--help'])",
        "from unibrain.cli.main import main; main(['fit', 'nowhere', '--alpha', '-1'])",
    ],
)
def test_nothing_heavy_is_imported_to_help(code: str) -> None:
    assert modules_after(code) & HEAVY == set()


def test_the_list_of_commands_imports_none_of_them() -> None:
    loaded = modules_after("from unibrain.cli.main import main; main(['--help'])")
    assert {name for name in loaded if name.startswith("unibrain")} == {
        "unibrain",
        "unibrain.cli",
        "unibrain.cli.main",
        "unibrain.cli.stopping",
        "unibrain.errors",
    }


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unibrain, version {__version__}\n"
    result = subprocess.run([sys.executable, "-m", "unibrain", "-V"], capture_output=True, text=True, check=True)
    assert result.stdout == f"unibrain, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "RUN", "--alpha", "-1"], '--alpha is -1, expected a number above 0 or "cv"'),
        (["fit", "RUN", "--folds", "many"], "--folds is many, expected a whole number of at least 2"),
        (
            ["simulate", "RUN", "--difficulty", "eesy"],
            '--difficulty is eesy, expected "easy" or "realistic" (did you mean',
        ),
        (
            ["demo", "--out", "RUN", "--images", "1"],
            "test_images of [simulate] is 1, expected a whole number from 2 to",
        ),
        (["prepare", "RUN"], "names no scans"),
        (["prepare", "RUN", "--root", "nowhere"], "nowhere"),
        (["report", "RUN"], "names no scans"),
        (["fit", "RUN"], "subject.npz is not there, expected what the stage prepare writes: run `unibrain prepare"),
        (["run", "RUN/absent.toml"], "absent.toml is not there, expected a settings file"),
        (["fit", "FILE"], "is a file, expected a folder"),
        (["fit", "FILE/run"], "not a directory"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    (tmp_path / "file").write_text("")
    places = {"RUN": str(tmp_path / "run"), "FILE": str(tmp_path / "file")}
    filled = [re.sub("RUN|FILE", lambda found: places[found[0]], argument) for argument in arguments]
    assert main(filled) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert sentence in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["dmeo"], ["fit"], ["fit", "run", "--alhpa", "1"], ["fit", "run", "--threads", "0"]]
)
def test_what_click_refuses_exits_with_2_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: unibrain" in capsys.readouterr().err


def test_a_wrong_settings_file_of_the_run_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("[fit]\nalpha = 0\n")
    assert main(["fit", str(tmp_path)]) == 2
    assert f"{tmp_path}/settings.toml: alpha in [fit] is 0, expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "\nstopped; run the same command to continue\n"),
        (InputError("a.npz has 3 rows, expected 4"), 2, "Error: a.npz has 3 rows, expected 4\n"),
        (PermissionError(13, "Permission denied", "/run/x"), 2, "Error: /run/x: permission denied: check"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("unibrain.pipeline.stages.run_one", broken)
    assert main(["fit", str(tmp_path)]) == code
    assert said in capsys.readouterr().err


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("unibrain.pipeline.stages.run_one", broken)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(tmp_path)])


def test_options_are_kept_for_the_stages_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nsd").mkdir()
    assert main(["prepare", "run", "--root", "nsd", "--subject", "2", "--sessions", "1-3"]) == 2  # the folder is empty
    kept = kept_settings(RunFolder(tmp_path / "run"))
    assert kept.prepare == PrepareSection(root=str(tmp_path / "nsd"), subject=2, sessions="1-3")
    assert main(["fit", "run", "--alpha", "1e4", "--shuffle-scans"]) == 2
    kept = kept_settings(RunFolder(tmp_path / "run"))
    assert kept.fit == FitSection(alpha=1e4, shuffle_scans=True)
    assert kept.prepare.subject == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stage_leaves_nothing_half_written_and_continues(tmp_path: Path, number: signal.Signals) -> None:
    size = ["--training-images", "30", "--test-images", "2", "--sessions", "12"]
    command = [sys.executable, "-m", "unibrain", "simulate", "run", *size]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores Ctrl-C for what it runs in the background, and tests may run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "simulate: starts\n"
    # Sessions are being written: by now all libraries are there, and some swallow exceptions while they are imported.
    assert any(line.startswith("simulating subj01") for line in process.stderr)
    assert list((tmp_path / "run").glob(".nsd.*.partial"))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("stopped; run the same command to continue\n")
    assert "Traceback" not in said
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", ".stages", "settings.toml"]

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "simulate: starts (it did not end before)" in result.stderr
    assert result.stdout.splitlines() == ["run/nsd", "Next: unibrain prepare run"]
    assert (tmp_path / "run" / "nsd" / "SIMULATED.json").is_file()


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path / "run").lock():
        before = sorted((tmp_path / "run").iterdir())
        assert main(["simulate", str(tmp_path / "run")]) == 2
        assert sorted((tmp_path / "run").iterdir()) == before
    assert f"another run is working in this folder (process {os.getpid()} on" in capsys.readouterr().err


def test_threads_reach_the_libraries_before_they_are_imported() -> None:
    code = (
        "import os; from unibrain.workspace.progress import limit_threads; limit_threads(1); "
        "import numpy, threadpoolctl; print({pool['num_threads'] for pool in threadpoolctl.threadpool_info()})"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "{1}\n"


def test_commands_are_where_the_table_says() -> None:
    for name in module.COMMANDS:
        assert isinstance(commands()[name], click.Command)


def test_quality_shows_every_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from unibrain.training.quality import Quality

    numbers = {field.name: 0.101 + 0.1 * place for place, field in enumerate(fields(Quality)) if field.name != "scenes"}
    asked = []

    def measured(*arguments: object, **options: object) -> tuple[Quality, None, None, list[tuple[str, str]]]:
        asked.append((*arguments, options))
        return Quality(scenes=3, **numbers), None, None, [("a red car", "a car")]

    monkeypatch.setattr("unibrain.backbone.load_backbone", lambda name, device, **_: (name, device), raising=False)
    monkeypatch.setattr("unibrain.training.quality.measure_quality", measured)
    assert main(["backbone", "quality", "--scenes", "3", "--device", "cpu", "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert asked == [(("small", "cpu"), 3, 7, {"split": "test"})]
    assert shown.startswith("3 held-out scenes")
    assert "a red car  ->  a car" in shown
    for number in numbers.values():
        assert f"{number:.3f}" in shown


def test_a_stop_inside_a_callback_that_drops_exceptions_is_not_lost() -> None:
    class Thing:
        pass

    def callback(_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), sys.unraisablehook
    thing = Thing()
    reference = weakref.ref(thing, callback)
    with pytest.raises(Stopped), stoppable():
        del thing  # the callback runs here, and what it raises is dropped
        assert reference() is None
        for _ in range(200):
            time.sleep(0.05)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), sys.unraisablehook) == before

"""What every command has: help with an example, a light import, options from the settings, a sentence for mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from command_tree import commands, example

from unibrain import __version__
from unibrain.cli import run
from unibrain.cli.main import COMMANDS, QUIET_THREADS, main, sentence_of
from unibrain.errors import InputError
from unibrain.pipeline import (
    SECTIONS,
    BackboneSource,
    FitSection,
    PrepareSection,
    RunFolder,
    Settings,
    kept_settings,
    write_settings,
)

HEAVY = {"numpy", "torch", "transformers", "diffusers", "nltk", "matplotlib", "sklearn", "skimage", "pandas", "scipy"}
OURS = {"run", "quiet", "threads", "device", "dtype", "offload", "with_earlier", "region", "on"}
OF_EVALUATE = {"seen", "decoded", "references", "captions", "protocol", "like", "all_dialects", "backbone", "layout"}


@pytest.mark.parametrize("words", commands())
def test_help_has_a_paragraph_and_an_example_that_parses(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    assert "Example: unibrain" in capsys.readouterr().out
    command = commands()[words]
    assert len((command.help or "").split()) >= 15
    if not isinstance(command, click.Group):
        command.make_context(words, example(command, words))  # raises if an option is not there


@pytest.mark.parametrize("name", sorted(SECTIONS.keys() - {"engine"}))  # of all commands
def test_options_of_a_stage_are_its_settings(name: str) -> None:
    options = {option.name: option for option in commands()["import" if name == "custom" else name].params}
    fields = SECTIONS[name].model_fields
    assert set(fields) <= set(options) <= set(fields) | OURS | (OF_EVALUATE if name == "evaluate" else set())
    for field, about in fields.items():
        option: Any = options[field]
        assert option.opts[0] == f"--{field.replace('_', '-')}"
        assert str(about.description).rstrip(".") in option.help


def test_the_list_of_commands_imports_none_of_them_and_help_and_mistakes_nothing_heavy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {about}" in shown for name, (_, about) in COMMANDS.items())
    result = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    listed, after = (set(names) for names in json.loads(result.stdout.splitlines()[-1]))
    ours = {"unibrain", "unibrain.cli", "unibrain.cli.main", "unibrain.cli.options", "unibrain.errors"}
    assert {name for name in listed if name.startswith("unibrain")} == ours
    assert not {name.split(".")[0] for name in listed} & (HEAVY | {"pydantic"})
    assert after & HEAVY == set()


LIGHT = """
import json, sys
from unibrain.cli.main import main
main(["--help"])
listed = sorted(sys.modules)
for words in ("demo --help", "fit --help", "fit nowhere --alpha -1", "evaluate nowhere"):
    main(words.split())
print(json.dumps([listed, sorted(sys.modules)]))
"""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    assert capsys.readouterr().out == f"unibrain, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fit", "RUN", "--alpha", "-1"], ["--alpha is -1", "'cv'"]),
        (["fit", "RUN", "--folds", "many"], ["--folds is many", "'loo'"]),
        (["fit", "RUN", "--on", "nowhere"], ["--on is nowhere", "local:WORKERS"]),
        (["simulate", "RUN", "--difficulty", "eesy"], ["--difficulty is eesy", "Did you mean", "easy"]),
        (["demo", "--out", "RUN", "--images", "1"], ["--images", "1"]),
        (["import", "RUN", "--region", "V1=a;b"], ["--region", "semicolon"]),
        (["prepare", "RUN"], ["RUN", "--root", "no scans"]),
        (["prepare", "RUN", "--root", "nowhere"], ["nowhere", "no such folder"]),
        (["report", "RUN"], ["RUN", "no run in this folder"]),
        (["scores", "RUN"], ["RUN/scores.json", "Evaluate first"]),
        (["audit", "RUN", "--root", "RUN"], ["RUN", "--root"]),
        (["audit", "--root", "RUN", "--mask", "?"], ["--mask is ?"]),
        (["export-weights", "RUN", "--latent", "z_text", "--targets", "some", "--out", "RUN/w.npy"], ["some", "0:768"]),
        (["export-weights", "RUN", "--latent", "z_text", "--out", "RUN/w.npy"], ["RUN"]),
        (["audit", "RUN"], ["RUN", "no run in this folder"]),
        (["run", "RUN/absent.toml"], ["absent.toml", "no such file"]),
        (["fit", "FILE"], ["FILE"]),
        (["fit", "FILE/run"], ["FILE"]),
        (["run", "~nobody-here/settings.toml"], ["~nobody-here", "no user"]),
        (["report", "RUN", "--title", "\udcff"], [r"\udcff", "Unicode"]),
        (["report", "RUN", "--title", "a\0b"], [r"a\x00b", "Unicode"]),
        (["dmeo"], ["'dmeo'", "Did you mean demo?"]),
        (["weights", "fech", "official"], ["'fech'", "Did you mean fetch?"]),
        (["fit", "RUN", "--alhpa", "1"], ["--alhpa", "--alpha"]),
        (["fit"], ["RUN"]),
        (["fit", "RUN", "--threads", "0"], ["--threads"]),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    sentence = shown.err.splitlines()[-1]
    assert sentence.startswith("Error: ")
    assert len(sentence) < 400
    assert [word for word in named if word not in sentence] == []
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; run the same command to continue"),
        (InputError("a.npz: 3 rows for 4 images."), 2, "Error: a.npz: 3 rows for 4 images."),
        (PermissionError(13, "Permission denied", "/run/x"), 2, "Error: /run/x: permission denied. Check"),
        (MemoryError("Unable to allocate 8.00 EiB"), 2, "not enough memory"),
        (OutOfMemoryError("CUDA out of memory"), 2, "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (OverflowError("int too large to convert to float"), 2, "too large"),
        (ModuleNotFoundError("No module named 'zarr'", name="zarr"), 2, "zarr is not installed"),
    ],
)
def test_what_a_file_or_option_made_impossible_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("unibrain.pipeline.run_one", broken)
    assert main(["fit", str(tmp_path)]) == code
    assert said in capsys.readouterr().err
    if isinstance(error, Exception):
        monkeypatch.setenv("UNIBRAIN_TRACEBACK", "1")
        with pytest.raises(type(error)):
            main(["fit", str(tmp_path)])


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), KeyError("x"), ModuleNotFoundError("No module", name="unibrain.nowhere")]
)
def test_a_bug_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("unibrain.pipeline.run_one", broken)
    assert sentence_of(error) is None
    with pytest.raises(type(error)):
        main(["fit", str(tmp_path)])


def test_an_error_is_not_glued_behind_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from unibrain.workspace.progress import track

    def broken(*_: object, **__: object) -> None:
        for _step in track(range(3), "reading", unit="file"):
            raise InputError("a.npz: 3 rows for 4 images.")

    monkeypatch.setattr("unibrain.pipeline.run_one", broken)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["fit", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert shown.splitlines()[-1] == "Error: a.npz: 3 rows for 4 images."


def test_options_are_kept_for_the_stages_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def kept(name: str, run: RunFolder, settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings)
        run.root.mkdir(exist_ok=True)
        write_settings(run.settings, settings)
        raise InputError("stop here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("unibrain.pipeline.run_one", kept)
    assert main(["prepare", "run", "--root", "~/nsd", "--subject", "2", "--sessions", "1-3"]) == 2
    assert main(["fit", "run", "--alpha", "1e4", "--shuffle-scans"]) == 2
    root = str(tmp_path / "home" / "nsd")
    assert seen[0].prepare == seen[1].prepare == PrepareSection(root=root, subject=2, sessions="1-3")
    assert kept_settings(RunFolder(tmp_path / "run")).fit == FitSection(alpha=1e4, shuffle_scans=True)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outs: list[Path] = []

    def run_all(folder: RunFolder, *_: object) -> None:
        outs.append(folder.root)
        raise InputError("stop here")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("unibrain.pipeline.run_all", run_all)
    monkeypatch.setattr("unibrain.cli.run._processes", lambda _: None)
    assert main(["demo", "--out", "~/x"]) == 2
    assert outs == [tmp_path / "x"]


@pytest.mark.parametrize(
    ("threads", "card", "place"),
    [("1", False, None), ("2", False, "local:2"), ("64", False, "local:4"), ("", False, "local:3"), ("2", True, None)],
)
def test_the_demo_shares_work_among_processes_of_one_thread_unless_there_is_a_card(
    threads: str, card: bool, place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, ...]] = []
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("unibrain.workspace.progress.usable_processors", lambda: 3)
    monkeypatch.setattr("unibrain.engines.worker.limit_here", lambda *given: limits.append(given))
    monkeypatch.setattr("unibrain.backbone.devices.choose_device", lambda _: torch.device("cuda" if card else "cpu"))
    assert run._processes(BackboneSource()) == place
    assert limits == ([] if place is None else [(1, int(place[-1]))]), "one thread a product"


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path / "run").lock():
        before = sorted((tmp_path / "run").iterdir())
        assert main(["simulate", str(tmp_path / "run")]) == 2
        assert sorted((tmp_path / "run").iterdir()) == before
    assert str(os.getpid()) in capsys.readouterr().err


@pytest.mark.parametrize(("options", "mode"), [([], "normal"), (["--quiet"], "quiet"), (["--verbose"], "verbose")])
def test_what_is_shown_and_threads_are_set_before_the_command(
    options: list[str], mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("unibrain.workspace.progress.show", seen.append)
    monkeypatch.setattr("unibrain.workspace.progress.limit_threads", seen.append)
    assert main(["scores", str(tmp_path), "--threads", "3", *options]) == 2
    assert seen == [3, mode, "normal"], "what was chosen ends with the command"


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, left_out = QUIET_THREADS
    monkeypatch.setenv(chosen, "ACTIVE")
    monkeypatch.setenv(left_out, "")  # put back what there was
    del os.environ[left_out]
    assert main(["--version"]) == 0
    assert os.environ[chosen] == "ACTIVE"
    assert os.environ[left_out] == QUIET_THREADS[left_out]

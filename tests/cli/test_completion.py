"""Completion in the shell: what bash is told for a line that is being typed."""

import shutil
import subprocess

import pytest

from unibrain.cli.main import COMMANDS, main


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash would offer at the end of a line: kind and text."""
    monkeypatch.setenv("_UNIBRAIN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("unibrain rec", ["plain,reconstruct"]),
        ("unibrain re", ["plain,reconstruct", "plain,report", "plain,repeats", "plain,regions"]),
        ("unibrain fit my-run --alpha-", ["plain,--alpha-per"]),
        ("unibrain simulate my-run --difficulty ", ["plain,easy", "plain,realistic"]),
        ("unibrain simulate my-run --difficulty re", ["plain,realistic"]),
        ("unibrain fit my-run --folds ", ["plain,loo"]),
        ("unibrain import my-run --scans be", ["file,be"]),
        ("unibrain weights fe", ["plain,fetch"]),
        ("unibrain weights fetch ", ["plain,official", "plain,metrics"]),
        ("unibrain report my-", ["file,my-"]),
        ("unibrain run settings.toml --out r", ["file,r"]),
        ("unibrain nix", []),
    ],
)
def test_commands_options_choices_and_paths_are_offered(
    line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(line, monkeypatch, capsys) == offered


def test_every_command_is_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert completed("unibrain ", monkeypatch, capsys) == [f"plain,{name}" for name in COMMANDS]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_takes_the_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_UNIBRAIN_COMPLETE", "bash_source")
    with pytest.raises(SystemExit):
        main([])
    script = f"{capsys.readouterr().out}\ncomplete -p unibrain"
    shown = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "-F _unibrain_completion unibrain" in shown

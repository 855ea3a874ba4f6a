"""`unibrain doctor`: table, JSON, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unibrain.cli.doctor import layout
from unibrain.cli.main import main
from unibrain.doctor import Diagnosis, Finding, Section, examine
from unibrain.doctor.catalogue import PROBES

GOOD = Finding("numpy", "ok", "2.4.6 (range >=1.26)")
LESS = Finding("graphics card", "note", "none found", "nothing to do")
BAD = Finding("tokens-clip", "problem", "another result", "moved: tokenizers 1 -> 2", {"difference": None})


def diagnosis(*findings: Finding) -> Diagnosis:
    return Diagnosis((Section("Machine", (GOOD,)), Section("More", findings)))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    findings: list[Finding] = []
    monkeypatch.setattr("unibrain.doctor.examination.examine", lambda: diagnosis(*findings))
    monkeypatch.setattr("unibrain.workspace.progress.limit_threads", lambda _: None)
    return findings


def test_notes_are_fine(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(LESS)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "Machine",
        "  ok       numpy          2.4.6 (range >=1.26)",
        "",
        "More",
        "  note     graphics card  none found",
        "                          -> nothing to do",
        "",
        "0 problems, 1 note.",
    ]


def test_a_problem_is_exit_code_1(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found += [LESS, BAD]
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "problem  tokens-clip    another result\n" in shown
    assert "-> moved: tokenizers 1 -> 2\n" in shown
    assert shown.endswith("1 problem, 1 note.\n")


def test_json(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(BAD)
    assert main(["doctor", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["healthy"] is False
    assert content["sections"][1]["findings"][0] == {
        "name": "tokens-clip",
        "status": "problem",
        "found": "another result",
        "remedy": "moved: tokenizers 1 -> 2",
        "details": {"difference": None},
    }


def test_bad_input_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unibrain.workspace.progress.limit_threads", lambda _: None)
    monkeypatch.setattr("unibrain.doctor.examination.examine", lambda: examine(record=tmp_path / "absent.json"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path}/absent.json: no such file")
    assert main(["doctor", "--jsno"]) == 2


def test_everything_at_once_is_quick_and_parses() -> None:
    command = [sys.executable, "-m", "unibrain", "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    content = json.loads(result.stdout)
    assert result.returncode == (0 if content["healthy"] else 1)
    assert [section["title"] for section in content["sections"]] == [
        "Machine",
        "Dependencies",
        "Weights",
        "Optional",
        "Fingerprints",
    ]
    prints = content["sections"][-1]["findings"]
    assert [entry["name"] for entry in prints] == ["small backbone", *(probe.name for probe in PROBES)]
    assert [entry for entry in prints if entry["status"] != "ok"] == []
    libraries = prints[1]["details"]["libraries"]
    assert all(set(versions) == {"recorded", "now"} for versions in libraries.values())


def test_nothing_heavy_is_imported_to_describe_a_diagnosis() -> None:
    code = (
        "import sys, unibrain.doctor, unibrain.cli.doctor; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_line_of_the_layout_has_its_remedy_below() -> None:
    lines = layout(diagnosis(LESS, BAD)).splitlines()
    assert lines.index("                          -> nothing to do") == 5

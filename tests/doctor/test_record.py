"""The record: written by one command, refused if damaged, and told apart from other weights."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from unibrain.backbone.storage import folder_fingerprint
from unibrain.doctor import Finding, compare
from unibrain.doctor import record as module
from unibrain.doctor.catalogue import PROBES
from unibrain.doctor.probe import Bench
from unibrain.doctor.recorded import RECORD, Record, backbone_files, installed_versions
from unibrain.errors import InputError


def test_what_is_written_is_read(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "a.json")
    assert Record.read(tmp_path / "a.json") == record
    assert (tmp_path / "a.json").read_text() == RECORD.read_text()
    assert len(RECORD.read_text()) < 20_000


def test_the_command_records_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench, record: Record
) -> None:
    monkeypatch.setattr(module, "Bench", lambda folder: bench)
    probes = [probe for probe in PROBES if probe.name in ("tokens-clip", "ddim-schedule", "autokl-encode")]
    monkeypatch.setattr(module, "PROBES", probes)
    monkeypatch.setattr("unibrain.workspace.progress.limit_threads", lambda _: None)
    path = tmp_path / "new.json"
    result = CliRunner().invoke(module.main, ["--output", str(path)])
    assert result.exit_code == 0, result.output
    made = Record.read(path)
    assert made.libraries == installed_versions()
    assert made.weights == folder_fingerprint(bench.folder) == record.weights
    assert made.files == backbone_files(bench.folder)
    section = compare.compare(probes, bench, made)
    assert {finding.status for finding in section.findings} == {"ok"}


def test_it_is_a_module_that_can_be_run() -> None:
    command = [sys.executable, "-m", "unibrain.doctor.record", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Example: python -m unibrain.doctor.record" in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file, expected the recorded fingerprints"),
        ("{", "damaged (JSONDecodeError"),
        ("[]", "damaged (TypeError"),
        ('{"libraries": {}}', "damaged (KeyError: 'fingerprints'"),
        (
            '{"libraries": {}, "weights": {"folder": "", "files": {}}, "fingerprints": {"a": {"tolerance": "much", '
            '"exact": {}, "numbers": [], "scale": 1}}}',
            "damaged (ValueError",
        ),
    ],
)
def test_a_bad_record_is_one_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "fingerprints.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        Record.read(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert str(caught.value).endswith("install unibrain again")


def other_flows(folder: Path) -> None:
    with (folder / "flows.safetensors").open("ab") as file:
        file.write(b" ")


def without_vocabulary(folder: Path) -> None:
    (folder / "clip-merges.txt").unlink()


@pytest.mark.parametrize(
    ("change", "said", "not_compared"),
    [
        (other_flows, "flows.safetensors not as recorded", "flow-image-from-text"),
        (without_vocabulary, "clip-merges.txt missing", "tokens-clip"),
    ],
)
def test_other_weights_are_no_moved_library(
    bench: Bench, record: Record, tmp_path: Path, change: Callable[[Path], None], said: str, not_compared: str
) -> None:
    folder = tmp_path / "small"
    shutil.copytree(bench.folder, folder)
    change(folder)
    names = (not_compared, "tokens-bert", "clip-preprocessing-small")
    section = compare.compare([probe for probe in PROBES if probe.name in names], Bench(folder), record)
    found: dict[str, Finding] = {finding.name: finding for finding in section.findings}
    assert found["small backbone"].status == "problem"
    assert said in found["small backbone"].found
    assert "python -m unibrain.doctor.record" in found["small backbone"].remedy
    assert found[not_compared].status == "note"
    assert "not compared" in found[not_compared].found
    assert found["tokens-bert"].status == found["clip-preprocessing-small"].status == "ok"


def test_a_probe_that_is_not_recorded_is_a_problem(bench: Bench, record: Record) -> None:
    lean = dataclasses.replace(record, entries={})
    section = compare.compare(PROBES[:1], bench, lean)
    assert section.findings[1].status == "problem"
    assert section.findings[1].found == "not recorded"


def test_a_backbone_that_cannot_be_loaded_is_told_per_probe(
    bench: Bench, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuses(*_: object, **__: object) -> None:
        tries.append(1)
        raise InputError("clip.safetensors: lacks vision_model.embeddings")

    monkeypatch.setattr("unibrain.backbone.loading.load_backbone", refuses)
    probes = [probe for probe in PROBES if probe.name in ("clip-picture-contexts", "autokl-encode")]
    section = compare.compare(probes, Bench(bench.folder), record)
    assert [finding.status for finding in section.findings] == ["ok", "problem", "problem"]
    assert "lacks vision_model.embeddings" in section.findings[1].found
    assert len(tries) == 1


def test_the_record_is_small_and_plain() -> None:
    content = json.loads(RECORD.read_text())
    assert set(content) == {"libraries", "weights", "fingerprints"}

"""The fingerprints themselves: what comes with the package is what this installation computes."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibrain.audit import Finding
from unibrain.backbone import load_backbone
from unibrain.cli.main import main
from unibrain.doctor import examine
from unibrain.doctor.fingerprints import (
    LIBRARIES,
    RECORD,
    Bench,
    Record,
    compare,
    of_array,
    read_record,
    take_record,
    write_record,
)
from unibrain.doctor.probes import PROBES, fixed_numbers, fixed_picture
from unibrain.errors import InputError


def test_every_probe_is_recorded_and_nothing_else(record: Record) -> None:
    assert list(record.fingerprints) == [probe.name for probe in PROBES]
    assert list(record.libraries) == list(LIBRARIES)
    assert {name for probe in PROBES for name in probe.libraries} == set(LIBRARIES)


def test_rounding_moves_nothing(bench: Bench, record: Record) -> None:
    # Every weight off by about one part in a million: more than what a processor's rounding does.
    other, generator = Bench(bench.folder), torch.Generator().manual_seed(3)
    backbone = load_backbone(bench.folder, device="cpu", dtype="fp32")
    with torch.no_grad():
        for part in (backbone.flows, backbone.autokl, backbone.optimus, backbone.clip):
            for weight in part.parameters():
                weight *= 1 + 1e-6 * torch.randn(weight.shape, generator=generator)
    other.__dict__["backbone"] = backbone
    with torch.backends.mkldnn.flags(enabled=False):
        found = list(compare(PROBES, other, record))
    assert [finding.what for finding in found if finding.level != "ok"] == []
    apart = [
        finding.details["apart"] / finding.details["allowed"] for finding in found if finding.details.get("allowed")
    ]
    assert 0 < max(apart) < 0.5


def test_patterns_are_the_same_everywhere() -> None:
    assert fixed_numbers((3,), 1).tolist() == pytest.approx([0.052512, -0.938639, 0.059167], abs=1e-6)
    assert fixed_picture(5, 4)[2].tolist() == [[127, 129, 20], [127, 199, 35], [127, 24, 51], [127, 155, 147]]


@given(
    place=st.integers(0, 599),
    change=st.floats(0.1, 5).flatmap(lambda size: st.sampled_from([size, -size])),
)
def test_one_changed_value_shows(place: int, change: float) -> None:
    array = fixed_numbers((20, 30), 5).astype(np.float64)
    before = of_array(array)
    array.ravel()[place] += change
    # Each of the eight sums moves by the change over the root of the count.
    assert before.apart(of_array(array)) > 0.9 * abs(change) / 600**0.5 / before.scale


def test_order_shape_and_what_is_not_finite_show() -> None:
    array = fixed_numbers((20, 30), 6)
    stored = of_array(array)
    assert stored.apart(of_array(array[::-1])) > 0.1
    assert stored.apart(of_array(array[:, ::-1])) > 0.1
    assert stored.apart(of_array(array * 1.01)) > 5e-3
    assert stored.apart(of_array(array.T)) == np.inf
    for value in (np.nan, np.inf, -np.inf):
        array[1, 1] = value
        with np.errstate(invalid="ignore"):
            assert stored.apart(of_array(array)) == np.inf


def test_what_is_written_is_read(record: Record, bench: Bench, tmp_path: Path) -> None:
    write_record(record, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == record
    assert (tmp_path / "a.json").read_text() == RECORD.read_text()
    few = [probe for probe in PROBES if probe.name in ("tokens-clip", "ddim-schedule", "autokl-encode")]
    taken = take_record(few, bench)
    assert {finding.level for finding in compare(few, bench, taken)} == {"ok"}
    assert {finding.title: finding.level for finding in compare(PROBES[:1], bench, taken)}[PROBES[0].name] == "problem"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"libraries": {}}', '{"libraries": {}, "backbone": 1}'])
def test_a_bad_record_is_one_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "fingerprints.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=str(path)):
        examine(path)


@pytest.mark.parametrize("name", ["flows.safetensors", "clip-merges.txt"])
def test_other_weights_are_no_moved_library(record: Record, bench: Bench, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "small"
    shutil.copytree(bench.folder, folder)
    if name.endswith("txt"):
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    found = {finding.title: finding for finding in compare(PROBES, Bench(folder), record)}
    assert (found["small backbone"].level, name in found["small backbone"].what) == ("problem", True)
    assert found["flow-image-from-text"].level == found["tokens-clip"].level == "note"
    assert found["clip-preprocessing-small"].level == "ok"
    other = {finding.title: finding.level for finding in compare((), bench, replace(record, backbone="0" * 64))}
    assert other["small backbone"] == "problem"


@pytest.mark.parametrize(("level", "code"), [("note", 0), ("problem", 1)])
def test_the_command(
    level: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (Finding("ok", "device", "cpu"), Finding(level, "tokens", "another result", "pip install it", "", {"a": 1}))
    monkeypatch.setattr("unibrain.doctor.examine", lambda: found)
    monkeypatch.setattr("unibrain.workspace.progress.limit_threads", lambda _: None)
    assert main(["doctor"]) == code
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [
        "  ok       device  cpu",
        f"  {level:<7}  tokens  another result",
        "                   -> pip install it",
    ]
    assert main(["doctor", "--json"]) == code
    content = json.loads(capsys.readouterr().out)
    assert (content["level"], content["findings"][1]) == (level, asdict(found[1]))


def test_everything_is_as_recorded_and_tells_what_the_machine_has(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = {finding["title"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert code == 0, [finding for finding in found.values() if finding["level"] == "problem"]
    assert {"processor", "device", "memory of cpu", "weights: small", "weights: official"} <= set(found)
    assert list(found)[-len(PROBES) :] == [probe.name for probe in PROBES]
    assert {found[probe.name]["level"] for probe in PROBES} == {"ok"}

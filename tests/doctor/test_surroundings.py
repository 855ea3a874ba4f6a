"""Machine, disk, dependencies, weights and optional data: each lack is seen, and has a remedy."""

import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unibrain.doctor import dependencies as dependencies_module
from unibrain.doctor import machine as machine_module
from unibrain.doctor import optional_data as optional_module
from unibrain.doctor.dependencies import dependencies, judge
from unibrain.doctor.machine import devices, disk, hub_cache, machine, memory, memory_bytes
from unibrain.doctor.optional_data import optional_data
from unibrain.doctor.probe import Bench
from unibrain.doctor.weights_found import weights_found

Patch = pytest.MonkeyPatch


def test_the_machine_is_described() -> None:
    found = {finding.name: finding for finding in machine().findings}
    assert {"python", "processor", "graphics card", "memory", "disk of backbones", "disk of downloads"} == set(found)
    assert found["processor"].details["cores"] >= 1
    total, free = memory_bytes()
    assert total > 1e8
    assert free is None or 0 < free <= total


@pytest.mark.parametrize(
    ("total", "free", "status", "said"),
    [
        (64e9, 60e9, "ok", "official weights in fp32"),
        (16e9, 12e9, "ok", "official weights in bf16"),
        (8e9, 6e9, "note", "the official weights need 9.6 GB in bf16"),
        (8e9, 1e9, "problem", "close other programs"),
        (64e9, None, "ok", "fp32"),
    ],
)
def test_memory(total: float, free: float | None, status: str, said: str) -> None:
    finding = memory(int(total), None if free is None else int(free))
    assert finding.status == status
    assert said in f"{finding.found} {finding.remedy}"


def test_a_container_limits_memory(monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine_module, "_limits", lambda: [123_456_789])
    total, free = memory_bytes()
    assert total == 123_456_789
    assert free is None or free <= total


@pytest.mark.parametrize(
    ("free", "status", "said"),
    [(50e9, "ok", ""), (5e9, "note", "the thing takes about 13.0 GB"), (1e8, "problem", "free some space")],
)
def test_disk(monkeypatch: Patch, tmp_path: Path, free: float, status: str, said: str) -> None:
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=int(free))

    monkeypatch.setattr(machine_module.shutil, "disk_usage", usage)
    finding = disk("disk", tmp_path / "not" / "yet", 13e9, "the thing")
    assert asked == [tmp_path]  # the nearest folder that exists
    assert finding.status == status
    assert said in finding.remedy


def test_a_disk_that_cannot_be_asked(monkeypatch: Patch, tmp_path: Path) -> None:
    def usage(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine_module.shutil, "disk_usage", usage)
    finding = disk("disk", tmp_path, 1, "x")
    assert (finding.status, finding.found) == ("problem", f"{tmp_path}: permission denied")


def test_graphics_cards(monkeypatch: Patch) -> None:
    card = SimpleNamespace(name="A100", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    found = [finding.found for finding in devices() if finding.name == "graphics card"]
    assert found == ["cuda:0: A100, 80.0 GB", "cuda:1: A100, 80.0 GB"]


def test_apple(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices()[-1].details == {"device": "mps"}


def test_a_card_that_pytorch_cannot_use(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", None)
    finding = devices()[-1]
    assert finding.status == "note"
    assert "built without CUDA" in finding.found
    assert "pytorch.org" in finding.remedy
    monkeypatch.setattr(machine_module.shutil, "which", lambda name: None)
    assert "none found" in devices()[-1].found


def test_the_hubs_cache_follows_the_hub() -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    assert hub_cache() == Path(constants.HF_HUB_CACHE)


def test_versions_against_ranges() -> None:
    installed = version("numpy")
    assert judge("numpy>=1.0").status == "ok"
    assert judge("numpy>=1.0").found == f"{installed} (range >=1.0)"
    outside = judge("numpy>=1.0,<1.1")
    assert outside.status == "problem"
    assert outside.found.startswith(f"{installed} is outside of the range")
    assert outside.remedy == 'pip install "numpy<1.1,>=1.0"'
    missing = judge("no-such-package-at-all>=2")
    assert (missing.status, missing.found) == ("problem", "not installed")
    assert missing.remedy == 'pip install "no-such-package-at-all>=2"'


def test_extras_are_notes(monkeypatch: Patch) -> None:
    lines = [
        "numpy>=1.0",
        'no-such-package-at-all; extra == "demo"',
        'pytest>=1; extra == "test"',
        'no-such-package-either; python_version < "3"',
    ]
    monkeypatch.setattr(dependencies_module, "requires", lambda name: lines)
    found = {finding.name: finding for finding in dependencies().findings}
    assert set(found) == {"numpy", "extra demo", "extra test"}
    assert found["extra demo"].status == "note"
    assert 'pip install "unibrain[demo]"' in found["extra demo"].remedy
    assert found["extra test"].status == "ok"


def test_a_package_that_is_not_installed() -> None:
    section = dependencies("no-such-package-at-all")
    assert [finding.status for finding in section.findings] == ["note"]


def test_weights(monkeypatch: Patch, tmp_path: Path, bench: Bench) -> None:
    monkeypatch.setenv("UNIBRAIN_HOME", str(tmp_path))
    found = {finding.name: finding for finding in weights_found().findings}
    assert found["small"].status == "ok"
    assert found["official"].status == "note"
    assert "unibrain weights fetch official" in found["official"].remedy

    home = tmp_path / "backbones"
    for name in ("official", "mine", "broken", ".half"):
        shutil.copytree(bench.folder, home / name)
    (home / "mine" / "optimus.safetensors").unlink()
    (home / "broken" / "clip.safetensors").unlink()
    found = {finding.name: finding for finding in weights_found().findings}
    assert set(found) == {"small", "official", "mine", "broken"}
    assert found["official"].status == "ok"
    assert str(home / "official") in found["official"].found
    assert found["mine"].status == "note"
    assert "pictures only" in found["mine"].found
    assert found["broken"].status == "problem"
    assert "lacks clip.safetensors" in found["broken"].found


def test_optional_data(monkeypatch: Patch, tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text("")
    monkeypatch.setattr("unibrain.evaluation.wordnet.DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr("unibrain.evaluation.features.network_is_installed", lambda: True)
    monkeypatch.setattr(optional_module.shutil, "which", lambda name: "/usr/bin/firefox" if name == "firefox" else None)
    assert [finding.status for finding in optional_data().findings] == ["ok", "ok", "ok"]

    monkeypatch.setattr("unibrain.evaluation.wordnet.DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setattr("unibrain.evaluation.features.network_is_installed", lambda: False)
    monkeypatch.setattr(optional_module.shutil, "which", lambda name: None)
    wordnet, network, browser = optional_data().findings
    assert wordnet.status == "note"
    assert "apt-get install wordnet-base" in wordnet.remedy
    assert network.status == "note"
    assert 'pip install "unibrain[demo]"' in network.remedy
    assert browser.status == "ok"

"""The small backbone on the bench, loaded once, and comparisons of single probes on it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from unibrain.backbone.storage import backbone_folder
from unibrain.doctor import Finding
from unibrain.doctor.catalogue import PROBES
from unibrain.doctor.compare import compare
from unibrain.doctor.probe import Bench
from unibrain.doctor.recorded import Record, backbone_files

Check = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench(backbone_folder("small"))


@pytest.fixture(scope="session")
def record() -> Record:
    return Record.read()


@pytest.fixture(scope="session")
def check(bench: Bench, record: Record) -> Check:
    """Findings of the named probes, by name."""

    def checked(*names: str, **other: object) -> dict[str, Finding]:
        probes = [probe for probe in PROBES if probe.name in names]
        assert {probe.name for probe in probes} == set(names)
        section = compare(probes, bench, replace(record, **other))  # type: ignore[arg-type]
        return {finding.name: finding for finding in section.findings}

    return checked


@pytest.fixture(scope="session")
def files(bench: Bench) -> dict[str, str]:
    return backbone_files(bench.folder)

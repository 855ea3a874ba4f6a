"""The small backbone on the bench, loaded once, and comparisons of single probes on it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from unibrain.audit import Finding
from unibrain.backbone.folder import backbone_folder
from unibrain.doctor.fingerprints import Bench, Record, compare, read_record
from unibrain.doctor.probes import PROBES

Check = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench(backbone_folder("small"))


@pytest.fixture(scope="session")
def record() -> Record:
    return read_record()


@pytest.fixture(scope="session")
def check(bench: Bench, record: Record) -> Check:
    """Findings of the named probes, by name."""

    def checked(*names: str, **other: object) -> dict[str, Finding]:
        probes = [probe for probe in PROBES if probe.name in names]
        assert {probe.name for probe in probes} == set(names)
        return {finding.title: finding for finding in compare(probes, bench, replace(record, **other))}  # type: ignore[arg-type]

    return checked

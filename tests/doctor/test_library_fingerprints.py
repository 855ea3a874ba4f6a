"""The fingerprints themselves: what comes with the package is what this installation computes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibrain.backbone import VersatileDiffusion, load_backbone
from unibrain.backbone.storage import backbone_folder, folder_fingerprint
from unibrain.doctor.catalogue import PROBES
from unibrain.doctor.compare import compare
from unibrain.doctor.fingerprint import Fingerprint, difference, of_array
from unibrain.doctor.patterns import fixed_numbers, fixed_picture
from unibrain.doctor.preprocessing_probes import PREPROCESSING
from unibrain.doctor.probe import Bench
from unibrain.doctor.recorded import LIBRARIES, Record

NETWORKS = [probe.name for probe in PROBES if any(name.endswith(".safetensors") for name in probe.reads)]

FIRST_NUMBERS = [0.052512, -0.938639, 0.059167]
MIDDLE_ROW = [[127, 129, 20], [127, 199, 35], [127, 24, 51], [127, 155, 147]]


@pytest.fixture(scope="module")
def findings(bench: Bench, record: Record) -> dict[str, object]:
    return {finding.name: finding for finding in compare(PROBES, bench, record).findings}


@pytest.mark.parametrize("name", ["small backbone", *(probe.name for probe in PROBES)])
def test_is_as_recorded(findings: dict[str, object], name: str) -> None:
    finding = findings[name]
    assert finding.status == "ok", f"{finding.found} -> {finding.remedy}"


def test_every_probe_is_recorded_and_nothing_else(record: Record) -> None:
    assert list(record.entries) == [probe.name for probe in PROBES]
    assert [entry.tolerance for entry in record.entries.values()] == [probe.tolerance for probe in PROBES]
    assert list(record.libraries) == list(LIBRARIES)
    assert record.weights == folder_fingerprint(backbone_folder("small"))


def test_every_library_has_a_fingerprint_that_leans_on_it_first_or_later() -> None:
    assert {name for probe in PROBES for name in probe.leans_on} == set(LIBRARIES)
    seen: set[str] = set()
    for probe in PROBES:
        assert set(probe.builds_on) <= seen
        seen.add(probe.name)


def test_pixels_are_those_that_pillow_and_arithmetic_give(record: Record, bench: Bench) -> None:
    # The record itself against an outside computation, so that a wrong preprocessing cannot be recorded unseen.
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    for name, shape, sizes in (
        ("clip-preprocessing-official", (512, 512), (224,)),
        ("clip-preprocessing-resized", (425, 640), (512, 224)),
        ("clip-preprocessing-small", (120, 90), (96, 64)),
    ):
        image = Image.fromarray(fixed_picture(*shape))
        for size in sizes:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        pixels = ((np.asarray(image, np.float64) / 255 - mean) / deviation).transpose(2, 0, 1)[None]
        assert difference(of_array(pixels), record.entries[name].fingerprint) < 1e-5
    assert [probe.name for probe in PREPROCESSING][:3] == list(record.entries)[:3]


def rounded_differently(backbone: VersatileDiffusion) -> VersatileDiffusion:
    """Every weight off by about one part in a million: more than what a processor's rounding does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in (backbone.flows, backbone.autokl, backbone.optimus, backbone.clip):
            for weight in part.parameters():
                weight *= 1 + 1e-6 * torch.randn(weight.shape, generator=generator)
    return backbone


def test_rounding_moves_nothing(bench: Bench, record: Record) -> None:
    other = Bench(bench.folder)
    other.__dict__["_opened"] = rounded_differently(load_backbone(bench.folder, device="cpu", dtype="fp32"))
    with torch.backends.mkldnn.flags(enabled=False):
        found = {finding.name: finding for finding in compare(PROBES, other, record).findings}
    assert all(finding.status == "ok" for finding in found.values())
    differences = [found[name].details["difference"] for name in NETWORKS]
    assert max(differences) < 1e-4  # a tenth of what is allowed
    assert max(differences) > 0  # the weights were really other ones


def test_patterns_are_the_same_everywhere() -> None:
    assert fixed_numbers((3,), 1).tolist() == pytest.approx(FIRST_NUMBERS, abs=1e-6)
    assert fixed_picture(5, 4)[2].tolist() == MIDDLE_ROW
    noise = fixed_numbers((40, 50), 7)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(noise.ravel(), fixed_numbers((40, 50), 8).ravel())[0, 1]) < 0.05


@given(
    place=st.integers(0, 599),
    change=st.floats(0.1, 5).flatmap(lambda size: st.sampled_from([size, -size])),
)
def test_one_changed_value_shows(place: int, change: float) -> None:
    array = fixed_numbers((20, 30), 5).astype(np.float64)
    before = of_array(array)
    array.ravel()[place] += change
    # Each of the eight sums moves by the change over the root of the count.
    assert difference(of_array(array), before) > 0.9 * abs(change) / 600**0.5 / before.scale


def test_order_and_shape_show() -> None:
    array = fixed_numbers((20, 30), 6)
    assert difference(of_array(array[::-1]), of_array(array)) > 0.1
    assert difference(of_array(array[:, ::-1]), of_array(array)) > 0.1
    assert difference(of_array(array.T), of_array(array)) == float("inf")
    assert difference(of_array(array * 1.01), of_array(array)) > 5e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_off(value: float) -> None:
    array = fixed_numbers((4, 5), 2)
    stored = of_array(array)
    array[1, 1] = value
    with np.errstate(invalid="ignore"):
        assert difference(of_array(array), stored) == float("inf")


def test_a_fingerprint_survives_json() -> None:
    made = of_array(fixed_numbers((6, 7), 3))
    assert Fingerprint.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert dataclasses.replace(made, exact={"shape": [7, 6]}) != made

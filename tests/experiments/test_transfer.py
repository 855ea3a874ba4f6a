import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import toy
from scipy.spatial import procrustes as scipy_procrustes
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.experiments import Bench, transfer
from unibrain.experiments.transfer import (
    ANATOMICAL,
    SHUFFLED,
    UNALIGNED,
    WITHIN,
    _counts,
    _procrustes,
    _ridge,
    _split_images,
    open_other,
    shared_images,
)
from unibrain.pipeline import RunFolder
from unibrain.regression import BrainDecoder

LATENTS = ("z_image", "z_text", "c_image", "c_text")

pytestmark = pytest.mark.usefixtures("few_metrics")


@pytest.fixture
def twin(bench: Bench, finished: RunFolder, tmp_path: Path) -> Iterator[Bench]:
    """The very same subject, in a folder of its own."""
    shutil.copytree(finished.root, tmp_path / "twin")
    with open_other(bench, RunFolder(tmp_path / "twin"), 6) as opened:
        yield opened


@pytest.fixture
def stranger(bench: Bench, second: RunFolder) -> Iterator[Bench]:
    with open_other(bench, second, 2) as opened:
        yield opened


def mean(found: object, setting: str, what: str) -> float:
    return float(np.mean([found.cell(setting, f"{latent}_{what}").value for latent in LATENTS]))


@pytest.mark.usefixtures("drawn")
def test_the_same_subject_is_decoded_as_by_itself_and_shuffling_is_the_floor(bench: Bench, twin: Bench) -> None:
    found = transfer(bench, twin)
    # All training images are shared, and align; all test images are decoded.
    within, best, floor = (mean(found, name, "r") for name in (WITHIN, "ridge, 30 images", SHUFFLED))
    assert best == pytest.approx(within, abs=0.05)
    assert mean(found, "Procrustes, 30 images", "r") == pytest.approx(within, abs=0.05)
    assert floor < within / 3
    assert mean(found, "ridge, 7 images", "r") < best
    for name in (UNALIGNED, ANATOMICAL):
        assert mean(found, name, "r") == pytest.approx(within, abs=1e-4)
    assert found.cell("ridge, 30 images", "z_image_two_way").against == WITHIN
    strips = {strip.label: strip for strip in found.strips}
    assert np.array_equal(strips[ANATOMICAL].pictures, strips[WITHIN].pictures)
    assert "30 images" in found.answer
    assert found.figures


def test_what_is_decoded_aligns_nothing(bench: Bench, stranger: Bench) -> None:
    pairs, ids = _split_images(bench, stranger)
    shared = set(bench.subject.test.stimulus_ids.tolist())
    assert set(ids) <= shared
    assert set(pairs[:, 1]) == shared - set(ids)
    assert np.array_equal(pairs[:, 0], pairs[:, 1])
    found = transfer(bench, stranger)
    assert {"ridge, 4 images", "Procrustes, 4 images", WITHIN, SHUFFLED} <= set(found.settings)
    assert found.cell(WITHIN, "pixcorr").value == pytest.approx(
        replace(bench, ids=ids).score(replace(stranger, ids=ids).decoded())["pixcorr"].value
    )


def test_images_that_the_decoder_was_trained_on_are_not_decoded(bench: Bench, twin: Bench) -> None:
    held = twin.subject.is_test.copy()
    train = np.flatnonzero(~held)
    held[train[:5]] = True
    other = replace(twin, subject=replace(twin.subject, is_test=held), ids=twin.subject.stimulus_ids[held])
    pairs, ids = _split_images(bench, other)
    seen = twin.subject.stimulus_ids[train[:5]]
    assert not np.isin(ids, seen).any()
    assert np.isin(seen, pairs[:, 1]).all()


def test_pictures_decide_what_is_shared(bench: Bench, twin: Bench) -> None:
    assert np.array_equal(shared_images(bench, twin)[:, 0], np.unique(bench.subject.stimulus_ids))
    read = twin.stimuli.read_pictures
    other = replace(twin, stimuli=replace(twin.stimuli, read_pictures=lambda ids: 255 - read(ids)))
    assert not len(shared_images(bench, other))


def test_alignments_find_a_planted_rotation() -> None:
    random = np.random.default_rng(1)
    mine = random.standard_normal((40, 4)) @ random.standard_normal((4, 12))
    rotation = np.linalg.qr(random.standard_normal((12, 12)))[0]
    theirs = mine @ rotation + 3
    moved = _procrustes(theirs[:20], mine[:20], theirs[20:])
    assert np.allclose(moved, mine[20:], atol=1e-5)
    assert scipy_procrustes(mine[20:], moved)[2] < 1e-9
    expected = Ridge(BrainDecoder().fit(theirs[:20], mine[:20]).alpha_["y"]).fit(theirs[:20], mine[:20])
    ridge, truth = _ridge(theirs[:20], mine[:20], theirs[20:], "cpu"), expected.predict(theirs[20:])
    assert np.corrcoef(ridge.ravel(), truth.ravel())[0, 1] > 0.999


def test_counts_halve() -> None:
    assert _counts(90) == [5, 11, 22, 45, 90]
    assert _counts(4) == [4]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("same-run", "decoder itself"),
        ("backbone", "another backbone"),
        ("no-shared-image", "no image that both"),
        ("none-left", "--images"),
        ("no-captions", "no captions"),
        ("trained-on", "has seen"),
        ("budget", "--budget"),
    ],
)
def test_refused_before_work(bench: Bench, second: RunFolder, spoil: str, named: str) -> None:
    calls = bench.network.calls
    before = list(calls)
    run = bench.run if spoil == "same-run" else second
    if spoil == "backbone":
        bench = replace(bench, network=toy("two").load("toy"))
    with pytest.raises(InputError, match=named), open_other(bench, RunFolder(run.root), 2) as other:
        images = other.subject.test.stimulus_ids
        read = other.stimuli.read_pictures
        spoiled = {
            "no-shared-image": {"stimuli": replace(other.stimuli, read_pictures=lambda ids: 255 - read(ids))},
            "none-left": {"ids": images},
            "no-captions": {"stimuli": replace(other.stimuli, captions_by_id={}, has_captions=False)},
        }
        if spoil == "trained-on":
            known = replace(bench.subject, is_test=~bench.subject.is_test)
            bench = replace(bench, subject=known)
        if spoil == "budget":
            bench = replace(bench, budget=0.0)
        transfer(bench, replace(other, **spoiled.get(spoil, {})))
    assert [call for call in calls if call.startswith("sample")] == [c for c in before if c.startswith("sample")]


def test_a_run_of_another_backbone_is_refused(bench: Bench, stranger: Bench, run: RunFolder) -> None:
    path = RunFolder(shutil.copytree(run.root, run.root.with_name("other"))).record("extract")
    record = json.loads(path.read_text())
    record["facts"]["backbone"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="another backbone"), open_other(bench, RunFolder(path.parents[1])):
        pass
    with pytest.raises(InputError, match="another backbone"):
        transfer(bench, replace(stranger, network=toy("two").load("toy")))

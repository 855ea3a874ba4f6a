from dataclasses import replace

import numpy as np
import pytest

from unibrain.audit import RegionVoxels, SessionVoxels
from unibrain.audit.images import Images
from unibrain.audit.scan_checks import (
    Sessions,
    check_matrix,
    check_regions,
    check_repeats,
    check_sessions,
    check_voxels,
    count_voxels,
    region_voxels,
)
from unibrain.scans.nsd_design import Design

ALL = Sessions((1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3))


@pytest.mark.parametrize(
    ("sessions", "level", "words"),
    [
        (ALL, "ok", "3 of 3 sessions that were run are there (design: 3)"),
        (replace(ALL, used=None), "ok", "3 of 3 sessions"),
        (replace(ALL, run=(1, 2), present=(1, 2), used=(1, 2)), "note", "never run: 3"),
        (replace(ALL, present=(2,), used=(2,)), "note", "betas missing: 1, 3"),
        (replace(ALL, present=(1, 2)), "note", "read before, and gone now: 3"),
        (replace(ALL, used=(1,)), "note", "there, and not read: 2-3"),
        (replace(ALL, run=(1, 2), used=(1, 2)), "problem", "betas of sessions without trials: 3"),
    ],
)
def test_sessions(sessions: Sessions, level: str, words: str) -> None:
    finding = check_sessions(sessions)
    assert finding.level == level
    assert words in finding.found


def test_each_silent_voxel_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(10, 6)).astype(np.float32)
    betas[0] = 0
    betas[1, :5] = 0
    betas[2] = 7
    betas[3, 2] = np.nan
    betas[4] = np.nan
    betas[5] = np.inf
    assert count_voxels(4, betas) == SessionVoxels(4, 6, 10, zero=1, constant=1, non_finite=3)
    whole = np.array([[3, 3, 3], [0, 0, 0], [0, 1, 0]], dtype=np.int16)
    assert count_voxels(1, whole) == SessionVoxels(1, 3, 3, zero=1, constant=1, non_finite=0)
    assert count_voxels(1, whole[:, :1]).constant == 0


@pytest.mark.parametrize(
    ("faults", "level", "words"),
    [
        ({}, "ok", "every voxel responds in each of 2 sessions"),
        ({"zero": 1}, "note", "all zero in session 2 (1 voxel)"),
        ({"zero": 10}, "problem", "all zero in session 2 (10 voxels)"),
        ({"constant": 3}, "problem", "one value other than 0 throughout in session 2 (3 voxels)"),
        ({"non_finite": 2}, "problem", "NaN or infinite values in session 2 (2 voxels)"),
    ],
)
def test_voxels(faults: dict[str, int], level: str, words: str) -> None:
    good = SessionVoxels(1, 75, 100, 0, 0, 0)
    finding = check_voxels([good, replace(good, session=2, **faults)])
    assert (finding.level, words in finding.found) == (level, True)
    assert check_voxels([good], ["betas_session03: cut short"]).level == "problem"


def test_the_prepared_matrix() -> None:
    betas = np.random.default_rng(0).normal(size=(20, 700)).astype(np.float32)
    is_test = np.arange(20) >= 15
    assert check_matrix(betas, is_test).level == "ok"
    betas[15:, 3] = 1
    assert check_matrix(betas, is_test).level == "note"
    betas[:15, 690] = 2
    betas[0, 4] = np.inf
    finding = check_matrix(betas, is_test)
    assert finding.level == "problem"
    assert finding.numbers["constant"] == {"training": 1, "test": 1}
    assert finding.numbers["non_finite"] == 1


def test_repeats_are_counted_by_image() -> None:
    # Image 5 three times, 7 twice, 9 once; test image 1 three times, 2 once.
    ids = np.array([5, 7, 5, 9, 7, 5, 1, 1, 2, 1])
    design = Design((1,), np.ones(10, dtype=np.int64), ids, ids < 3)
    images = Images.of_design(design)
    assert images.train_ids.tolist() == [5, 7, 9]
    assert images.test_repeats.tolist() == [3, 1]
    finding = check_repeats(images)
    assert finding.level == "note"
    assert finding.numbers == {"training": {"1": 1, "2": 1, "3": 1}, "test": {"1": 1, "3": 1}}
    assert finding.found.startswith("3 images with fewer than 3 trials (training: 1 shown once, 1 shown twice of 3")
    full = Images.of(ids, ids < 3, np.full(10, 3))
    assert check_repeats(full).level == "ok"


def test_regions_and_their_noise_ceiling() -> None:
    ceiling = np.array([10, 20, 30, 40, np.nan], dtype=np.float32)
    half = np.array([True, True, False, False, True])
    entries = region_voxels({"V1": half, "faces": np.zeros(5, dtype=np.bool_)}, ceiling)
    low, middle, high = (float(np.nanpercentile(ceiling, q)) for q in (25, 50, 75))
    assert entries[0] == RegionVoxels("all", 5, 4, (low, middle, high))
    assert entries[1] == RegionVoxels("V1", 3, 2, (12.5, 15.0, 17.5))
    assert entries[2] == RegionVoxels("faces", 0, 0, None)
    regions, noise = check_regions(entries)
    assert (regions.level, noise.level) == ("note", "note")
    assert "no voxel in faces" in regions.found
    assert "not known for 1 voxel" in noise.found
    regions, noise = check_regions(region_voxels({"V1": half}, ceiling[:4].repeat([1, 1, 1, 2])))
    assert (regions.level, noise.level) == ("ok", "ok")
    assert check_regions(region_voxels({}, np.full(5, np.nan, dtype=np.float32)))[1].found == "not known for any voxel"
    assert check_regions(region_voxels({}, np.zeros(5, dtype=np.float32)))[1].level == "problem"

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from unibrain.audit.image_checks import Images, check_repeats
from unibrain.audit.scan_checks import (
    Looked,
    SessionBetas,
    Sessions,
    check_matrix,
    check_regions,
    check_scans,
    check_sessions,
    check_voxels,
    check_zscores,
    look_at,
    summary_of,
)
from unibrain.errors import InputError

ALL = Sessions((1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3))
Betas = NDArray[np.float32]


@pytest.mark.parametrize(
    ("sessions", "level", "words"),
    [
        (ALL, "ok", "3 of 3 sessions that were run are there (design: 3)"),
        (replace(ALL, used=None), "ok", "3 of 3 sessions"),
        (replace(ALL, run=(1, 2), present=(1, 2), used=(1, 2)), "note", "never run: 3"),
        (replace(ALL, present=(2,), used=(2,)), "note", "betas missing: 1, 3"),
        (replace(ALL, present=(1, 2)), "note", "gone now: 3"),
        (replace(ALL, used=(1,)), "note", "not read: 2-3"),
        (replace(ALL, run=(1, 2), used=(1, 2)), "problem", "without trials: 3"),
    ],
)
def test_sessions(sessions: Sessions, level: str, words: str) -> None:
    finding = check_sessions(sessions)
    assert finding.level == level
    assert words in finding.what


def test_each_silent_voxel_is_counted_once() -> None:
    betas = np.random.default_rng(0).normal(2, 3, size=(10, 6)).astype(np.float32)
    betas[0] = 0
    betas[1, :5] = 0
    betas[2] = 7
    betas[3, 2] = np.nan
    betas[4] = np.nan
    betas[5] = np.inf
    found = summary_of(4, betas, 5)
    assert (found.session, found.trials, found.training, found.voxels) == (4, 6, 5, 10)
    assert (found.zero, found.constant, found.non_finite) == (1, 1, 3)
    alive = betas[[1, 6, 7, 8, 9]].astype(np.float64)
    assert found.mean == pytest.approx(np.median(alive.mean(axis=1)))
    assert found.deviation == pytest.approx(np.median(alive.std(axis=1)))
    whole = np.array([[3, 3, 3], [0, 0, 0], [0, 1, 0]], dtype=np.int16)
    assert (summary_of(1, whole, 3).zero, summary_of(1, whole, 3).constant) == (1, 1)
    assert summary_of(1, whole[:, :1], 1).constant == 0


@pytest.mark.parametrize(
    ("faults", "level", "words"),
    [
        ({}, "ok", "each of 2 sessions"),
        ({"zero": 1}, "note", "session 2 (1 voxel)"),
        ({"zero": 10}, "problem", "session 2 (10 voxels)"),
        ({"constant": 3}, "problem", "session 2 (3 voxels)"),
        ({"non_finite": 2}, "problem", "session 2 (2 voxels)"),
    ],
)
def test_voxels(faults: dict[str, int], level: str, words: str) -> None:
    good = replace(summary_of(1, np.ones((100, 75)), 70), constant=0)
    finding = check_voxels(Looked((good, replace(good, session=2, **faults))))
    assert (finding.level, words in finding.what) == (level, True)
    unreadable = check_voxels(Looked((good,), ("betas_session03: cut short",)))
    assert (unreadable.level, "betas_session03" in unreadable.what) == ("problem", True)


def drawn(scale: float = 600, mean: float = 150, trials: int = 20, seed: int = 0) -> Betas:
    rng = np.random.default_rng(seed)
    return (mean + scale * rng.normal(size=(40, trials))).astype(np.float32)


def sessions_of(*betas: Betas) -> Iterable[SessionBetas]:
    """Every fourth trial is a test trial."""
    for number, each in enumerate(betas, 1):
        yield SessionBetas(number, lambda each=each: each, np.arange(each.shape[1]) % 4 > 0)


@pytest.mark.parametrize(
    ("betas", "level", "words"),
    [
        ((drawn(), drawn(700, seed=1), drawn(500, 200, seed=2)), "ok", "3 sessions"),
        ((drawn(), drawn(2, 0.5, seed=1), drawn(seed=2)), "problem", "session 2 (mean 0."),
        ((drawn(2, 0.5), drawn(seed=1)), "problem", "session 1 (mean 0."),
        ((drawn(), drawn(mean=2000, seed=1)), "problem", "session 2 (mean 1,9"),
        ((drawn(), drawn(trials=2, seed=1)), "note", "1 session: 2"),
        ((drawn(), np.zeros((40, 20), np.float32)), "ok", "2 sessions"),  # voxels in sessions tells of zeros
    ],
)
def test_sessions_in_other_units_or_too_short_for_zscores(betas: tuple[Betas, ...], level: str, words: str) -> None:
    finding = check_zscores(look_at(sessions_of(*betas)))
    assert (finding.level, words in finding.what) == (level, True), finding.what


def test_scans_of_zeros_and_repeated_scans_are_named() -> None:
    first, second = drawn(), drawn(seed=1)
    assert check_scans(look_at(sessions_of(first, second))).level == "ok"
    first[:, 6] = 0
    second[:, 3] = second[:, 2]
    second[:, 9] = first[:, 0]

    def gone() -> Betas:
        raise InputError("gone")

    looked = look_at([*sessions_of(first, second), SessionBetas(3, gone, np.ones(2, np.bool_))])
    assert looked.unreadable == ("gone",)
    finding = check_scans(looked)
    assert finding.level == "problem"
    assert finding.details == {"empty": [[1, 7]], "same": [[[2, 3], [2, 4]], [[1, 1], [2, 10]]]}
    assert "session 1 trial 7" in finding.what


def constant_in_test(betas: Betas) -> None:
    betas[15:, 3] = 1


def constant_in_training(betas: Betas) -> None:
    betas[:15, 690] = 2


def absurd(betas: Betas) -> None:
    betas[7] *= 30


def twice(betas: Betas) -> None:
    betas[9] = betas[2]


@pytest.mark.parametrize(
    ("spoil", "level", "details"),
    [
        (lambda betas: None, "ok", {}),
        (constant_in_test, "note", {"constant": {"training": 0, "test": 1}}),
        (constant_in_training, "problem", {"constant": {"training": 1, "test": 0}}),
        (absurd, "problem", {"large": [7]}),
        (twice, "problem", {"again": 1}),
    ],
)
def test_the_prepared_matrix(spoil: Callable[[Betas], None], level: str, details: dict[str, object]) -> None:
    betas = np.random.default_rng(0).normal(size=(20, 700)).astype(np.float32)
    spoil(betas)
    finding = check_matrix(betas, np.arange(20) >= 15)
    fine = {"constant": {"training": 0, "test": 0}, "large": [], "again": 0}
    assert finding.level == level
    assert finding.details == {**fine, **details}


def test_repeats_are_counted_by_image() -> None:
    # Image 5 three times, 7 twice, 9 once; test image 1 three times, 2 once.
    ids = np.array([5, 7, 5, 9, 7, 5, 1, 1, 2, 1])
    images = Images.of(ids, ids < 3)
    assert images.train_ids.tolist() == [5, 7, 9]
    assert images.test_repeats.tolist() == [3, 1]
    finding = check_repeats(images)
    assert finding.level == "note"
    assert finding.details == {"training": {"1": 1, "2": 1, "3": 1}, "test": {"1": 1, "3": 1}}
    assert check_repeats(Images.of(ids, ids < 3, np.full(10, 3))).level == "ok"


def test_regions_and_their_noise_ceiling() -> None:
    ceiling = np.array([10, 20, 30, 40, np.nan], dtype=np.float32)
    half = np.array([True, True, False, False, True])
    regions, noise = check_regions({"V1": half, "faces": np.zeros(5, dtype=np.bool_)}, ceiling)
    assert (regions.level, noise.level) == ("note", "note")
    assert regions.details == {"voxels": {"V1": 3, "faces": 0}, "empty": ["faces"]}
    assert noise.details["quartiles"] == [float(np.nanpercentile(ceiling, q)) for q in (25, 50, 75)]
    assert noise.details["unknown"] == 1
    regions, noise = check_regions({"V1": half}, ceiling[:4].repeat([1, 1, 1, 2]))
    assert (regions.level, noise.level) == ("ok", "ok")
    assert check_regions({}, np.full(5, np.nan, dtype=np.float32))[1].what == "not known for any voxel"
    assert check_regions({}, np.zeros(5, dtype=np.float32))[1].level == "problem"

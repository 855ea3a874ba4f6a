from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from unibrain.errors import InputError
from unibrain.evaluation.identification import correlations, identify, win_table
from unibrain.evaluation.statistics import (
    PairedDifference,
    bootstrap_interval,
    holm,
    over_samples,
    over_subjects,
    paired_difference,
    paired_interval,
    permutation_p,
    share_interval,
)


def test_many_images_give_scipys_percentiles():
    values = np.random.default_rng(0).exponential(size=500)
    found = bootstrap_interval(values, seed=1)
    wanted = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.006)
    assert found.high == pytest.approx(wanted.high, abs=0.006)
    assert bootstrap_interval(values, seed=1) == found
    assert bootstrap_interval(values, seed=1, level=0.5).low > found.low


def test_ten_images_are_covered_as_promised():
    random, hits = np.random.default_rng(3), {"ours": 0, "plain": 0}
    for _ in range(400):
        values = random.beta(8, 2, size=10)
        found = bootstrap_interval(values, draws=400, seed=int(random.integers(1 << 30)))
        hits["ours"] += found.low <= 0.8 <= found.high
        low, high = np.quantile(values[random.integers(10, size=(400, 10))].mean(axis=1), [0.025, 0.975])
        hits["plain"] += low <= 0.8 <= high
    assert hits["plain"] / 400 < 0.92 < hits["ours"] / 400


def test_draws_in_parts_are_the_same(monkeypatch):
    values = np.random.default_rng(4).normal(size=30)
    whole = bootstrap_interval(values, draws=500)
    monkeypatch.setattr("unibrain.evaluation.statistics._AT_ONCE", 700)
    assert bootstrap_interval(values, draws=500) == whole


def test_equal_values_have_an_interval_without_width():
    assert bootstrap_interval([0.1] * 7).low == bootstrap_interval([0.1] * 7).high == 0.1


def test_what_is_hard_for_both_runs_cancels():
    random = np.random.default_rng(5)
    hard = random.normal(size=50)
    first, second = hard + 0.1 + 0.05 * random.normal(size=50), hard + 0.05 * random.normal(size=50)
    found = paired_interval(first, second)
    assert 0.05 < found.low < 0.1 < found.high < 0.15
    assert bootstrap_interval(first).low < bootstrap_interval(second).high


def test_permutation_is_exact_in_small_cases():
    # Of the 6 orders of three items, one scores 3 of 3 and three score 1 of 3.
    p = permutation_p(lambda order: (order == np.arange(3)).astype(float), 3, draws=20_000)
    assert p == pytest.approx(1 / 6, abs=0.01)
    p = permutation_p(lambda order: (order != np.arange(3)).astype(float), 3, higher_is_better=False, draws=5000)
    assert p == pytest.approx(1 / 6, abs=0.02)


def test_permutation_equals_scipys_test_of_correlation():
    random = np.random.default_rng(6)
    x = random.normal(size=25)
    y = 0.4 * x + random.normal(size=25)
    wanted = stats.permutation_test(
        (y,), lambda y: (x * y).mean(), permutation_type="pairings", alternative="greater", n_resamples=20_000, rng=1
    ).pvalue
    assert permutation_p(lambda order: x * y[order], 25, draws=20_000) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("direction", ["recon->images", "image->recons"])
def test_a_table_of_wins_equals_scoring_every_relabelling(direction):
    random = np.random.default_rng(7)
    true = random.normal(size=(15, 10))
    similarity = correlations(true, true + 4 * random.normal(size=(15, 10)))
    table, rows = win_table(similarity, direction) / 14, np.arange(15)
    slow = permutation_p(
        lambda orders: np.stack([identify(similarity[:, order], direction) for order in orders]), 15, draws=200, seed=1
    )
    assert permutation_p(lambda order: table[rows, order], 15, draws=200, seed=1) == slow


def test_p_is_uniform_where_nothing_was_decoded():
    random, rows = np.random.default_rng(8), np.arange(8)
    tables = [win_table(random.normal(size=(8, 8))) for _ in range(300)]
    found = [
        permutation_p(lambda order, table=table: table[rows, order], 8, draws=99, seed=seed)
        for seed, table in enumerate(tables)
    ]
    assert np.mean(np.array(found) <= 0.05) < 0.09
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_holm_is_bonferroni_on_all_subsets():
    """A hypothesis falls if Bonferroni's test of every set that holds it does (Marcus, Peritz and Gabriel 1976)."""
    p = dict(zip("abcde", [0.011, 0.3, 0.011, 0.002, 0.04], strict=True))
    closed = {}
    for name in p:
        sets = [some for size in range(1, 6) for some in combinations(p, size) if name in some]
        closed[name] = max(min(1.0, len(some) * min(p[other] for other in some)) for some in sets)
    assert holm(p) == pytest.approx(closed)
    assert list(holm(p)) == list(p)
    assert holm({}) == {}


def test_samples_of_a_scan():
    random = np.random.default_rng(9)
    values = random.normal(size=(4000, 1)) + 2 * random.normal(size=(4000, 5))
    within, between = over_samples(values)
    assert within == pytest.approx(np.mean([np.var(row, ddof=1) for row in values]))
    assert (within, between) == (pytest.approx(4, rel=0.1), pytest.approx(1, rel=0.1))
    assert over_samples(values[:, :1])[0] == 0


def test_subjects():
    scores = [0.81, 0.85, 0.79, 0.9]
    mean, interval = over_subjects(scores)
    wanted = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (mean, interval.low, interval.high) == pytest.approx((np.mean(scores), wanted.low, wanted.high))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: bootstrap_interval([0.5]), "(1,)"),
        (lambda: bootstrap_interval([0.5, 0.1, np.nan]), "row 2"),
        (lambda: bootstrap_interval([0.5, 0.1], level=95), "95"),
        (lambda: paired_interval([0.5, 0.1], [0.5, 0.1, 0.2]), "3"),
        (lambda: permutation_p(lambda order: order, 1), "1 image"),
        (lambda: holm({"ssim": np.nan}), "ssim"),
        (lambda: over_samples(np.ones(3)), "(3,)"),
        (lambda: over_subjects([0.5]), "0.5"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError) as error:
        call()
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"), [(0, 40, 0.0, 0.0881), (40, 40, 0.9119, 1.0), (3, 10, 0.0667, 0.6525)]
)
def test_share_interval_is_the_textbooks(hits: int, images: int, low: float, high: float) -> None:
    found = share_interval([1] * hits + [0] * (images - hits))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert share_interval([0.0, 0.5, 1.0]) is None


def test_paired_differences_against_all_signs_and_scipy():
    from scipy.stats import permutation_test

    random = np.random.default_rng(3)
    first = random.normal(0.4, 1, 11)
    second = random.normal(0, 1, 11)
    expected = permutation_test((first, second), lambda a, b: np.mean(a - b), permutation_type="samples")
    found = paired_difference([*first, None, 0.5], [*second, 0.5, float("nan")], draws=20_000)
    assert found.difference == pytest.approx(np.mean(first - second))
    assert (found.images, found.left_out) == (11, 2)
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    interval = paired_interval(first, second, draws=20_000)
    assert (found.low, found.high) == (interval.low, interval.high)


def test_equal_runs_do_not_differ():
    values = np.linspace(0, 1, 7)
    assert paired_difference(values, values) == PairedDifference(0.0, 0.0, 0.0, 1.0, 7, 0)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [([1.0, 2.0], [1.0], r"\(1,\)"), ([1.0, None], [1.0, 2.0], r"\(1,\)"), ([None, None], [1.0, 2.0], r"\(0,\)")],
)
def test_what_cannot_be_paired(first, second, named):
    with pytest.raises(InputError, match=named):
        paired_difference(first, second)

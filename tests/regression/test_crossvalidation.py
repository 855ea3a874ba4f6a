"""Choice of alpha against scikit-learn's Ridge refitted fold by fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.regression.crossvalidation import (
    AlphaCurve,
    alpha_curves,
    leave_out_moments,
    leave_out_operator,
    split_folds,
)
from unibrain.regression.ridge import centred_kernel, factorise

ALPHAS = (0.1, 10.0, 1000.0, 1e5)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 150)) + 2
    Y = X @ rng.standard_normal((150, 8)) / 12 + 2 * rng.standard_normal((60, 8)) + 4
    Y[:, 5] = 0.1
    return X, Y, split_folds(np.arange(60), 4, seed=1), factorise(centred_kernel(X)[0])


def refit(X, Y, held_out, alpha):
    """Out-of-fold predictions and targets, less the mean of each fold's training targets."""
    predicted, true = np.zeros_like(Y), np.zeros_like(Y)
    for rows in held_out:
        train = np.setdiff1d(np.arange(len(X)), rows)
        mean = Y[train].mean(axis=0)
        predicted[rows] = Ridge(alpha).fit(X[train], Y[train]).predict(X[rows]) - mean
        true[rows] = Y[rows] - mean
    return predicted, true


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_curve_equals_refitting(problem, dtype, tolerance):
    X, Y, held_out, factorisation = problem
    # Two latents, to see that each gets its own columns.
    latents = {"first": Y.astype(dtype), "second": Y[:, 2:4].astype(dtype)}
    curves = alpha_curves(factorisation, held_out, latents, ALPHAS)
    for name, columns in (("first", np.delete(np.arange(8), 5)), ("second", np.array([2, 3]))):
        curve = curves[name]
        for alpha, r2, correlation in zip(ALPHAS, curve.r2, curve.correlation, strict=True):
            predicted, true = (array[:, columns] for array in refit(X, Y, held_out, alpha))
            assert r2 == pytest.approx(1 - np.sum((true - predicted) ** 2) / np.sum(true**2), abs=tolerance)
            cosine = np.sum(predicted * true, axis=0) / np.linalg.norm(predicted, axis=0) / np.linalg.norm(true, axis=0)
            assert correlation == pytest.approx(cosine.mean(), abs=tolerance)
        assert curve.best == ALPHAS[int(np.argmax(curve.r2))]
    assert (curves["first"].targets, curves["second"].targets) == (8, 2)


@pytest.mark.parametrize("shape", [(60, 5), (20, 400)])
def test_curve_equals_refitting_for_few_and_many_voxels(shape):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal(shape) + 10, rng.standard_normal((shape[0], 3))
    held_out = split_folds(np.arange(shape[0]), 5)
    curve = alpha_curves(factorise(centred_kernel(X)[0]), held_out, {"one": Y}, (1e-3, 1.0, 1e6))["one"]
    for alpha, r2 in zip(curve.alphas, curve.r2, strict=True):
        predicted, true = refit(X, Y, held_out, alpha)
        assert r2 == pytest.approx(1 - np.sum((true - predicted) ** 2) / np.sum(true**2), abs=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
@pytest.mark.parametrize("ids", [np.arange(60), np.arange(60)[::-1] // 3], ids=["single", "repeats"])
def test_leaving_out_equals_refitting(problem, ids, dtype, tolerance):
    X, Y, _, factorisation = problem
    operator = leave_out_operator(factorisation, ids, 10.0)
    expected, _ = refit(X, Y, [np.flatnonzero(ids == i) for i in np.unique(ids)], 10.0)
    np.testing.assert_allclose(operator @ Y, expected, atol=1e-9)
    predicted, true = leave_out_moments(operator, Y.astype(dtype))
    np.testing.assert_allclose(predicted, (expected**2).mean(axis=0), rtol=tolerance, atol=1e-15)
    np.testing.assert_allclose(true, Y.var(axis=0), rtol=tolerance, atol=1e-15)


def test_order_of_the_grid_does_not_matter(problem):
    _, Y, held_out, factorisation = problem
    curves = [alpha_curves(factorisation, held_out, {"one": Y}, grid) for grid in (ALPHAS, ALPHAS[::-1])]
    assert curves[0] == curves[1]


def test_sampled_targets_are_seeded_and_near_the_whole(problem):
    _, Y, held_out, factorisation = problem
    wide = np.repeat(Y, 100, axis=1) + np.random.default_rng(0).standard_normal((60, 800))
    whole, first, again, other = (
        alpha_curves(factorisation, held_out, {"one": wide}, ALPHAS, sampled, seed)["one"]
        for sampled, seed in [(800, 0), (200, 1), (200, 1), (200, 2)]
    )
    assert first == again != other
    assert (first.targets, whole.targets) == (200, 800)
    assert first.best == whole.best
    np.testing.assert_allclose(first.r2, whole.r2, atol=0.05)


def test_equal_scores_prefer_the_larger_alpha():
    assert AlphaCurve((1.0, 2.0, 3.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.0), 1).best == 3.0


def test_edge_of_the_grid():
    assert AlphaCurve((1.0, 2.0, 3.0), (0.0, 0.5, 0.6), (0.0,) * 3, 1).at_edge
    assert not AlphaCurve((1.0, 2.0, 3.0), (0.0, 0.5, 0.4), (0.0,) * 3, 1).at_edge


def test_constant_latent_has_zero_scores(problem):
    _, Y, held_out, factorisation = problem
    curve = alpha_curves(factorisation, held_out, {"one": np.full((60, 3), 0.1), "other": Y}, ALPHAS)["one"]
    assert curve.r2 == curve.correlation == (0.0,) * 4


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_split_images_once_and_keep_repeats_together(ids, folds, seed):
    ids = np.array(ids)
    if folds > len(np.unique(ids)):
        with pytest.raises(InputError, match="at most one fold per image"):
            split_folds(ids, folds, seed)
        return
    held_out = split_folds(ids, folds, seed)
    assert sorted(np.concatenate(held_out).tolist()) == list(range(len(ids)))
    images = [set(ids[rows].tolist()) for rows in held_out]
    assert sum(map(len, images)) == len(np.unique(ids))
    assert max(map(len, images)) - min(map(len, images)) <= 1


def test_refuses_one_fold():
    with pytest.raises(InputError, match="folds is 1, expected at least 2"):
        split_folds(np.arange(5), 1)

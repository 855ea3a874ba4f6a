"""Closed forms of leaving out images against scikit-learn models refitted without them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from unibrain.errors import InputError
from unibrain.regression.left_out import (
    deviation_rows,
    leave_out_operator,
    left_out_residuals,
    residual_rows,
)
from unibrain.regression.ridge import centred_kernel, factorise
from unibrain.regression.splits import BATCH_ROWS, batches, split_folds, split_images


def problem(n=40, p=60, t=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 3
    Y = X @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n, t)) - 7
    return X, Y, factorise(centred_kernel(X)[0])


def residuals(factorisation, held_out, alpha, Y):
    return left_out_residuals(factorisation, held_out, alpha, factorisation.eigenvectors.T @ (Y - Y.mean(axis=0)))


@pytest.mark.parametrize("alpha", [1e-2, 1.0, 100.0, 1e6])
@pytest.mark.parametrize("shape", [(40, 60), (40, 6), (40, 40)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_one_image_left_out_equals_leave_one_group_out(shape, repeats, alpha):
    X, Y, factorisation = problem(*shape)
    ids = np.random.default_rng(1).permutation(len(X)) // repeats
    predicted = cross_val_predict(Ridge(alpha, solver="cholesky"), X, Y, groups=ids, cv=LeaveOneGroupOut())
    found = Y - residuals(factorisation, split_images(ids, "loo"), alpha, Y)
    np.testing.assert_allclose(found, predicted, atol=1e-8)


@pytest.mark.parametrize("alpha", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(40, 60), (40, 6)], ids=["wide", "tall"])
def test_folds_equal_group_k_fold(shape, alpha):
    X, Y, factorisation = problem(*shape)
    ids = np.random.default_rng(2).integers(0, 15, len(X))
    splitter = GroupKFold(4)
    held_out = [test for _, test in splitter.split(X, groups=ids)]
    predicted = cross_val_predict(Ridge(alpha, solver="cholesky"), X, Y, groups=ids, cv=splitter)
    np.testing.assert_allclose(Y - residuals(factorisation, held_out, alpha, Y), predicted, atol=1e-8)


def test_squared_errors_equal_those_of_ridge_cv():
    X, Y, factorisation = problem(30, 50)
    alphas = (0.1, 10.0, 1000.0)
    model = RidgeCV(alphas, store_cv_results=True, scoring=None).fit(X, Y)
    for step, alpha in enumerate(alphas):
        found = residuals(factorisation, split_images(np.arange(30), "loo"), alpha, Y) ** 2
        np.testing.assert_allclose(found, model.cv_results_[:, :, step], atol=1e-8)


def test_nothing_of_an_image_enters_its_own_prediction():
    _, Y, factorisation = problem()
    ids = np.arange(40) // 2
    changed = Y.copy()
    changed[ids == 7] += 1000.0
    held_out = split_images(ids, "loo")
    before, after = (y - residuals(factorisation, held_out, 5.0, y) for y in (Y, changed))
    np.testing.assert_allclose(after[ids == 7], before[ids == 7], atol=1e-8)
    assert np.abs(after[ids != 7] - before[ids != 7]).max() > 0.1


@pytest.mark.parametrize("scheme", ["loo", 3, 7])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_operators_of_some_rows_agree_with_residuals_of_all(scheme, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(14, 30))
    _, Y, factorisation = problem(n, int(rng.integers(2, 50)), 2, seed)
    ids = rng.permutation(np.concatenate([np.arange(8), rng.integers(0, 8, n - 8)]))
    rows = rng.permutation(n)[: int(rng.integers(1, n))]
    held_out = split_images(ids, scheme)
    alpha = float(10 ** rng.uniform(-1, 4))
    expected = residuals(factorisation, held_out, alpha, Y)[rows]
    operator = residual_rows(factorisation, held_out, alpha, rows)
    np.testing.assert_allclose(operator @ Y, expected, atol=1e-8)
    np.testing.assert_allclose(operator.sum(axis=1), 0, atol=1e-10)
    group = {row: set(rows.tolist()) for rows in held_out for row in rows.tolist()}
    means = np.array([Y[[i for i in range(n) if i not in group[row]]].mean(axis=0) for row in rows.tolist()])
    np.testing.assert_allclose(deviation_rows(held_out, n, rows) @ Y, Y[rows] - means, atol=1e-10)


@pytest.mark.parametrize("ids", [np.arange(40), np.arange(40)[::-1] // 3], ids=["single", "repeats"])
@pytest.mark.parametrize("rows", [None, np.array([30, 2, 11, 12])], ids=["all", "some"])
def test_leaving_an_image_out_equals_refitting(ids, rows):
    X, Y, factorisation = problem()
    expected = cross_val_predict(Ridge(10.0), X, Y, groups=ids, cv=LeaveOneGroupOut())
    expected -= np.array([Y[ids != i].mean(axis=0) for i in ids])
    expected = expected if rows is None else expected[rows]
    operator = leave_out_operator(factorisation, ids, 10.0, rows)
    np.testing.assert_allclose(operator @ Y, expected, atol=1e-9)


@pytest.mark.parametrize("scheme", ["loo", 5])
def test_single_precision_is_near(scheme):
    _, Y, factorisation = problem(200, 300)
    held_out = split_images(np.arange(200), scheme)
    rotated = factorisation.eigenvectors.T @ (Y - Y.mean(axis=0))
    for alpha in (10.0, 1000.0):
        exact = left_out_residuals(factorisation, held_out, alpha, rotated)
        single = left_out_residuals(factorisation, held_out, alpha, rotated.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("scheme", ["loo", 2, 5])
@pytest.mark.parametrize("repeats", [1, 2])
def test_refuses_an_alpha_that_only_rounding_would_answer(scheme, repeats):
    _, Y, factorisation = problem(20, 50)
    held_out = split_images(np.arange(20) // repeats, scheme)
    with pytest.raises(InputError, match="alpha 1e-13 is too small"):
        residuals(factorisation, held_out, 1e-13, Y)
    with pytest.raises(InputError, match="alpha 1e-13 is too small"):
        residual_rows(factorisation, held_out, 1e-13, np.arange(3))


# Splits


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


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60))
def test_leaving_out_one_image_takes_all_its_repeats(ids):
    ids = np.array(ids)
    if len(np.unique(ids)) < 2:
        with pytest.raises(InputError, match="1 training images, expected at least two"):
            split_images(ids, "loo")
        return
    held_out = split_images(ids, "loo")
    assert sorted(np.concatenate(held_out).tolist()) == list(range(len(ids)))
    assert all(len(np.unique(ids[rows])) == 1 for rows in held_out)
    assert len(held_out) == len(np.unique(ids))


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_batches_hold_every_group_once(sizes):
    edges = np.concatenate([[0], np.cumsum(sizes)])
    held_out = [np.arange(start, stop) for start, stop in pairwise(edges)]
    found = [tuple(rows.tolist()) for batch in batches(held_out) for rows in batch]
    assert sorted(found) == sorted(tuple(rows.tolist()) for rows in held_out)
    assert all(batch.size <= BATCH_ROWS or len(batch) == 1 for batch in batches(held_out))


def test_refuses_schemes():
    with pytest.raises(InputError, match="folds is 1, expected at least 2"):
        split_folds(np.arange(5), 1)
    for scheme in ("kfold", 2.5, True, None):
        with pytest.raises(InputError, match="expected a number of folds or 'loo'"):
            split_images(np.arange(5), scheme)

"""Closed forms of leaving out images against scikit-learn models refitted without them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from unibrain.errors import InputError
from unibrain.regression.leave_out import (
    BATCH_ROWS,
    batches,
    deviation_operator,
    left_out_operator,
    left_out_residuals,
    sample_rows,
    split_images,
)
from unibrain.regression.ridge import centred_kernel, factorise_once, factorise_scans


def problem(n=40, p=60, t=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 3
    Y = X @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n, t)) - 7
    return X, Y, factorise_scans(X)[0]


def residuals(factorisation, held_out, alpha, Y, dtype=np.float64):
    centred = (Y - Y.mean(axis=0)).astype(dtype)
    rotated = centred.T @ factorisation.basis
    beside = (centred - factorisation.basis @ rotated.T).astype(dtype)
    found = np.empty(Y.shape, dtype)
    for rows, own in left_out_residuals(factorisation, held_out, alpha, rotated, beside):
        found[rows] = own
    return found


@pytest.mark.parametrize("alpha", [1e-2, 100.0])
@pytest.mark.parametrize("shape", [(40, 60), (40, 6), (40, 40)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_one_image_left_out_equals_leave_one_group_out(shape, repeats, alpha):
    X, Y, factorisation = problem(*shape)
    ids = np.random.default_rng(1).permutation(len(X)) // repeats
    predicted = cross_val_predict(Ridge(alpha, solver="cholesky"), X, Y, groups=ids, cv=LeaveOneGroupOut())
    found = Y - residuals(factorisation, split_images(ids, "loo"), alpha, Y)
    np.testing.assert_allclose(found, predicted, atol=1e-8)


@pytest.mark.parametrize("alpha", [1e-2, 1e4])
@pytest.mark.parametrize("shape", [(40, 60), (40, 6)], ids=["wide", "tall"])
def test_folds_equal_group_k_fold(shape, alpha):
    X, Y, factorisation = problem(*shape)
    ids = np.random.default_rng(2).integers(0, 15, len(X))
    splitter = GroupKFold(4)
    held_out = [test for _, test in splitter.split(X, groups=ids)]
    predicted = cross_val_predict(Ridge(alpha, solver="cholesky"), X, Y, groups=ids, cv=splitter)
    np.testing.assert_allclose(Y - residuals(factorisation, held_out, alpha, Y), predicted, atol=1e-8)


@pytest.mark.parametrize("scheme", ["loo", 3, 7])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_operators_of_some_rows_agree_with_residuals_of_all(scheme, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(14, 30))
    X, Y, factorisation = problem(n, int(rng.integers(2, 50)), 2, seed)
    ids = rng.permutation(np.concatenate([np.arange(8), rng.integers(0, 8, n - 8)]))
    rows = rng.permutation(n)[: int(rng.integers(1, n))]
    held_out = split_images(ids, scheme)
    alpha = float(10 ** rng.uniform(-1, 4))
    group = {row: set(rows.tolist()) for rows in held_out for row in rows.tolist()}
    means = np.array([Y[[i for i in range(n) if i not in group[row]]].mean(axis=0) for row in rows.tolist()])
    np.testing.assert_allclose(deviation_operator(held_out, n, rows) @ Y, Y[rows] - means, atol=1e-10)
    expected = Y[rows] - means - residuals(factorisation, held_out, alpha, Y)[rows]
    # Rounding grows with the condition of the kernel: the worst of 4,500 draws was 830 times precision times it.
    rounding = 2000 * np.finfo(float).eps * (1 + np.linalg.eigvalsh(centred_kernel(X)[0])[-1] / alpha)
    for solver in (factorisation, factorise_once(centred_kernel(X)[0], alpha)):
        operator = left_out_operator(solver, held_out, alpha, rows)
        np.testing.assert_allclose(operator @ Y, expected, atol=1e-8)
        np.testing.assert_allclose(operator.sum(axis=1), 0, atol=rounding)


@pytest.mark.parametrize("scheme", ["loo", 5])
def test_single_precision_is_near(scheme):
    _, Y, factorisation = problem(200, 300)
    held_out = split_images(np.arange(200), scheme)
    for alpha in (0.1, 10.0, 1000.0):
        exact, single = (residuals(factorisation, held_out, alpha, Y, dtype) for dtype in (np.float64, np.float32))
        np.testing.assert_allclose(single, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("scheme", ["loo", 2, 5])
@pytest.mark.parametrize("repeats", [1, 2])
def test_refuses_an_alpha_that_only_rounding_would_answer(scheme, repeats):
    _, Y, factorisation = problem(20, 50)
    held_out = split_images(np.arange(20) // repeats, scheme)
    with pytest.raises(InputError, match="1e-13"):
        residuals(factorisation, held_out, 1e-13, Y)
    with pytest.raises(InputError, match="1e-13"):
        left_out_operator(factorisation, held_out, 1e-13, np.arange(3))


# Splits


@pytest.mark.parametrize("scheme", ["loo", 2, 3, 6])
@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(0, 99))
def test_images_are_split_once_and_repeats_stay_together(scheme, ids, seed):
    ids = np.array(ids)
    images = len(np.unique(ids))
    if images < (2 if scheme == "loo" else scheme):
        with pytest.raises(InputError, match=str(images)):
            split_images(ids, scheme, seed)
        return
    held_out = split_images(ids, scheme, seed)
    assert sorted(np.concatenate(held_out).tolist()) == list(range(len(ids)))
    found = [set(ids[rows].tolist()) for rows in held_out]
    assert sum(map(len, found)) == images
    assert len(found) == (images if scheme == "loo" else scheme)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_seeds_give_the_folds_that_they_always_gave():
    ids = np.array([5, 3, 5, 9, 1, 7, 3, 2])
    assert [rows.tolist() for rows in split_images(ids, 3, 4)] == [[1, 3, 6], [4, 5], [0, 2, 7]]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_batches_hold_every_group_once(sizes):
    edges = np.concatenate([[0], np.cumsum(sizes)])
    held_out = [np.arange(start, stop) for start, stop in pairwise(edges)]
    found = [tuple(rows.tolist()) for batch in batches(held_out) for rows in batch]
    assert sorted(found) == sorted(tuple(rows.tolist()) for rows in held_out)
    assert all(batch.size <= BATCH_ROWS or len(batch) == 1 for batch in batches(held_out))


@given(st.lists(st.integers(0, 9), min_size=4, max_size=50), st.integers(2, 12), st.integers(0, 50))
def test_sampled_images_come_with_all_their_rows(ids, images, seed):
    ids = np.array(ids)
    rows = sample_rows(ids, images, seed)
    chosen = np.unique(ids[rows])
    assert len(chosen) == min(images, len(np.unique(ids)))
    assert rows.tolist() == np.flatnonzero(np.isin(ids, chosen)).tolist()


@pytest.mark.parametrize("scheme", [1, 0, -3, 6, 10**400, "kfold", 2.5, True, None])
def test_refuses_schemes(scheme):
    with pytest.raises(InputError, match=repr(scheme)[:30]):
        split_images(np.arange(5), scheme)

"""Dual ridge against scikit-learn, himalaya and a plain solve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.regression.ridge import (
    apply_operator,
    centred_kernel,
    column_blocks,
    cross_kernel,
    factorise,
    prediction_operator,
)


def make(n, p, t, dtype=np.float64, m=7, seed=0):
    rng = np.random.default_rng(seed)
    X, X_new = rng.standard_normal((n, p)) + 3, rng.standard_normal((m, p)) + 3
    Y = X @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n, t)) - 5
    return X.astype(dtype), Y.astype(dtype), X_new.astype(dtype)


def predict(X, Y, X_new, alpha, gain=None, block_bytes=2**26):
    kernel, mean = centred_kernel(X)
    factorisation = factorise(kernel)
    operator = factorisation.operator(factorisation.project(cross_kernel(X_new, X, mean)), alpha)
    return apply_operator(operator, Y, gain, block_bytes)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
@pytest.mark.parametrize(("n", "p", "t"), [(30, 200, 11), (200, 30, 11), (40, 40, 1), (2, 5, 3), (50, 1, 2)])
@pytest.mark.parametrize("alpha", [0.1, 30.0, 1e5])
def test_equals_scikit_learn(n, p, t, alpha, dtype, tolerance):
    X, Y, X_new = make(n, p, t, dtype)
    found = predict(X, Y, X_new, alpha)
    expected = Ridge(alpha).fit(X.astype(np.float64), Y.astype(np.float64)).predict(X_new.astype(np.float64))
    assert found.dtype == dtype
    assert relative(found, expected.reshape(found.shape)) < tolerance


def test_equals_himalaya():
    # himalaya is not a dependency of the package, only a second opinion where it is installed for the tests.
    kernel_ridge = pytest.importorskip("himalaya.kernel_ridge")
    X, Y, X_new = make(40, 90, 6)
    X_mean, Y_mean = X.mean(axis=0), Y.mean(axis=0)
    model = kernel_ridge.KernelRidge(alpha=12.0, kernel="linear").fit(X - X_mean, Y - Y_mean)
    assert relative(predict(X, Y, X_new, 12.0), model.predict(X_new - X_mean) + Y_mean) < 1e-10


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 25),
    p=st.integers(1, 25),
    t=st.integers(1, 6),
    m=st.integers(1, 4),
    log_alpha=st.floats(-1, 6),
    seed=st.integers(0, 10_000),
)
def test_equals_scikit_learn_for_any_shape(n, p, t, m, log_alpha, seed):
    X, Y, X_new = make(n, p, t, m=m, seed=seed)
    expected = Ridge(10**log_alpha, solver="svd").fit(X, Y).predict(X_new).reshape(m, t)
    assert relative(predict(X, Y, X_new, 10**log_alpha), expected) < 1e-10


def test_constant_columns():
    X, Y, X_new = make(30, 12, 4)
    X[:, 3], Y[:, 1] = 7.5, -2.25
    found = predict(X, Y, X_new, 5.0)
    assert relative(found, Ridge(5.0).fit(X, Y).predict(X_new)) < 1e-10
    np.testing.assert_allclose(found[:, 1], -2.25, rtol=1e-14)


def test_float16_targets_are_multiplied_in_float32():
    X, Y, X_new = make(60, 20, 3)
    half = Y.astype(np.float16)
    found = predict(X, half, X_new, 5.0)
    assert found.dtype == np.float32
    assert relative(found, Ridge(5.0).fit(X, half.astype(np.float64)).predict(X_new)) < 1e-5


def test_memory_map_in_blocks_equals_array_at_once(tmp_path):
    X, Y, X_new = make(30, 50, 23, np.float32)
    np.save(tmp_path / "targets.npy", Y)
    mapped = np.load(tmp_path / "targets.npy", mmap_mode="r")
    np.testing.assert_allclose(predict(X, mapped, X_new, 5.0, block_bytes=1000), predict(X, Y, X_new, 5.0), rtol=1e-5)


def test_gain_multiplies_the_deviation_from_the_training_mean():
    X, Y, X_new = make(30, 50, 3)
    plain, scaled = predict(X, Y, X_new, 5.0), predict(X, Y, X_new, 5.0, gain=np.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(scaled - Y.mean(axis=0), (plain - Y.mean(axis=0)) * [1, 2, 0], atol=1e-12)


def test_kernel_over_several_blocks_of_voxels(monkeypatch):
    X, _, X_new = make(20, 500, 1)
    # The defaults hold all 500 voxels at once; ten at a time must add up to the same kernels.
    monkeypatch.setattr(
        "unibrain.regression.ridge.column_blocks", lambda rows, p: column_blocks(rows, p, 8 * rows * 10)
    )
    kernel, mean = centred_kernel(X)
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(kernel, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(cross_kernel(X_new, X, mean), (X_new - X.mean(axis=0)) @ centred.T, atol=1e-10)


@given(rows=st.integers(1, 50), columns=st.integers(1, 300), block_bytes=st.integers(1, 10_000))
def test_blocks_cover_every_column_once(rows, columns, block_bytes):
    blocks = list(column_blocks(rows, columns, block_bytes))
    assert np.concatenate([np.arange(columns)[block] for block in blocks]).tolist() == list(range(columns))
    assert all((b.stop - b.start) * rows * 8 <= block_bytes or b.stop - b.start == 1 for b in blocks)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_refuses_alpha(alpha):
    X, Y, X_new = make(5, 4, 1)
    with pytest.raises(InputError, match="alpha is"):
        predict(X, Y, X_new, alpha)


@pytest.mark.parametrize("alpha", [0.1, 30.0, 1e5])
def test_one_alpha_equals_the_eigendecomposition(alpha):
    X, _, X_new = make(40, 25, 1)
    kernel, mean = centred_kernel(X)
    cross = cross_kernel(X_new, X, mean)
    factorisation = factorise(kernel)
    found = prediction_operator(kernel, cross, alpha)
    assert relative(found, factorisation.operator(factorisation.project(cross), alpha)) < 1e-9

"""Dual ridge against scikit-learn and a plain solve."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.regression import BrainDecoder
from unibrain.regression.narrow import WIDTH, Root, narrow
from unibrain.regression.ridge import (
    CPU,
    CholeskyFactor,
    Factorisation,
    TorchBackend,
    centred_kernel,
    choose_backend,
    cross_kernel,
    factorise,
    factorise_once,
    factorise_scans,
)
from unibrain.regression.targets import Operators, Targets, products


def make(n, p, t, dtype=np.float64, m=7, seed=0):
    rng = np.random.default_rng(seed)
    X, X_new = rng.standard_normal((n, p)) + 3, rng.standard_normal((m, p)) + 3
    Y = X @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n, t)) - 5
    return X.astype(dtype), Y.astype(dtype), X_new.astype(dtype)


def predict(X, Y, X_new, alpha, memory=2e9, once=False):
    kernel, mean = centred_kernel(X)
    solver = factorise_once(kernel, alpha) if once else factorise_scans(X)[0]
    targets = Targets(Y, "y", np.arange(len(Y)))
    by_alpha = solver.operators(cross_kernel(X_new, X, mean), [alpha])
    return multiply(Operators(by_alpha, np.array([alpha]), targets.compute, CPU), targets, memory)


def multiply(operators, targets, memory=2e9):
    found = np.empty((operators.rows - 1, targets.shape[1]), targets.compute)
    for block, centred, mean, _ in products(operators, targets, memory):
        found[:, block] = centred + mean
    return found


def whole_band(band):
    """Without the code's own blocks: row i of the band's two halves begins at the columns of its block."""
    whole = np.zeros((len(band), len(band) + WIDTH))
    for row, values in enumerate(band):
        start = row // WIDTH * WIDTH
        if row >= WIDTH:
            whole[row, start - WIDTH : start] = values[:WIDTH]
        whole[row, start : start + WIDTH] = values[WIDTH:]
    lower = np.tril(whole[:, : len(band)])
    return lower + np.tril(lower, -1).T


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
@pytest.mark.parametrize(("n", "p", "t"), [(30, 200, 11), (200, 30, 11), (40, 40, 1), (2, 5, 3), (50, 1, 2)])
@pytest.mark.parametrize("alpha", [0.1, 1e5])
@pytest.mark.parametrize("once", [False, True], ids=["basis", "cholesky"])
def test_equals_scikit_learn(n, p, t, alpha, dtype, tolerance, once):
    X, Y, X_new = make(n, p, t, dtype)
    found = predict(X, Y, X_new, alpha, once=once)
    expected = Ridge(alpha).fit(X.astype(np.float64), Y.astype(np.float64)).predict(X_new.astype(np.float64))
    assert found.dtype == dtype
    assert relative(found, expected.reshape(found.shape)) < tolerance


def test_constant_columns():
    X, Y, X_new = make(30, 12, 4)
    X[:, 3], Y[:, 1] = 7.5, -2.25
    found = predict(X, Y, X_new, 5.0)
    assert relative(found, Ridge(5.0).fit(X, Y).predict(X_new)) < 1e-10
    np.testing.assert_allclose(found[:, 1], -2.25, rtol=1e-14)


@pytest.mark.parametrize(
    ("scale", "complete"),
    [
        pytest.param([1.0] * 12, False, id="few voxels"),
        pytest.param([1.0] * 6 + [0.0] * 6, False, id="half of them silent"),
        pytest.param([1.0] * 11 + [1e-5], True, id="a faint one"),
        pytest.param([0.0] * 12, True, id="all silent"),
    ],
)
def test_few_voxels_are_decomposed_by_their_products(scale, complete):
    X = make(40, 12, 1)[0] * scale + 1
    found, mean = factorise_scans(X)
    kernel, expected = centred_kernel(X)
    assert found.complete == complete
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    unit, rebuilt = found.basis, found.basis @ whole_band(found.band) @ found.basis.T
    np.testing.assert_allclose(rebuilt, kernel, atol=1e-12 * max(1, kernel.max()))
    np.testing.assert_allclose(unit.T @ unit, np.eye(unit.shape[1]), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 2 * WIDTH + 1, 5 * WIDTH - 3])
@pytest.mark.parametrize("p", [1, 3, 1000], ids=["rank one", "low rank", "full rank"])
def test_a_band_in_its_basis_is_the_kernel_and_its_root_solves_it(n, p):
    X = np.random.default_rng(n).standard_normal((n, p))
    kernel = X @ X.T
    basis, band = narrow(kernel.copy())
    whole = whole_band(band)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(basis @ whole @ basis.T, kernel, atol=1e-13 * kernel.max())
    penalised, right = whole + 0.5 * np.eye(n), X[:, :5].T
    root = Root.of(band, 0.5)
    np.testing.assert_allclose(root.whole(right.copy()) @ penalised, right, atol=1e-9)
    half = root.half(right.copy())
    np.testing.assert_allclose(half @ half.T, right @ np.linalg.inv(penalised) @ right.T, atol=1e-9)


def test_kernel_over_several_blocks_of_voxels(monkeypatch):
    X, _, X_new = make(20, 500, 1)
    # The defaults hold all 500 voxels at once; ten at a time must add up to the same kernels.
    monkeypatch.setattr("unibrain.regression.ridge.BLOCK_BYTES", 8 * 20 * 10)
    kernel, mean = centred_kernel(X)
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(kernel, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(cross_kernel(X_new, X, mean), (X_new - X.mean(axis=0)) @ centred.T, atol=1e-10)


def test_a_penalty_too_small_for_a_cholesky_factor_is_decomposed():
    kernel, _ = centred_kernel(make(40, 25, 1)[0])
    assert isinstance(factorise_once(kernel.copy(), 1e-13), Factorisation)
    once = factorise_once(kernel, 2.0)
    assert isinstance(once, CholeskyFactor)
    with pytest.raises(InputError, match=r"3.*2"):
        once.operators(np.ones((1, 40)), [3.0])


@pytest.mark.parametrize("p", [200, 400], ids=["fewer voxels", "more voxels"])
def test_several_penalties_however_small_predict_in_the_limit(p):
    # Of this seed's 300 scans and 400 voxels, the kernel has no Cholesky factor with so small a penalty.
    X, Y, X_new = make(300, p, 5, seed=2)
    decoder = BrainDecoder(alpha={"least": 1e-13, "mild": 2.0}, rescale="none").fit(X, {"least": Y, "mild": Y})
    found = decoder.predict(X_new)
    weights = np.linalg.pinv(X - X.mean(axis=0), rcond=1e-10) @ (Y - Y.mean(axis=0))
    assert relative(found["least"], (X_new - X.mean(axis=0)) @ weights + Y.mean(axis=0)) < 1e-6
    assert relative(found["mild"], Ridge(2.0).fit(X, Y).predict(X_new)) < 1e-6


@pytest.mark.parametrize("layout", ["runs", "scattered"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
def test_an_alpha_per_target_equals_scikit_learn(layout, dtype, tolerance):
    X, Y, X_new = make(60, 90, 12, dtype)
    alpha = np.repeat([0.5, 20.0, 4e3], 4)
    if layout == "scattered":
        alpha = np.random.default_rng(0).permutation(alpha)
    kernel, mean = centred_kernel(X)
    by_alpha = factorise(kernel).operators(cross_kernel(X_new, X, mean), np.unique(alpha))
    operators = Operators(by_alpha, alpha, np.dtype(dtype), CPU)
    found = multiply(operators, Targets(Y, "y", np.arange(60)))
    wide = X.astype(float), Y.astype(float), X_new.astype(float)
    assert relative(found, Ridge(alpha).fit(wide[0], wide[1]).predict(wide[2])) < tolerance


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pytorch_computes_the_same(dtype):
    X, Y, X_new = make(50, 80, 30)
    Y, torch = Y.astype(dtype), TorchBackend("cpu")
    kernel, mean = centred_kernel(X)
    again, again_mean = centred_kernel(X, backend=torch)
    np.testing.assert_allclose(again, kernel, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(again_mean, mean)
    cross = cross_kernel(X_new, X, mean)
    np.testing.assert_allclose(cross_kernel(X_new, X, mean, backend=torch), cross, rtol=1e-12, atol=1e-10)
    expected = factorise(kernel).operators(cross, [7.0])
    for solver in (factorise(kernel, torch), factorise_once(kernel.copy(), 7.0, torch)):
        assert relative(solver.operators(cross, [7.0])[7.0], expected[7.0]) < 1e-10
    targets = Targets(Y, "y", np.arange(50))
    one, other = (
        next(products(Operators(expected, np.array([7.0]), targets.compute, backend), targets, 2e9))[1]
        for backend in (CPU, torch)
    )
    np.testing.assert_allclose(other, one, atol=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:77", "cuda:" + "9" * 400])
def test_refuses_devices_that_are_not_there(device):
    with pytest.raises(InputError, match=device):
        choose_backend(device)

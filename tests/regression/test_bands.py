"""Banded ridge against scikit-learn's Ridge on scaled voxels; shares against himalaya; bands made of regions."""

import numpy as np
import pytest
from himalaya.scoring import r2_score_split
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.regression.bands import (
    OTHER,
    choose_bands,
    dirichlet_weights,
    left_out_band_predictions,
    make_bands,
    split_r2,
    voxel_scale,
)
from unibrain.regression.leave_out import split_images
from unibrain.regression.ridge import centred_kernel
from unibrain.regression.targets import training_targets

ALPHAS = np.logspace(-1, 4, 6)
SIZES = {"early": 12, "ventral": 20, "other": 48}


def masks(sizes=SIZES):
    band_of = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    order = np.random.default_rng(0).permutation(len(band_of))
    return {band: band_of[order] == number for number, band in enumerate(sizes)}


@pytest.fixture(scope="module")
def problem():
    """Scans in which ``early`` carries the first latent, ``ventral`` the second, and ``other`` is noise."""
    rng = np.random.default_rng(1)
    bands = masks()
    X = rng.standard_normal((80, 80)) + 1
    early, ventral = X[:, bands["early"]], X[:, bands["ventral"]]
    first = early @ rng.standard_normal((12, 6)) + 2 * rng.standard_normal((80, 6)) + 3
    second = ventral @ rng.standard_normal((20, 4)) + 2 * rng.standard_normal((80, 4)) - 5
    return X, bands, {"z_image": first, "c_text": second.reshape(80, 2, 2)}


def band_kernels(X, bands):
    return {band: centred_kernel(X[:, mask])[0] for band, mask in bands.items()}


def matrices(targets):
    return {name: Y.reshape(80, -1) for name, Y in targets.items()}


def left_out(X, Y, held_out, alpha):
    """Out-of-fold predictions, truth, and weights of each fold's ridge, less the mean of the rows kept."""
    predicted, true, coefficients = np.zeros_like(Y), np.zeros_like(Y), []
    for rows in held_out:
        train = np.setdiff1d(np.arange(len(X)), rows)
        model = Ridge(alpha).fit(X[train], Y[train])
        mean = Y[train].mean(axis=0)
        predicted[rows], true[rows] = model.predict(X[rows]) - mean, Y[rows] - mean
        coefficients.append((rows, model.coef_, X[train].mean(axis=0)))
    return predicted, true, coefficients


def test_curves_equal_ridge_on_scaled_voxels(problem):
    X, bands, targets = problem
    ids = np.arange(80) // 2
    choice = choose_bands(band_kernels(X, bands), training_targets(targets, ids), ALPHAS, candidates=4, scheme=4)
    held_out = split_images(ids, 4)
    for candidate, weights in enumerate(choice.candidates):
        scaled = X * voxel_scale(bands, weights)
        for latent, Y in enumerate(matrices(targets).values()):
            for step, alpha in enumerate(ALPHAS):
                predicted, true, _ = left_out(scaled, Y, held_out, alpha)
                expected = 1 - np.sum((true - predicted) ** 2) / np.sum(true**2)
                assert choice.r2[candidate, latent, step] == pytest.approx(expected, abs=1e-8)
    best = choice.r2.max(axis=2)
    np.testing.assert_array_equal(choice.chosen, np.argmax(best, axis=0))
    np.testing.assert_array_equal(choice.best_r2, best.max(axis=0))
    for penalties, weights, alpha in zip(choice.penalties, choice.weights, choice.alpha, strict=True):
        np.testing.assert_allclose(penalties[weights > 0], alpha / weights[weights > 0])
        assert np.isinf(penalties[weights == 0]).all()
    # It does not say that bands are better than one penalty: on these folds the best of many always is.
    assert not hasattr(choice, "plain_r2")


# Which band carries what


@pytest.mark.parametrize("scheme", ["loo", 4])
@pytest.mark.parametrize("repeats", [1, 3])
def test_left_out_parts_equal_refitting(problem, scheme, repeats):
    X, bands, targets = problem
    Y, weights, alpha = targets["z_image"], np.array([0.4, 2.0, 0.6]), 30.0
    held_out = split_images(np.random.default_rng(2).permutation(80) // repeats, scheme)
    kernels = list(band_kernels(X, bands).values())
    true, parts = left_out_band_predictions(kernels, weights, alpha, held_out, Y - Y.mean(axis=0))
    scaled = X * voxel_scale(bands, weights)
    predicted, expected_true, models = left_out(scaled, Y, held_out, alpha)
    np.testing.assert_allclose(true, expected_true, atol=1e-10)
    np.testing.assert_allclose(sum(parts), predicted, atol=1e-8)
    for part, mask in zip(parts, bands.values(), strict=True):
        expected = np.empty_like(Y)
        for rows, coefficients, mean in models:
            expected[rows] = (scaled[rows] - mean)[:, mask] @ coefficients[:, mask].T
        np.testing.assert_allclose(part, expected, atol=1e-8)


def test_split_equals_himalaya():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((50, 7))
    true -= true.mean(axis=0)
    parts = 0.3 * rng.standard_normal((3, 50, 7)) + 0.2 * true
    pooled = split_r2(true, list(parts))
    split = r2_score_split(true, parts)
    np.testing.assert_allclose(pooled, (split * np.sum(true**2, axis=0)).sum(axis=1) / np.sum(true**2), atol=1e-12)
    assert pooled.sum() == pytest.approx(1 - np.sum((true - parts.sum(axis=0)) ** 2) / np.sum(true**2))
    assert split_r2(np.zeros((4, 2)), [np.zeros((4, 2))] * 3).tolist() == [0.0] * 3


def test_planted_bands_carry_their_latents_and_noise_carries_nothing(problem):
    X, bands, targets = problem
    choice = choose_bands(band_kernels(X, bands), training_targets(targets), ALPHAS, candidates=30)
    np.testing.assert_allclose(choice.shares.sum(axis=1), choice.best_r2, atol=1e-8)
    early, ventral, other = choice.shares.T
    assert min(early[0], ventral[1]) > 0.5
    assert (np.abs([*other, early[1], ventral[0]]) < 0.03).all()
    assert len(set(choice.chosen.tolist())) == 2
    # The bands that matter are penalised least.
    assert choice.penalties.argmin(axis=1).tolist() == [0, 1]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 10**6))
def test_candidates_are_weights(count, bands, seed):
    weights = dirichlet_weights(count, bands, seed)
    assert weights.shape == (count, bands)
    assert (weights[0] == 1).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1)
    np.testing.assert_array_equal(weights, dirichlet_weights(count, bands, seed))


# Bands made of regions


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 10**6))
def test_bands_hold_every_voxel_once(voxels, count, seed):
    rng = np.random.default_rng(seed)
    regions = {f"r{i}": rng.random(voxels) < 0.5 for i in range(count)}
    definition = {f"b{i}": [f"r{i}"] for i in range(count)}
    firsts = np.argmax([*regions.values(), np.ones(voxels, dtype=bool)], axis=0)
    if not set(range(count)) <= set(firsts.tolist()):
        with pytest.raises(InputError, match="no voxel"):
            make_bands(regions, definition, voxels)
        return
    bands = make_bands(regions, definition, voxels)
    assert (np.sum(list(bands.values()), axis=0) == 1).all()
    for number, band in enumerate([*definition, OTHER][: len(bands)]):
        np.testing.assert_array_equal(bands[band], firsts == number)
    assert (OTHER in bands) == (count in firsts)


V1, V2 = np.array([True, True, False]), np.array([False, True, True])


@pytest.mark.parametrize(
    ("regions", "definition", "named"),
    [
        ({"V1": V1, "V2": V2}, {"a": ["V1", "V9"]}, "V9"),
        ({"V1": V1, "V3": ~V1 & ~V2}, {"a": ["V1"], "c": ["V3"]}, "c"),
        ({"V1": V1}, {"a": ["V1"], "b": ["V1"]}, "b"),
        ({"V1": V1}, {"a": "V1"}, "'V1'"),
        ({"V1": V1}, {"a": []}, "a"),
        ({"V1": V1[:2]}, {"a": ["V1"]}, "3 voxels"),
        ({}, {"a": ["V1"]}, "regions"),
    ],
)
def test_refuses_bands(regions, definition, named):
    with pytest.raises(InputError, match=named):
        make_bands(regions, definition, 3)

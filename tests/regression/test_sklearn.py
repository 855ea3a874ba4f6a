"""`BrainDecoder` is an estimator for all of scikit-learn's tools."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored_targets import SHAPES, M, N, flat, make, same

from unibrain.errors import InputError
from unibrain.latents import Latents
from unibrain.regression import DEFAULT_ALPHAS, BrainDecoder


def cannot_apply(_):
    return {"check_fit2d_predict1d": "one scan alone, of shape (voxels,), may be predicted"}


@parametrize_with_checks([BrainDecoder()], expected_failed_checks=cannot_apply)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_parameters_clones_and_repr():
    decoder = BrainDecoder(alpha=7.0, folds=3)
    assert decoder.get_params() == {
        "alpha": 7.0,
        "alphas": DEFAULT_ALPHAS,
        "folds": 3,
        "rescale": "train",
        "sampled_targets": 512,
        "seed": 0,
        "verbose": False,
        "alpha_per": "latent",
        "bands": None,
        "memory": 2.0,
        "device": "cpu",
    }
    X, latents = make()
    copy = clone(decoder.fit(X, latents)).set_params(alpha=9.0)
    with pytest.raises(NotFittedError):
        copy.alpha_  # noqa: B018
    assert copy.fit(X, latents).alpha_ == dict.fromkeys(SHAPES, 9.0)
    assert clone(BrainDecoder(alpha={"y": 2.0})).alpha == {"y": 2.0}
    assert "folds=3" in repr(decoder)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4)])
def test_one_array_is_predicted_as_an_array(shape):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 20)), rng.standard_normal((50, *shape))
    decoder = BrainDecoder(alpha=3.0, rescale="none").fit(X[:40], Y[:40])
    found = decoder.predict(X[40:])
    expected = Ridge(3.0).fit(X[:40], Y[:40].reshape(40, -1)).predict(X[40:])
    assert (found.shape, found.dtype) == ((10, *shape), np.float64)
    np.testing.assert_allclose(found.reshape(10, -1), expected.reshape(10, -1), atol=1e-10)
    assert decoder.score(X[40:], Y[40:]) == pytest.approx(r2_score(Y[40:].reshape(10, -1), expected))


def test_any_names_are_predicted_as_they_were_given(data):
    X, latents = data
    ids = np.repeat(np.arange(N // 2), 2)
    mapping = {"mine.first": latents["c_image"][:N].astype(float), "mine": latents["z_text"][:N, 0].astype(float)}
    decoder = BrainDecoder().fit(X[:N], mapping, groups=[f"picture {i:03}" for i in ids])
    found = decoder.predict(X[N:])
    assert [(name, array.shape) for name, array in found.items()] == [("mine.first", (M, 3, 5)), ("mine", (M,))]
    as_latents = Latents(ids, {"mine.first": mapping["mine.first"], "mine": mapping["mine"]})
    same(BrainDecoder().fit(X[:N], as_latents).predict(X[N:], np.arange(M)), found, 0)
    alone = [
        r2_score(flat(latents, n)[N:, k], found[m].reshape(M, -1))
        for n, m, k in (("c_image", "mine.first", slice(None)), ("z_text", "mine", 0))
    ]
    true = {"mine": latents["z_text"][N:, 0], "mine.first": latents["c_image"][N:]}
    assert decoder.score(X[N:], true) == pytest.approx(np.mean(alone))
    with pytest.raises(InputError, match="mine"):
        decoder.score(X[N:], {"mine.first": true["mine.first"]})


def test_a_pipeline_scales_voxels(data):
    X, latents = data
    train = latents.rows(slice(0, N))
    pipeline = make_pipeline(StandardScaler(), BrainDecoder(alpha=5.0)).fit(X[:N] * 3 + 1, train)
    scaler = StandardScaler().fit(X[:N] * 3 + 1)
    expected = BrainDecoder(alpha=5.0).fit(scaler.transform(X[:N] * 3 + 1), train)
    same(pipeline.predict(X[N:] * 3 + 1), expected.predict(scaler.transform(X[N:] * 3 + 1)), 0)
    assert pipeline.score(X[N:] * 3 + 1, latents.rows(slice(N, None))) < 1


def test_a_grid_search_chooses_what_it_chooses_among_ridges(data):
    X, latents = data
    Y, groups, grid = flat(latents, "c_image").astype(float), np.arange(N + M) // 2, {"alpha": [1.0, 40.0, 1e3, 1e5]}
    ours, theirs = (
        GridSearchCV(model, grid, cv=GroupKFold(4)).fit(X, Y, groups=groups)
        for model in (BrainDecoder(rescale="none"), Ridge())
    )
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-6)


def test_cross_validated_predictions_are_those_of_ridge(data):
    X, latents = data
    Y = latents["c_text"].astype(float)
    found = cross_val_predict(BrainDecoder(alpha=10.0, rescale="none"), X, Y, cv=3)
    expected = cross_val_predict(Ridge(10.0), X, Y.reshape(len(Y), -1), cv=3)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
    scores = cross_val_score(BrainDecoder(alpha=10.0, rescale="none"), X, Y, cv=3)
    np.testing.assert_allclose(scores, cross_val_score(Ridge(10.0), X, Y.reshape(len(Y), -1), cv=3), rtol=1e-5)

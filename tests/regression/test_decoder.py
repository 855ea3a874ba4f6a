"""`BrainDecoder`: exactness, penalties, rescaling, bands, bad input, and scikit-learn's tools."""

import warnings
from collections import Counter

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from stored_targets import SHAPES, VOXELS, M, N, changed, flat, make, same

from unibrain.errors import InputError
from unibrain.latents import Latents
from unibrain.regression import BrainDecoder
from unibrain.regression import rescale as rescale_module
from unibrain.regression.rescale import MAX_GAIN

ALPHA = {"z_image": 3.0, "z_text": 40.0, "c_image": 500.0, "c_text": 40.0}


def halves(n=N, **options):
    X, latents = make(n=n, **options)
    return X[:n], latents.rows(slice(0, n)), X[n:], latents.rows(slice(n, None))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
@pytest.mark.parametrize("penalties", ["latent", "target"])
def test_equals_four_ridges(dtype, tolerance, penalties):
    X, latents, X_new, _ = halves(dtype=dtype)
    rng = np.random.default_rng(0)
    per_target = {name: 10.0 ** rng.integers(0, 4, int(np.prod(shape))) for name, shape in SHAPES.items()}
    alpha = ALPHA if penalties == "latent" else per_target
    predicted = BrainDecoder(alpha=alpha, rescale="none").fit(X, latents).predict(X_new)
    for name in SHAPES:
        model = Ridge(alpha[name]).fit(X.astype(float), flat(latents, name).astype(float))
        expected = model.predict(X_new.astype(float))
        assert predicted[name].shape == (len(X_new), *SHAPES[name])
        assert predicted[name].dtype == dtype
        assert np.abs(flat(predicted, name) - expected).max() < tolerance * np.abs(expected).max()


def test_ids_of_latents_keep_repeats_together():
    X, latents, _, _ = halves(dtype=np.float64)
    ids = np.random.default_rng(0).permutation(N) // 4
    trials = type(latents)(ids, latents.arrays)
    by_ids = BrainDecoder(folds=5).fit(X, trials)
    by_groups = BrainDecoder(folds=5).fit(X, dict(latents.items()), groups=ids)
    alone = BrainDecoder(folds=5).fit(X, dict(latents.items()))
    np.testing.assert_array_equal(by_ids.groups_, ids)
    for name in SHAPES:
        np.testing.assert_array_equal(by_ids.alpha_choice_[name].r2, by_groups.alpha_choice_[name].r2)
        assert (by_ids.alpha_choice_[name].r2 != alone.alpha_choice_[name].r2).all()


@pytest.mark.parametrize("rescale", ["train", "train_per_dimension", "none"])
def test_one_scan_is_decoded_as_in_company(rescale):
    X, latents, X_new, _ = halves(dtype=np.float64)
    decoder = BrainDecoder(alpha=20.0, rescale=rescale).fit(X, latents)
    together = decoder.predict(X_new, np.arange(500, 509))
    alone = decoder.predict(X_new[4])
    assert together.stimulus_ids.tolist() == list(range(500, 509))
    assert alone.stimulus_ids.tolist() == [0]
    for name in SHAPES:
        np.testing.assert_allclose(alone[name][0], together[name][4], rtol=1e-10)


def test_two_images_are_enough():
    X, latents, X_new, _ = halves(n=2)
    for rescale in ("train", "none"):
        assert BrainDecoder(alpha=1.0, rescale=rescale).fit(X, latents).predict(X_new).n == len(X_new)


# Rescaling


def test_gains_come_from_images_left_out():
    X, latents, _, _ = halves(dtype=np.float64)
    token = BrainDecoder(alpha=20.0, rescale="train").fit(X, latents).gain_
    dimension = BrainDecoder(alpha=20.0, rescale="train_per_dimension").fit(X, latents).gain_
    for name, shape in SHAPES.items():
        targets = flat(latents, name)
        true, deviations = targets.var(axis=0), []
        for row in range(len(X)):
            others = np.delete(np.arange(len(X)), row)
            model = Ridge(20.0).fit(X[others], targets[others])
            deviations.append(model.predict(X[[row]])[0] - targets[others].mean(axis=0))
        predicted = np.mean(np.square(deviations), axis=0)
        np.testing.assert_allclose(dimension[name], np.minimum(np.sqrt(true / predicted), MAX_GAIN), rtol=1e-5)
        groups = shape[0] if len(shape) > 1 else 1
        ratio = true.reshape(groups, -1).sum(axis=1) / predicted.reshape(groups, -1).sum(axis=1)
        expected = np.repeat(np.minimum(np.sqrt(ratio), MAX_GAIN), len(true) // groups)
        np.testing.assert_allclose(token[name], expected, rtol=1e-5)


def test_rescaling_keeps_correlations_and_is_capped():
    X, latents, X_new, _ = halves(noise=100.0, dtype=np.float64)
    plain = BrainDecoder(alpha=1e5, rescale="none").fit(X, latents)
    scaled = BrainDecoder(alpha=1e5, rescale="train_per_dimension").fit(X, latents)
    for name in SHAPES:
        assert (scaled.gain_[name] == MAX_GAIN).all()
        mean = flat(latents, name).mean(axis=0)
        a, b = flat(plain.predict(X_new), name) - mean, flat(scaled.predict(X_new), name) - mean
        np.testing.assert_allclose(b, MAX_GAIN * a, rtol=1e-6)


def test_constant_dimension_is_predicted_as_it_is():
    X, latents, X_new, _ = halves(dtype=np.float64)
    c_text = latents["c_text"].copy()
    c_text[:, 0] = 0.1
    for rescale in ("train", "train_per_dimension"):
        decoder = BrainDecoder(alpha=1.0, rescale=rescale).fit(X, changed(latents, c_text=c_text))
        np.testing.assert_allclose(decoder.predict(X_new)["c_text"][:, 0], 0.1, rtol=1e-12)


def test_gain_of_many_images_is_that_of_a_seeded_sample(monkeypatch):
    X, latents, _, _ = halves(n=400)
    all_images = BrainDecoder(alpha=20.0).fit(X, latents)
    monkeypatch.setattr(rescale_module, "EXACT_IMAGES", 100)
    monkeypatch.setattr(rescale_module, "SAMPLED_IMAGES", 200)
    sampled, again = (BrainDecoder(alpha=20.0).fit(X, latents) for _ in range(2))
    for name in SHAPES:
        np.testing.assert_array_equal(sampled.gain_[name], again.gain_[name])
        np.testing.assert_allclose(sampled.gain_[name], all_images.gain_[name], rtol=0.1)


def test_test_set_statistics_are_those_of_the_recipe():
    X, latents, X_new, _ = halves()
    plain = BrainDecoder(alpha=20.0, rescale="none").fit(X, latents).predict(X_new)
    decoder = BrainDecoder(alpha=20.0, rescale="test").fit(X, latents)
    found = decoder.predict(X_new)
    for name in SHAPES:
        standard = (plain[name] - plain[name].mean(axis=0)) / plain[name].std(axis=0)
        expected = standard * latents[name].std(axis=0) + latents[name].mean(axis=0)
        np.testing.assert_allclose(found[name], expected, atol=1e-3)
    with pytest.raises(InputError, match="rescale = test"):
        decoder.predict(X_new[0])


# Bands


def test_bands_are_the_ridge_of_scaled_voxels():
    rng = np.random.default_rng(0)
    X, latents, X_new, _ = halves(n=120)
    early = np.arange(VOXELS) < 20
    # Nothing but the early voxels carries the image latent.
    z_image = np.tensordot(X[:, early], rng.standard_normal((20, *SHAPES["z_image"])), 1).astype(np.float32)
    latents, regions = changed(latents, z_image=z_image), {"V1": early, "late": ~early}
    decoder = BrainDecoder(bands={"early": ["V1"]}, rescale="none").fit(X, latents, regions=regions)
    choice = decoder.band_choice_
    assert choice.bands == ("early", "other")
    shares = dict(zip(choice.latents, choice.shares, strict=True))
    assert shares["z_image"][0] > 10 * abs(shares["z_image"][1])
    predicted = decoder.predict(X_new)
    for system in decoder.systems_:
        scale = np.sqrt(system.weights)
        for name in system.names:
            model = Ridge(decoder.alpha_[name]).fit(X * scale, flat(latents, name))
            expected = model.predict(X_new * scale)
            assert np.abs(flat(predicted, name) - expected).max() < 1e-4 * np.abs(expected).max()


def test_pytorch_decodes_the_same(data):
    X, latents = data
    numpy, torch = (BrainDecoder(alpha=20.0, device=device).fit(X, latents).predict(X) for device in ("cpu", "torch"))
    same(torch, numpy)


# Bad input


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"alpha": 0.0}, "alpha.* 0"),
        ({"alpha": -2}, "alpha.* -2"),
        ({"alpha": float("nan")}, "alpha.* nan"),
        ({"alpha": "best"}, "alpha.*'best'"),
        ({"alpha": {"z_image": 1.0}}, "alpha.*z_text"),
        ({"alpha": {**ALPHA, "c_text": 0.0}}, "alpha of c_text.* 0"),
        ({"alpha": {**ALPHA, "c_text": [1.0, 2.0]}}, r"alpha of c_text.*\(2,\).* 20"),
        ({"alphas": ()}, "alphas"),
        ({"alphas": (1.0, -1.0)}, "alphas.* -1"),
        ({"rescale": "best"}, "rescale.*'best'"),
        ({"alpha_per": "voxel"}, "alpha_per.*'voxel'"),
        ({"sampled_targets": 0}, "sampled_targets.* 0"),
        ({"seed": -1}, "seed.* -1"),
        ({"memory": 0.0}, "memory.* 0"),
        ({"memory": 1e-6, "alpha": 1.0}, "memory.* 1e-06"),
        ({"device": "gpu"}, "device.*'gpu'"),
        ({"folds": 1}, "folds.* 1"),
        ({"folds": 41}, "folds.* 41.* 40"),
        ({"bands": {"a": ["V1"]}}, "regions"),
        ({"bands": {"a": ["V1"]}, "alpha": 3.0}, "bands.*alpha"),
        ({"bands": {"a": ["V1"]}, "alpha_per": "token"}, "bands.*alpha"),
    ],
)
def test_refuses_parameters(parameters, named):
    with pytest.raises(InputError, match=named):
        BrainDecoder(**parameters).fit(*halves()[:2])


def put(array, place, value):
    bad = array.astype(np.result_type(array.dtype, np.min_scalar_type(value) if abs(value) > 1e30 else array.dtype))
    bad[place] = value
    return bad


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda X, Y: (X[1:], Y, None), "39.* 40"),
        (lambda X, Y: (X[:1], Y.rows(slice(0, 1)), None), "1 sample"),
        (lambda X, Y: (X[:2], type(Y)(np.array([7, 7]), Y.rows(slice(0, 2)).arrays), None), "1 image"),
        (lambda X, Y: (X[:, :0], Y, None), r"0 feature"),
        (lambda X, Y: (X[:, 0], Y, None), "2D"),
        (lambda X, Y: (X + 1j, Y, None), "[Cc]omplex"),
        (lambda X, Y: (put(X, (3, 17), np.nan), Y, None), "row 3, voxel 17"),
        (lambda X, Y: (put(X, (3, 17), np.inf), Y, None), "row 3, voxel 17"),
        (lambda X, Y: (put(X.astype(float), (3, 17), 1e39), Y, None), "row 3, voxel 17"),
        (lambda X, Y: (X, Y, Y.stimulus_ids[[0, 2, 1, *range(3, N)]]), "Row 1.* 102.* 101"),
        (lambda X, Y: (X, Y, Y.stimulus_ids[1:]), "39.* 40"),
        (lambda X, Y: (X, changed(Y, c_image=put(Y["c_image"], (5, 1, 1), np.nan)), None), "c_image.* 105"),
        (lambda X, Y: (X, {"mine": put(Y["z_text"].astype(float), (5, 1), 1e39)}, None), "mine.*row 5, target 1"),
        (lambda X, Y: (X, {"mine": Y["z_text"] * 1j}, None), "mine.*[Cc]omplex"),
        (lambda X, Y: (X, {"mine": Y["z_text"][:, :0]}, None), r"mine.*\(40, 0\)"),
        (lambda X, Y: (X, {"a": Y["z_text"], "b": Y["z_text"][1:]}, None), "b has 39.* 40"),
        (lambda X, Y: (X, {}, None), "no targets"),
    ],
)
def test_refuses_scans_and_targets(change, named):
    X, Y, groups = change(*halves()[:2])
    with pytest.raises(InputError, match=named):
        BrainDecoder().fit(X, Y, groups)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda X: (X[:, 1:], None), "59.* 60"),
        (lambda X: (X, [1, 2]), "2.* 9"),
        (lambda X: (put(X, (0, 17), np.nan)[0], None), "row 0, voxel 17"),
    ],
)
def test_refuses_new_scans(change, named):
    X, latents, X_new, _ = halves()
    with pytest.raises(InputError, match=named):
        BrainDecoder(alpha=1.0).fit(X, latents).predict(*change(X_new))


def test_odd_scans_are_warned_of():
    X, latents, X_new, _ = halves()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder = BrainDecoder(alpha=1.0).fit(X, latents)
        decoder.predict(X_new)
    with pytest.warns(UserWarning, match="row 2 is the same in all voxels"):
        decoder.predict(put(X_new, 2, 0.0))
    with pytest.warns(UserWarning, match="row 5 is the same in all voxels"):
        BrainDecoder(alpha=1.0).fit(put(X, 5, 0.0), latents)
    twice = X.copy()
    twice[[7, 20]] = X[3]
    with pytest.warns(UserWarning, match=r"rows 3 and 7 .*2 repeats"):
        BrainDecoder(alpha=1.0).fit(twice, latents)


# scikit-learn's tools


def test_checks_of_scikit_learn():
    cannot_apply = {"check_fit2d_predict1d": "one scan alone, of shape (voxels,), may be predicted"}
    results = check_estimator(BrainDecoder(), expected_failed_checks=cannot_apply, on_skip=None, on_fail=None)
    status = {"passed": 0, "xfail": 0, "skipped": 0} | Counter(result["status"] for result in results)
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []
    assert (status["xfail"], status["passed"] > 45) == (1, True)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4)])
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


def test_a_grid_search_chooses_what_it_chooses_among_ridges(data):
    X, latents = data
    Y, groups, grid = flat(latents, "c_image").astype(float), np.arange(N + M) // 2, {"alpha": [1.0, 40.0, 1e3, 1e5]}
    ours, theirs = (
        GridSearchCV(model, grid, cv=GroupKFold(4)).fit(X, Y, groups=groups)
        for model in (BrainDecoder(rescale="none"), Ridge())
    )
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-6)


def test_a_pipeline_is_cloned_searched_and_predicts_what_its_steps_predict(data):
    X, latents = data
    Y, groups = flat(latents, "c_image").astype(float), np.arange(N + M) // 2
    steps = Pipeline([("scale", StandardScaler()), ("reduce", PCA(20)), ("decode", BrainDecoder(alpha=40.0))])
    fitted = clone(steps).fit(X[:N], latents.rows(slice(0, N)))
    found = fitted.predict(X[N:], stimulus_ids=np.arange(M) + 7)
    reduced = PCA(20).fit(StandardScaler().fit_transform(X[:N]))
    small, new = (reduced.transform(StandardScaler().fit(X[:N]).transform(part)) for part in (X[:N], X[N:]))
    expected = BrainDecoder(alpha=40.0).fit(small, latents.rows(slice(0, N))).predict(new)
    same(found, expected, 1e-4)
    assert found.stimulus_ids.tolist() == list(range(7, 7 + M))
    grid = {"reduce__n_components": [2, 20], "decode__rescale": ["none", "train"]}
    search = GridSearchCV(steps, grid, cv=GroupKFold(4)).fit(X, Y, groups=groups)
    ridge = Pipeline([*steps.steps[:2], ("decode", Ridge(40.0))])
    theirs = GridSearchCV(ridge, {"reduce__n_components": [2, 20]}, cv=GroupKFold(4)).fit(X, Y, groups=groups)
    ours = dict(zip(map(str, search.cv_results_["params"]), search.cv_results_["mean_test_score"], strict=True))
    for chosen, score in zip(theirs.cv_results_["params"], theirs.cv_results_["mean_test_score"], strict=True):
        assert ours[str({"decode__rescale": "none", **chosen})] == pytest.approx(score, rel=1e-6)


def test_a_clone_has_the_parameters_and_nothing_that_was_fitted(data):
    X, latents = data
    model = BrainDecoder(alpha={"z_text": 2.0, "c_image": 3.0}, bands=None, folds="loo", memory=0.5)
    model.fit(X[:N], {name: latents[name][:N] for name in ("z_text", "c_image")})
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        copy.predict(X[N:])

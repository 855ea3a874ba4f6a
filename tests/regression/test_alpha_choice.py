"""Choice of alpha against scikit-learn models refitted fold by fold, per latent, token and target."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from unibrain.errors import InputError
from unibrain.regression.alpha_choice import AlphaChoice, choose_alphas
from unibrain.regression.ridge import centred_kernel, factorise
from unibrain.regression.splits import split_images

ALPHAS = (0.1, 10.0, 1000.0, 1e5)
SHAPES = {"c_image": (3, 4), "z_image": (2, 2, 3), "z_text": (5,)}


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 150)) + 2
    targets = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        t = int(np.prod(shape))
        noise = 10.0 ** rng.uniform(-1, 1.5, t)
        targets[name] = X @ rng.standard_normal((150, t)) / 12 + noise * rng.standard_normal((60, t)) + 4 + number
    targets["z_text"][:, 3] = 0.1
    return X, np.arange(60)[::-1] // 2, targets, factorise(centred_kernel(X)[0])


def refit(X, Y, held_out, alpha):
    """Out-of-fold predictions and targets, less the mean of each fold's training targets."""
    predicted, true = np.zeros_like(Y), np.zeros_like(Y)
    for rows in held_out:
        train = np.setdiff1d(np.arange(len(X)), rows)
        mean = Y[train].mean(axis=0)
        predicted[rows] = Ridge(alpha).fit(X[train], Y[train]).predict(X[rows]) - mean
        true[rows] = Y[rows] - mean
    return predicted, true


def curves(X, Y, held_out, groups):
    """R squared and correlation of each group, from refitting."""
    varies = np.ptp(Y, axis=0) > 0
    r2, correlation = np.zeros((2, groups, len(ALPHAS)))
    for step, alpha in enumerate(ALPHAS):
        predicted, true = refit(X, Y, held_out, alpha)
        for group in range(groups):
            own = np.zeros(Y.shape[1], dtype=bool)
            own.reshape(groups, -1)[group] = True
            p, y = predicted[:, own & varies], true[:, own & varies]
            if p.size:
                r2[group, step] = 1 - np.sum((y - p) ** 2) / np.sum(y**2)
                cosine = np.sum(p * y, axis=0) / np.linalg.norm(p, axis=0) / np.linalg.norm(y, axis=0)
                correlation[group, step] = cosine.mean()
    return r2, correlation


@pytest.mark.parametrize("scheme", ["loo", 4])
@pytest.mark.parametrize(("per", "groups"), [("latent", (1, 1, 1)), ("token", (3, 2, 1)), ("target", (12, 12, 5))])
def test_curves_equal_refitting(problem, per, groups, scheme):
    X, ids, targets, factorisation = problem
    choices = choose_alphas(factorisation, ids, targets, SHAPES, ALPHAS[::-1], per=per, scheme=scheme, seed=1)
    held_out = split_images(ids, scheme, 1)
    for (name, choice), count in zip(choices.items(), groups, strict=True):
        r2, correlation = curves(X, targets[name], held_out, count)
        # Curves of single targets are kept in single precision.
        tolerance = 2e-6 if per == "target" else 1e-8
        np.testing.assert_allclose(choice.r2, r2, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(choice.correlation, correlation, rtol=tolerance, atol=tolerance)
        assert choice.alphas.tolist() == sorted(ALPHAS)
        assert (choice.groups, choice.projection) == (count, "all")
        best = np.array(ALPHAS)[len(ALPHAS) - 1 - np.argmax(r2[:, ::-1], axis=1)]
        np.testing.assert_array_equal(choice.best, best)
        np.testing.assert_array_equal(
            choice.per_target(targets[name].shape[1]), np.repeat(best, choice.targets // count)
        )


def test_chooses_what_a_grid_search_chooses(problem):
    X, ids, targets, factorisation = problem
    fold = np.empty(60, dtype=int)
    for number, rows in enumerate(split_images(ids, 5, 2)):
        fold[rows] = number
    for column in range(4):
        y = targets["c_image"][:, [column]]
        search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring="neg_mean_squared_error", cv=PredefinedSplit(fold))
        choice = choose_alphas(factorisation, ids, {"y": y}, {"y": (1,)}, ALPHAS, scheme=5, seed=2)["y"]
        assert choice.best[0] == search.fit(X, y).best_params_["alpha"]


def test_single_precision_targets_are_near(problem):
    _, ids, targets, factorisation = problem
    single = {name: array.astype(np.float32) for name, array in targets.items()}
    for per in ("latent", "token", "target"):
        exact = choose_alphas(factorisation, ids, targets, SHAPES, ALPHAS, per=per)
        near = choose_alphas(factorisation, ids, single, SHAPES, ALPHAS, per=per)
        for name, choice in exact.items():
            np.testing.assert_allclose(near[name].r2, choice.r2, atol=1e-4 * (1 + np.abs(choice.r2).max()))
            np.testing.assert_allclose(near[name].correlation, choice.correlation, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(4, 25), p=st.integers(1, 40), seed=st.integers(0, 10**6), per=st.sampled_from(["token", "target"]))
def test_curves_are_scores(n, p, seed, per):
    rng = np.random.default_rng(seed)
    factorisation = factorise(centred_kernel(rng.standard_normal((n, p)))[0])
    choice = choose_alphas(
        factorisation, np.arange(n), {"y": rng.standard_normal((n, 12))}, {"y": (3, 4)}, ALPHAS, per=per, scheme=3
    )["y"]
    assert (choice.r2 <= 1).all()
    assert (np.abs(choice.correlation) <= 1 + 1e-9).all()
    assert np.isin(choice.best, ALPHAS).all()
    assert len(choice.per_target(12)) == 12


# `AlphaChoice`


def choice(r2, **changes):
    r2 = np.atleast_2d(np.array(r2, dtype=np.float64))
    values = {"per": "latent", "targets": 12, "columns": 12, "projection": "all", "scheme": 5, "images": 9}
    return AlphaChoice(np.array([1.0, 2.0, 3.0]), r2, r2, **{**values, "total_images": 9, "seed": 0, **changes})


def test_equal_scores_prefer_the_larger_alpha():
    assert choice([0.0, 0.5, 0.5]).best.tolist() == [3.0]


def test_edge_of_the_grid():
    rows = [[0.1, 0.5, 0.6], [0.7, 0.5, 0.4], [0.1, 0.5, 0.4], [0.0, 0.0, 0.0], [-0.3, -0.2, -0.1]]
    edges = choice(rows)
    assert edges.at_edge.tolist() == [True, True, False, False, False]
    assert edges.varies.tolist() == [True, True, True, False, True]


def test_constant_latent_has_zero_scores(problem):
    _, ids, _, factorisation = problem
    for per in ("latent", "token", "target"):
        found = choose_alphas(factorisation, ids, {"y": np.full((60, 4), 0.1)}, {"y": (2, 2)}, ALPHAS, per=per)["y"]
        assert not found.r2.any()
        assert not found.correlation.any()
        assert not found.varies.any()


def test_choice_survives_json_and_arrays(problem):
    _, ids, targets, factorisation = problem
    for per, scheme in (("latent", 4), ("token", "loo"), ("target", 4)):
        found = choose_alphas(factorisation, ids, targets, SHAPES, ALPHAS, per=per, scheme=scheme)["c_image"]
        back = AlphaChoice.restore(json.loads(json.dumps(found.settings(), allow_nan=False)), found.arrays())
        assert back.settings() == found.settings()
        assert back.describe() == found.describe()
        for name, array in found.arrays().items():
            np.testing.assert_array_equal(getattr(back, name), array)


def test_describes_what_was_looked_at():
    few = choice(np.zeros((3, 3)), per="token", columns=2, projection="random", seed=4, scheme="loo")
    assert few.describe() == (
        "One alpha per token, by leaving out one image at a time of 9 images; "
        "all 4 dimensions, as 2 random projections drawn by seed 4 of each token."
    )
    single = choice(np.zeros((12, 3)), per="target", columns=1, images=5)
    assert single.describe() == (
        "One alpha per target, by 5 folds of 9 images, scored on 5 of them drawn by seed 0; every dimension on its own."
    )


def test_refuses_another_number_of_targets():
    with pytest.raises(InputError, match="chosen for 12 targets, expected 13"):
        choice(np.zeros(3)).per_target(13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphas": (1.0, 0.0)}, "alphas holds 0"),
        ({"alphas": (1.0, -3.0)}, "alphas holds -3"),
        ({"alphas": (1.0, np.nan)}, "alphas holds nan"),
        ({"alphas": (1.0, np.inf)}, "alphas holds inf"),
        ({"alphas": ()}, "alphas is empty"),
        ({"scheme": 31}, "31 folds for 30 training images"),
        ({"scheme": 1}, "folds is 1"),
        ({"scheme": "all"}, "scheme is 'all'"),
        ({"per": "voxel"}, "per is 'voxel'"),
        ({"projection": "pca"}, "projection is 'pca'"),
        ({"sampled_targets": 0}, "sampled_targets is 0"),
        ({"per": "target", "sampled_images": 1}, "1 images to score"),
        ({"stimulus_ids": np.arange(59)}, "59 stimulus ids for a kernel of 60 scans"),
        ({"shapes": {**SHAPES, "z_text": (6,)}}, r"latent z_text have shape \(60, 5\), expected \(60, 6\)"),
        ({"shapes": {}}, "expected a shape"),
        ({"targets": {}}, "there are 0 latents"),
        ({"alphas": (1e-14, 1.0)}, "alpha 1e-14 is too small"),
    ],
)
def test_refuses(problem, changes, message):
    _, ids, targets, factorisation = problem
    arguments = {"stimulus_ids": ids, "targets": targets, "shapes": SHAPES, "alphas": ALPHAS, **changes}
    with pytest.raises(InputError, match=message):
        choose_alphas(factorisation, **arguments)

"""Choice of alpha against scikit-learn models refitted fold by fold, per latent, token and target."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from stored_targets import named

from unibrain.errors import InputError
from unibrain.plot.alphas import alpha_figure
from unibrain.regression import AlphaChoice
from unibrain.regression import penalties as module
from unibrain.regression.leave_out import split_images
from unibrain.regression.penalties import choose_alphas
from unibrain.regression.ridge import centred_kernel, factorise
from unibrain.regression.targets import TrainingTargets, training_targets

ALPHAS = (0.1, 10.0, 1000.0, 1e5)
SHAPES = {"c_image": (3, 4), "z_image": (2, 2, 3), "z_text": (5,)}


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 150)) + 2
    targets = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        noise = 10.0 ** rng.uniform(-1, 1.5, shape)
        weights = rng.standard_normal((150, *shape)) / 12
        targets[name] = np.tensordot(X, weights, 1) + noise * rng.standard_normal((60, *shape)) + 4 + number
    targets["z_text"][:, 3] = 0.1
    return X, np.arange(60)[::-1] // 2, targets, factorise(centred_kernel(X)[0])


def curves(X, Y, held_out, groups):
    """R squared and correlation of each group, from refitting."""
    varies = np.ptp(Y, axis=0) > 0
    r2, correlation = np.zeros((2, groups, len(ALPHAS)))
    for step, alpha in enumerate(ALPHAS):
        predicted, true = np.zeros_like(Y), np.zeros_like(Y)
        for rows in held_out:
            train = np.setdiff1d(np.arange(len(X)), rows)
            mean = Y[train].mean(axis=0)
            predicted[rows] = Ridge(alpha).fit(X[train], Y[train]).predict(X[rows]) - mean
            true[rows] = Y[rows] - mean
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
    choices = choose_alphas(factorisation, training_targets(targets, ids), ALPHAS[::-1], per=per, scheme=scheme, seed=1)
    held_out = split_images(ids, scheme, 1)
    for (name, choice), count in zip(choices.items(), groups, strict=True):
        r2, correlation = curves(X, targets[name].reshape(60, -1), held_out, count)
        # Curves of single targets are kept in single precision.
        tolerance = 2e-6 if per == "target" else 1e-8
        np.testing.assert_allclose(choice.r2, r2, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(choice.correlation, correlation, rtol=tolerance, atol=tolerance)
        assert choice.alphas.tolist() == sorted(ALPHAS)
        assert (choice.groups, choice.columns) == (count, choice.targets // count)
        best = np.array(ALPHAS)[len(ALPHAS) - 1 - np.argmax(r2[:, ::-1], axis=1)]
        np.testing.assert_array_equal(choice.best, best)
        np.testing.assert_array_equal(
            np.broadcast_to(choice.per_target, choice.targets), np.repeat(best, choice.targets // count)
        )


@pytest.mark.parametrize("alphas", [(1.0, 0.0), (1.0, -3.0), (1.0, np.nan), (1.0, np.inf), (), (1e-14, 1.0)])
def test_refuses_grids(problem, alphas):
    _, ids, targets, factorisation = problem
    with pytest.raises(InputError, match=f"{min(alphas):g}" if alphas and min(alphas) < 1 else "alphas"):
        choose_alphas(factorisation, training_targets(targets, ids), alphas)


# Few columns and images that stand for all


def planted(tokens=6, width=400, n=150, seed=0):
    """Tokens that are predictable to different degrees, so that each has another best alpha."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 200))
    signal = X @ rng.standard_normal((200, 10)) / np.sqrt(200)
    mixed = signal @ rng.standard_normal((10, tokens * width)) / np.sqrt(10)
    noise = np.repeat(np.geomspace(0.05, 3.0, tokens), width)
    Y = mixed + noise * rng.standard_normal((n, tokens * width))
    return factorise(centred_kernel(X)[0]), Y.reshape(n, tokens, width)


GRID = np.logspace(-1, 5, 7)


@pytest.mark.parametrize("per", ["latent", "token"])
def test_few_columns_choose_what_all_targets_choose(per):
    factorisation, Y = planted()
    whole, few, again, other = (
        choose_alphas(factorisation, training_targets(Y), GRID, per=per, sampled_targets=count, seed=seed)["y"]
        for count, seed in ((2400, 0), (120, 0), (120, 0), (120, 1))
    )
    assert few.columns == (120 if per == "latent" else 20)
    np.testing.assert_array_equal(few.best, whole.best)
    np.testing.assert_array_equal(few.r2, again.r2)
    assert (few.r2 != other.r2).all()
    if per == "token":
        assert len(set(whole.best.tolist())) > 2
    # Twenty columns of a token with ten equal sources know its error to about a tenth.
    np.testing.assert_allclose((1 - few.r2) / (1 - whole.r2), 1, atol=0.3)


def test_few_images_choose_nearly_what_all_images_choose(monkeypatch):
    factorisation, Y = planted()
    choices = []
    for images in (150, 60):
        monkeypatch.setattr(module, "SCORED_IMAGES", images)
        choices.append(choose_alphas(factorisation, training_targets(Y), GRID, per="target")["y"])
    whole, few = choices
    assert (whole.images, few.images, few.total_images) == (150, 60, 150)
    # What is lost by choosing from few images is little beside what one alpha for all targets would lose.
    best = whole.r2.max(axis=1)
    lost = best - np.take_along_axis(whole.r2, few.best_step[:, None], axis=1)[:, 0]
    shared = best - whole.r2[:, np.argmax(whole.r2.mean(axis=0))]
    assert lost.mean() < 0.1 * shared.mean()


class Reader:
    """Targets that can only be sliced by columns, as those of a chunked store; counts what was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        rows, columns = index
        assert (rows, columns.step) == (slice(None), None)
        self.read += columns.stop - columns.start
        return self.array[index]


@pytest.mark.parametrize("per", ["latent", "token", "target"])
def test_readers_are_read_once_in_blocks_and_arrays_are_left_as_they_are(monkeypatch, per):
    factorisation, Y = planted(width=50)
    monkeypatch.setattr("unibrain.regression.targets.MAX_BLOCK_BYTES", 37 * 4 * len(Y))
    half = Y.astype(np.float16)
    reader = Reader(half.reshape(len(Y), -1))
    targets = TrainingTargets("array", np.arange(len(Y)), {"y": Y.shape[1:]}, {"y": reader})
    found = choose_alphas(factorisation, targets, GRID, per=per, sampled_targets=48, seed=3)["y"]
    monkeypatch.undo()
    half.flags.writeable = False
    expected = choose_alphas(factorisation, training_targets(half), GRID, per=per, sampled_targets=48, seed=3)["y"]
    np.testing.assert_allclose(found.r2, expected.r2, atol=1e-5)
    assert reader.read == 300


# `AlphaChoice`


def choice(r2, **changes):
    r2 = np.atleast_2d(np.array(r2, dtype=np.float64))
    values = {"per": "latent", "targets": 12, "columns": 12, "scheme": 5, "images": 9, "total_images": 9, "seed": 0}
    return AlphaChoice(np.array([1.0, 2.0, 3.0]), r2, r2, **{**values, **changes})


def test_equal_scores_prefer_the_larger_alpha_and_edges_are_seen():
    assert choice([0.0, 0.5, 0.5]).best.tolist() == [3.0]
    edges = choice(
        [[0.1, 0.5, 0.6], [0.7, 0.5, 0.4], [0.1, 0.5, 0.4], [0.0, 0.0, 0.0], [-0.3, -0.2, -0.1]], per="token"
    )
    assert edges.at_edge.tolist() == [True, True, False, False, False]
    assert edges.varies.tolist() == [True, True, True, False, True]
    assert edges.edge_warning == "2 of 5 tokens at the edge of the grid: try alphas beyond 1 to 3"
    assert choice([0.3, 0.2, 0.1]).edge_warning == "best at the edge of the grid: try alphas beyond 1 to 3"
    assert choice([0.1, 0.2, 0.1]).edge_warning == ""


@pytest.mark.parametrize("per", ["latent", "token", "target"])
def test_constant_latent_has_zero_scores(problem, per):
    found = choose_alphas(problem[3], named(y=np.full((60, 2, 2), 0.1)), ALPHAS, per=per)["y"]
    assert not found.r2.any()
    assert not found.correlation.any()
    assert not found.varies.any()


# The figure


def test_figure_says_what_was_chosen_and_is_the_same_each_time():
    rng = np.random.default_rng(0)
    choices = {
        "z_image": choice([0.1, 0.3, 0.2]),
        "c_text": choice([[0.1, 0.3, 0.2], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]], per="token"),
        "c_image": choice(rng.standard_normal((100_000, 3)), per="target"),
        "z_text": choice([0.0, 0.0, 0.0]),
        "other <latent> & more": AlphaChoice(
            np.array([30.0]), *np.full((2, 1, 1), 0.25), "latent", 4, 4, "loo", 9, 9, 0
        ),
    }
    svg = alpha_figure(choices)
    assert svg == alpha_figure(choices)
    assert len(svg) < 200_000
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = "\n".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))
    for words in (
        "image latent (AutoKL)",
        "best alpha 2\n",
        "alpha 2 to 3, median 2.5",
        "1 of 3 tokens at the edge of",
        "nothing varies",
        "other <latent> & more",
        "best alpha 30",
        "explained variance",
        "correlation",
    ):
        assert words in shown

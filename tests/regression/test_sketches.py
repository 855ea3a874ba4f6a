"""A few columns or images that stand for all: they choose what all choose, and are read once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrain.regression.alpha_choice import choose_alphas
from unibrain.regression.alpha_scores import sample_rows
from unibrain.regression.ridge import centred_kernel, factorise
from unibrain.regression.sketches import sketch_targets


def planted(tokens=6, width=400, n=150, seed=0):
    """Tokens that are predictable to different degrees, so that each has another best alpha."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 200))
    signal = X @ rng.standard_normal((200, 10)) / np.sqrt(200)
    mixed = signal @ rng.standard_normal((10, tokens * width)) / np.sqrt(10)
    noise = np.repeat(np.geomspace(0.05, 3.0, tokens), width)
    Y = mixed + noise * rng.standard_normal((n, tokens * width))
    return factorise(centred_kernel(X)[0]), np.arange(n), {"c_image": Y}, {"c_image": (tokens, width)}


GRID = np.logspace(-1, 5, 7)


@pytest.mark.parametrize("projection", ["sample", "random"])
@pytest.mark.parametrize("per", ["latent", "token"])
def test_few_columns_choose_what_all_targets_choose(projection, per):
    factorisation, ids, targets, shapes = planted()
    whole = choose_alphas(factorisation, ids, targets, shapes, GRID, per=per, sampled_targets=2400)["c_image"]
    few = choose_alphas(factorisation, ids, targets, shapes, GRID, per=per, sampled_targets=120, projection=projection)[
        "c_image"
    ]
    assert (whole.projection, few.projection) == ("all", projection)
    assert few.columns == (120 if per == "latent" else 20)
    np.testing.assert_array_equal(few.best, whole.best)
    if per == "token":
        assert len(set(whole.best.tolist())) > 2
    # Twenty columns of a token with ten equal sources know its error to about a tenth.
    np.testing.assert_allclose((1 - few.r2) / (1 - whole.r2), 1, atol=0.3)


def test_few_images_choose_nearly_what_all_images_choose():
    factorisation, ids, targets, shapes = planted()
    whole, few = (
        choose_alphas(factorisation, ids, targets, shapes, GRID, per="target", sampled_images=images)["c_image"]
        for images in (150, 60)
    )
    assert (whole.images, few.images, few.total_images) == (150, 60, 150)
    # What is lost by choosing from few images is little beside what one alpha for all targets would lose.
    best = whole.r2.max(axis=1)
    lost = best - np.take_along_axis(whole.r2, few.best_step[:, None], axis=1)[:, 0]
    shared = best - whole.r2[:, np.argmax(whole.r2.mean(axis=0))]
    assert lost.mean() < 0.1 * shared.mean()


def test_projections_keep_squared_sums():
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((30, 5 * 64)) * np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 64) + 100
    Y[:, 64:128] = 100.0
    centred = Y - Y.mean(axis=0)
    squares = []
    for seed in range(300):
        sketch = sketch_targets({"c": Y}, {"c": (5, 64)}, "token", 20, "random", seed)
        assert sketch.groups["c"].tolist() == [0, 4, 8, 12, 16, 20]
        assert sketch.varies.tolist() == [True] * 4 + [False] * 4 + [True] * 12
        squares.append(np.sum(sketch.columns**2, axis=0).reshape(5, 4).sum(axis=1))
    expected = np.sum(centred**2, axis=0).reshape(5, 64).sum(axis=1)
    np.testing.assert_allclose(np.mean(squares, axis=0), expected, rtol=0.05, atol=1e-12)


class Reader:
    """Targets that can only be sliced by columns, as those of a chunked store; counts what was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        rows, columns = index
        assert rows == slice(None)
        assert columns.step is None
        self.read += columns.stop - columns.start
        return self.array[index]


@pytest.mark.parametrize("projection", ["sample", "random"])
@pytest.mark.parametrize("per", ["latent", "token", "target"])
def test_readers_are_read_at_most_once_and_in_blocks(monkeypatch, projection, per):
    factorisation, ids, targets, shapes = planted(width=50)
    monkeypatch.setattr("unibrain.regression.targets.MAX_BLOCK_BYTES", 37 * 4 * len(ids))
    settings = {"per": per, "projection": projection, "sampled_targets": 48, "seed": 3}
    blocked = {name: Reader(array.astype(np.float16)) for name, array in targets.items()}
    found = choose_alphas(factorisation, ids, blocked, shapes, GRID, **settings)["c_image"]
    monkeypatch.undo()
    arrays = {name: array.astype(np.float16) for name, array in targets.items()}
    expected = choose_alphas(factorisation, ids, arrays, shapes, GRID, **settings)["c_image"]
    np.testing.assert_allclose(found.r2, expected.r2, atol=1e-5)
    assert 0 < blocked["c_image"].read <= 300


@pytest.mark.parametrize(("per", "projection"), [("latent", "sample"), ("token", "random"), ("target", "sample")])
def test_arrays_in_memory_are_left_as_they_are(per, projection):
    factorisation, ids, targets, shapes = planted(width=50)
    before = targets["c_image"].copy()
    targets["c_image"].flags.writeable = False
    choose_alphas(factorisation, ids, targets, shapes, GRID, per=per, projection=projection, sampled_targets=48)
    np.testing.assert_array_equal(targets["c_image"], before)


@pytest.mark.parametrize("per", ["token", "target"])
def test_large_means_do_not_drown_what_varies(per):
    """In single precision: sums of what is not centred would have no digits left."""
    factorisation, ids, targets, shapes = planted(width=50)
    settings = {"per": per, "projection": "random", "sampled_targets": 48}
    expected = choose_alphas(factorisation, ids, targets, shapes, GRID, **settings)["c_image"]
    shifted = {"c_image": (targets["c_image"] + 300).astype(np.float32)}
    found = choose_alphas(factorisation, ids, shifted, shapes, GRID, **settings)["c_image"]
    np.testing.assert_allclose(found.r2, expected.r2, atol=1e-3)


def test_samples_are_seeded():
    factorisation, ids, targets, shapes = planted()
    for projection in ("sample", "random"):
        first, again, other = (
            choose_alphas(
                factorisation,
                ids,
                targets,
                shapes,
                GRID,
                sampled_targets=30,
                projection=projection,
                scheme="loo",
                seed=s,
            )["c_image"].r2
            for s in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).all()


@given(st.lists(st.integers(0, 9), min_size=4, max_size=50), st.integers(2, 12), st.integers(0, 50))
def test_sampled_images_come_with_all_their_rows(ids, images, seed):
    ids = np.array(ids)
    rows = sample_rows(ids, images, seed)
    chosen = np.unique(ids[rows])
    assert len(chosen) == min(images, len(np.unique(ids)))
    assert rows.tolist() == np.flatnonzero(np.isin(ids, chosen)).tolist()

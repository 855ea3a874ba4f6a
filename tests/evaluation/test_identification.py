from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import correlation
from scipy.stats import hypergeom

from unibrain.errors import InputError
from unibrain.evaluation.identification import (
    centroids,
    cluster_identification,
    correlations,
    count_ties,
    count_wins,
    identify,
    latent_identification,
    neighbour_identification,
    retrieve,
    win_table,
)
from unibrain.evaluation.metrics import two_way as two_way_metric
from unibrain.latents import Latents, LatentWriter, open_latents


def two_way(true, decoded):
    return identify(correlations(true, decoded))


def slow_identification(true, decoded, direction="recon->images"):
    """The published arithmetic, one pair at a time with numpy's own correlation."""
    n = len(true)
    matrix = np.corrcoef(true.reshape(n, -1), decoded.reshape(n, -1))[:n, n:]
    if direction == "image->recons":
        return np.array([np.mean([matrix[i, j] < matrix[i, i] for j in range(n) if i != j]) for i in range(n)])
    return np.array([np.mean([matrix[i, j] < matrix[j, j] for i in range(n) if i != j]) for j in range(n)])


def pair(n=12, width=30, noise=1.5, seed=0):
    random = np.random.default_rng(seed)
    true = random.normal(size=(n, width)).astype(np.float32)
    return true, (true + noise * random.normal(size=(n, width))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(3, 40), st.integers(0, 10_000), st.sampled_from([0.0, 1e4, -1e-4]))
def test_equals_the_slow_loop(n, width, seed, offset):
    random = np.random.default_rng(seed)
    true = random.normal(size=(n, width)) + offset
    decoded = 0.5 * true + random.normal(size=(n, width))
    similarity = correlations(true, decoded)
    np.testing.assert_allclose(similarity, np.corrcoef(true, decoded)[:n, n:], atol=1e-11)
    for direction in ("recon->images", "image->recons"):
        np.testing.assert_array_equal(identify(similarity, direction), slow_identification(true, decoded, direction))
    np.testing.assert_array_equal(win_table(similarity).diagonal(), count_wins(similarity))


def test_many_columns_pass_in_blocks(monkeypatch):
    true, decoded = pair(5, 1000)
    monkeypatch.setattr("unibrain.evaluation.identification._BLOCK_BYTES", 8 * 10 * 7)
    np.testing.assert_allclose(correlations(true, decoded), np.corrcoef(true, decoded)[:5, 5:], atol=1e-12)


def test_perfect_is_one_and_chance_is_one_half():
    random = np.random.default_rng(2)
    features = random.normal(size=(200, 30))
    np.testing.assert_array_equal(two_way(features, features), 1.0)
    chance = two_way(features, random.normal(size=(200, 30)))
    assert abs(chance.mean() - 0.5) < 4 * chance.std() / np.sqrt(200)


def test_a_tie_fails_and_is_counted():
    features = np.array([[1.0, 2, 3], [1, 2, 3], [3, 1, 0]])
    np.testing.assert_array_equal(two_way(features, features), [0.5, 0.5, 1.0])
    assert count_ties(correlations(features, features)) == 2


def test_equal_features_tie_wherever_they_stand():
    # A matrix product rounds by position, so equal items could win or lose by the last bit.
    random = np.random.default_rng(5)
    true = np.repeat(random.normal(size=(40, 700)).astype(np.float32), 2, axis=0)
    decoded = (true + random.normal(size=(80, 700))).astype(np.float32)
    similarity = correlations(true, decoded)
    assert count_ties(similarity) == 80
    assert identify(similarity).max() <= 78 / 79


def test_constant_features_fail_and_are_no_tie():
    random = np.random.default_rng(3)
    true = random.normal(size=(5, 1000))
    decoded = true.copy()
    decoded[2] = 0.1  # whose mean is rounded
    similarity = correlations(true, decoded)
    np.testing.assert_array_equal(identify(similarity), [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(identify(similarity, "image->recons"), [0.75, 0.75, 0, 0.75, 0.75])
    np.testing.assert_array_equal(win_table(similarity).diagonal(), count_wins(similarity))
    assert count_ties(similarity) == 0


def test_a_matrix_by_hand():
    similarity = np.array([[0.5, 0.9, 0.1], [0.5, 0.8, 0.2], [0.4, 0.7, np.nan]])
    assert count_wins(similarity).tolist() == [1, 1, 0]  # a tie, one closer, NaN
    assert count_wins(similarity, "image->recons").tolist() == [1, 2, 0]
    assert count_ties(similarity) == 1
    assert count_ties(similarity, "image->recons") == 0
    assert count_wins(similarity, truth=[2, 0, 1]).tolist() == [0, 2, 1]


def test_minus_one_takes_the_best_below_one():
    features = np.random.default_rng(0).normal(size=(12, 20))
    measure = two_way_metric(lambda items: (features, features), minus_one=True)(SimpleNamespace(seen=features))
    np.testing.assert_allclose(measure.values(np.arange(12)), 10 / 11)


@pytest.mark.parametrize("way", [2, 3, 5, 7])
def test_n_way_is_the_mean_over_all_sets_of_distractors(way):
    similarity = correlations(*pair(7))
    for item, value in enumerate(identify(similarity, way=way)):
        others = [i for i in range(7) if i != item]
        beaten = similarity[:, item] < similarity[item, item]
        assert value == pytest.approx(np.mean([all(beaten[list(some)]) for some in combinations(others, way - 1)]))


def test_n_way_is_hypergeometric_in_a_large_pool():
    similarity = correlations(*pair(300, 8, 2.0))
    wins = count_wins(similarity)
    np.testing.assert_allclose(identify(similarity, way=50), hypergeom.pmf(49, 299, wins, 49), atol=1e-12)


def test_top_k_in_a_pool_that_is_larger_than_the_items():
    true, decoded = pair(40, 20)
    truth = np.array([3, 30, 12])
    similarity = correlations(true, decoded[truth])
    ranks = [int(np.flatnonzero(np.argsort(-similarity[:, j]) == t)[0]) + 1 for j, t in enumerate(truth)]
    for k in (1, 2, 5, 40):
        assert retrieve(similarity, k, truth=truth).tolist() == [rank <= k for rank in ranks]
    assert retrieve(np.ones((4, 4)), 3).tolist() == [False] * 4  # all equal: all others count as closer


def test_correlations_are_one_less_scipys_distance_and_rows_may_lie_anywhere():
    true, decoded = pair(6)
    expected = [correlation(a, b) for a, b in zip(true.astype(float), decoded.astype(float), strict=True)]
    np.testing.assert_allclose(1 - correlations(true, decoded).diagonal(), expected, atol=1e-12)
    np.testing.assert_array_equal(correlations(list(true), list(decoded)), correlations(true, decoded))
    decoded[1] = 3
    assert np.isnan(correlations(true, decoded).diagonal()).tolist() == [False, True, *[False] * 4]


def test_clusters_and_their_centres():
    random = np.random.default_rng(1)
    clusters = np.arange(60) % 3
    true = 3 * random.normal(size=(3, 25))[clusters] + random.normal(size=(60, 25))
    middle = centroids(true, clusters)
    np.testing.assert_allclose(middle, [true[clusters == c].mean(axis=0) for c in range(3)])
    assert cluster_identification(correlations(middle, true), clusters).all()
    assert not cluster_identification(correlations(middle, true), (clusters + 1) % 3).any()
    tied = cluster_identification(np.ones((3, 60)), clusters)
    assert not tied.any()


def test_neighbours_are_the_hardest_distractors():
    true, decoded = pair(50, 40, 3.0)
    similarity, among = correlations(true, decoded), correlations(true, true)
    expected = []
    for item in range(50):
        near = [i for i in np.argsort(-among[:, item]) if i != item][:5]
        expected.append(np.mean(similarity[near, item] < similarity[item, item]))
    np.testing.assert_array_equal(neighbour_identification(similarity, among, 5), expected)
    assert np.mean(expected) < identify(similarity).mean()
    np.testing.assert_allclose(neighbour_identification(similarity, among, 49), identify(similarity))


def latents(ids, seed):
    random = np.random.default_rng(seed)
    arrays = {"z_text": random.normal(size=(len(ids), 6)), "c_image": random.normal(size=(len(ids), 4, 5)) + 3}
    return Latents(np.asarray(ids), {name: array.astype(np.float32) for name, array in arrays.items()})


def test_latents_among_the_test_and_all_training_images(tmp_path):
    true, pool = latents([5, 3, 9, 4], 1), latents(range(10, 40), 2)
    noise = latents([5, 3, 9, 4], 3)
    predicted = Latents(true.stimulus_ids, {name: true[name] + noise[name] for name in true})
    writer = LatentWriter(tmp_path / "pool", pool.stimulus_ids, "toy", "0" * 64, storage="zarr")
    writer.begin({name: pool[name].shape[1:] for name in pool})
    writer.write_rows(0, pool)
    writer.finish()
    for training in (pool, open_latents(tmp_path / "pool")):
        scores = {(score.latent, score.among): score for score in latent_identification(predicted, true, training)}
        assert list(scores) == [(name, side) for name in true for side in ("test", "training")]
        for name in true:
            flat = [part[name].reshape(part.n, -1).astype(float) for part in (true, pool, predicted)]
            near = np.corrcoef(flat[0], flat[2])[:4, 4:]
            far = np.corrcoef(flat[1], flat[2])[:30, 30:]
            np.testing.assert_allclose(scores[name, "test"].two_way, identify(near))
            ranks = 1 + (far >= near.diagonal()).sum(axis=0)
            np.testing.assert_array_equal(scores[name, "training"].rank, ranks)
            assert scores[name, "training"].pool == 31
            np.testing.assert_array_equal(scores[name, "training"].top(10), ranks <= 10)


def test_the_same_latent_in_training_is_a_tie():
    true = latents([0, 1], 1)
    pool = Latents(np.array([7, 8]), true.arrays)
    near, far = latent_identification(true, true, pool)[:2]
    assert (near.wins.tolist(), near.ties) == ([1, 1], 0)
    assert (far.wins.tolist(), far.ties) == ([1, 1], 2)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: correlations(np.ones((2, 3)), np.ones((2, 4))), "4"),
        (lambda: identify(np.ones((1, 1))), "has 1"),
        (lambda: identify(np.ones((3, 3)), way=4), "4-way"),
        (lambda: identify(np.ones((3, 3)), way=1), "1-way"),
        (lambda: identify(np.ones((3, 3)), "images->recon"), "images->recon"),
        (lambda: identify(np.ones((3, 3)), truth=[0, 1, 3]), "3 rows"),
        (lambda: identify(np.ones((2, 3))), "2 rows"),
        (lambda: retrieve(np.ones((3, 3)), 4), "Top-4"),
        (lambda: centroids(np.ones((3, 2)), np.array([0, 2, 2])), "[0, 2]"),
        (lambda: neighbour_identification(np.ones((3, 3)), np.ones((3, 3)), 3), "3 are wanted"),
        (lambda: latent_identification(latents([1, 2], 0), latents([2, 1], 0)), "same order"),
        (lambda: latent_identification(latents([1], 0), latents([1], 0)), "there are 1"),
        (lambda: latent_identification(latents([1, 2], 0), latents([1, 2], 0), latents([2, 3], 0)), "image id 2"),
        (lambda: latent_identification(latents([1, 2], 0), latents([1, 2], 0), latents([3, 3], 0)), "image id 3"),
        (
            lambda: latent_identification({"z_text": np.ones((2, 4))}, {"z_text": np.ones((2, 5))}),
            "z_text is predicted in shape (4,)",
        ),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError) as error:
        call()
    assert named in str(error.value)

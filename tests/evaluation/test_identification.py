import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.evaluation.identification import correlations, count_ties, identify


def two_way(true, decoded):
    return identify(correlations(true, decoded))


def slow_identification(true, decoded):
    """The published arithmetic, one pair at a time with numpy's own correlation."""
    n = len(true)
    matrix = np.corrcoef(true.reshape(n, -1), decoded.reshape(n, -1))[:n, n:]
    return np.array([np.mean([matrix[i, j] < matrix[j, j] for i in range(n) if i != j]) for j in range(n)])


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(3, 40), st.integers(0, 10_000))
def test_equals_the_slow_loop(n, width, seed):
    random = np.random.default_rng(seed)
    true = random.normal(size=(n, width))
    decoded = 0.5 * true + random.normal(size=(n, width))
    np.testing.assert_allclose(two_way(true, decoded), slow_identification(true, decoded), atol=1e-12)


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
    np.testing.assert_array_equal(two_way(true, decoded), [1, 1, 0, 1, 1])
    assert count_ties(correlations(true, decoded)) == 0

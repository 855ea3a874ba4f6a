import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrain.evaluation.scores import Score
from unibrain.report.ranking import fair_sample, overall_rank


def score(name, about, per_image, higher=True):
    return Score(name, name, about, 0.5, 0.4, len(per_image), higher, tuple(per_image))


def test_best_in_everything_is_one_and_worst_in_everything_is_zero():
    scores = [score("a", "picture", [0.1, 0.9, 0.5]), score("b", "caption", [-3, 8, 0])]
    np.testing.assert_allclose(overall_rank(scores, 3), [0, 1, 0.5])


def test_pictures_and_captions_count_alike():
    pictures = [score(name, "picture", [0.0, 1.0]) for name in "abc"]
    np.testing.assert_allclose(overall_rank([*pictures, score("d", "caption", [1.0, 0.0])], 2), [0.5, 0.5])


def test_lower_may_be_better_and_ties_share_their_rank():
    np.testing.assert_allclose(overall_rank([score("a", "picture", [3, 1, 2], higher=False)], 3), [0, 1, 0.5])
    np.testing.assert_allclose(overall_rank([score("a", "picture", [1, 1, 0])], 3), [0.75, 0.75, 0])


@pytest.mark.parametrize("images", [1, 4])
def test_without_scores_all_stand_in_the_middle(images):
    missing = Score("a", "a", "picture", None, None, images, True, note="not installed")
    np.testing.assert_array_equal(overall_rank([missing], images), 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 6))
def test_a_sample_is_fair(rank, count):
    rank = np.array(rank)
    sample = fair_sample(rank, count)
    rows = [row for group in sample.values() for row in group]
    assert len(set(rows)) == len(rows)
    if len(rank) < 3:
        assert sorted(sample["All"]) == list(range(len(rank)))
        return
    sizes = {label: len(group) for label, group in sample.items()}
    expected = min(count, len(rank) // 3)
    assert sizes == {"Best": expected, "Median": expected, "Worst": expected}
    others = np.delete(rank, sample["Best"])
    assert rank[sample["Best"]].min() >= others.max()
    assert rank[sample["Worst"]].max() <= np.delete(rank, sample["Worst"]).min()
    middle = rank[sample["Median"]]
    rest = len(rank) - expected
    assert (rank > middle.max()).sum() <= rest // 2
    assert (rank < middle.min()).sum() <= rest - rest // 2

"""Properties of the clean-up of captions."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unibrain.backbone.caption_cleanup import remove_adjacent_repeats, remove_repeated_phrases

WORDS = ("a", "dog", "on", "the", "beach")
plain = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
marked = st.lists(
    st.sampled_from([*WORDS, "dog,", "(a", "dog)", '"the', 'the"', "beach.", ".", ",", "'", "dog's"]), max_size=10
).map(" ".join)
anything = st.one_of(plain, marked, st.text("ab .,\"'()", max_size=14), st.text(max_size=20))


def words(caption: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", caption))


@pytest.mark.parametrize("clean", [remove_adjacent_repeats, remove_repeated_phrases])
@given(caption=anything)
@example(caption='b"a b" "a')
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_changes_nothing_more(clean, caption: str) -> None:
    once = clean(caption)
    assert clean(once) == once


@pytest.mark.parametrize("clean", [remove_adjacent_repeats, remove_repeated_phrases])
@given(caption=anything)
def test_no_word_is_added_or_lost_for_good(clean, caption: str) -> None:
    before, after = words(caption), words(clean(caption))
    assert after <= before
    assert set(after) == set(before)


@given(caption=plain)
def test_no_phrase_is_followed_by_itself(caption: str) -> None:
    left = remove_repeated_phrases(caption).split()
    for length in range(1, len(left) // 2 + 1):
        for start in range(len(left) - 2 * length + 1):
            assert left[start : start + length] != left[start + length : start + 2 * length]


@given(caption=plain)
def test_neighbours_differ(caption: str) -> None:
    left = remove_adjacent_repeats(caption).split()
    assert all(one != other for one, other in pairwise(left))


@given(st.permutations(WORDS))
def test_captions_without_repeats_stay(order: list[str]) -> None:
    caption = " ".join(order) + "."
    assert remove_adjacent_repeats(caption) == caption
    assert remove_repeated_phrases(caption) == caption

"""Captions: five or more, true to the picture, in a small vocabulary."""

import hashlib
import re
from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.demo import Placement, Scene, describe, sample_scene, vocabulary
from unibrain.demo.scenes import SPLITS

# What a reader would take each place for, written down apart from the package.
PLACE_WORDS = {
    "beach": ("beach",),
    "field": ("green field", "grass"),
    "forest": ("forest", "woods"),
    "night": ("night sky", "under the stars"),
    "snow": ("snow", "snowy"),
    "desert": ("desert", "dunes"),
    "sea": ("sea", "the water"),
    "street": ("city street", "in the city"),
    "room": ("room",),
    "road": ("road",),
    "sunset": ("sunset",),
    "wall": ("wall",),
}
scenes = st.builds(sample_scene, st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.sampled_from(SPLITS))


def names(placement: Placement) -> tuple[str, ...]:
    return (placement.object.noun, *placement.object.synonyms)


def has(words: str, caption: str) -> bool:
    return re.search(rf"\b{re.escape(words)}\b", caption) is not None


@lru_cache(maxsize=1)
def known_words() -> frozenset[str]:
    return frozenset(vocabulary())


@settings(max_examples=100, deadline=None)
@given(scenes)
def test_five_different_sentences_of_five_to_sixteen_known_words(scene: Scene) -> None:
    captions = describe(scene)
    assert len(set(captions)) == len(captions) >= 5
    for caption in captions:
        words = caption.split()
        assert 5 <= len(words) <= 16, caption
        assert " ".join(words) == caption == caption.lower()
        assert set(words) <= known_words(), caption


@settings(max_examples=100, deadline=None)
@given(scenes)
def test_every_caption_names_every_object_and_no_wrong_place(scene: Scene) -> None:
    captions = describe(scene)
    for caption in captions:
        for placement in scene.placements:
            assert any(has(name, caption) for name in names(placement)), (caption, placement.object)
        rest = caption
        for placement in scene.placements:
            for name in sorted(names(placement), key=len, reverse=True):
                rest = rest.replace(name, "")
        for place, signs in PLACE_WORDS.items():
            if place != scene.background:
                assert not any(has(sign, rest) for sign in signs), (caption, scene.background)
    named = sum(any(has(sign, caption) for sign in PLACE_WORDS[scene.background]) for caption in captions)
    assert named >= 4


@settings(max_examples=100, deadline=None)
@given(scenes)
def test_sizes_are_true(scene: Scene) -> None:
    named = {name: placement for placement in scene.placements for name in names(placement)}
    # The longest name first: "large orange letter s" is not about an orange.
    pattern = "|".join(re.escape(name) for name in sorted(named, key=len, reverse=True))
    for caption in describe(scene):
        for size, name in re.findall(rf"\b(small|large) ({pattern})\b", caption):
            placement = named[name]
            others = [other.size for other in scene.placements if other is not placement]
            if size == "small":
                assert placement.size < min(others) if others else placement.size * 64 <= 39
            else:
                assert placement.size > max(others) if others else placement.size * 64 >= 47


@settings(max_examples=100, deadline=None)
@given(scenes)
def test_positions_and_relations_are_true(scene: Scene) -> None:
    first, second = scene.placements[0], scene.placements[-1]
    for caption in describe(scene):
        if len(scene.placements) == 1:
            dx, dy = first.x - 0.5, first.y - 0.5
            claims = {
                "on the left": dx < -0.1 and abs(dx) > abs(dy),
                "on the right": dx > 0.1 and abs(dx) > abs(dy),
                "at the top": dy < -0.1 and abs(dy) > abs(dx),
                "at the bottom": dy > 0.1 and abs(dy) > abs(dx),
                "in the middle": max(abs(dx), abs(dy)) < 0.05,
            }
            for words, true in claims.items():
                assert true or words not in caption, caption
            assert " next to " not in caption
            continue
        # Two objects: the one named first against the one named second.
        spots = [
            min(m.start() for name in names(p) for m in re.finditer(rf"\b{name}\b", caption)) for p in (first, second)
        ]
        a, b = (first, second) if spots[0] < spots[1] else (second, first)
        if "to the left of" in caption or "on the left and" in caption:
            assert a.x + a.size / 2 <= b.x - b.size / 2 + 1e-9
        if "to the right of" in caption:
            assert a.x - a.size / 2 >= b.x + b.size / 2 - 1e-9
        if " above " in caption or "at the top and" in caption:
            assert a.y + a.size / 2 <= b.y - b.size / 2 + 1e-9
        if " below " in caption or re.search(r" under (a|an) (?!night sky|sunset sky)", caption):
            assert a.y - a.size / 2 >= b.y + b.size / 2 - 1e-9
        if " next to " in caption or " beside " in caption:
            assert abs(a.x - b.x) > abs(a.y - b.y)


def test_the_wording_depends_on_the_key_alone() -> None:
    scene = sample_scene(5, 5, "train")
    assert describe(Scene(scene.placements, scene.background, 1)) == describe(
        Scene(scene.placements, scene.background, 2)
    )
    text = "\n".join("\n".join(describe(sample_scene(7, i, split))) for split in SPLITS for i in range(100))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "9be825179fd46c75ab55b4fbebb2b78d493997b98db276d0ad0a80474f4ffdb2"
    )


def test_the_vocabulary_is_small_and_sorted() -> None:
    words = vocabulary()
    assert list(words) == sorted(set(words))
    assert len(words) <= 450

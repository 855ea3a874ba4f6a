"""Sampling: determinism, disjoint splits, balance, and where objects lie."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain.errors import InputError
from unibrain.demo import BACKGROUNDS, Placement, Scene, load_catalogue, sample_scene, split_of
from unibrain.demo.scenes import SPLITS, Split

seeds = st.integers(0, 2**32 - 1)
indices = st.integers(0, 10**7)
splits = st.sampled_from(SPLITS)


@settings(max_examples=150, deadline=None)
@given(seeds, indices, splits)
def test_a_scene_belongs_to_the_split_it_was_drawn_for(seed: int, index: int, split: Split) -> None:
    scene = sample_scene(seed, index, split)
    assert scene.split == split == split_of(scene.content)
    assert sample_scene(seed, index, split) == scene


@settings(max_examples=10, deadline=None)
@given(seeds, seeds)
def test_splits_share_no_scene_whatever_the_seeds(one: int, other: int) -> None:
    keys = {
        split: {sample_scene(seed, i, split).content for seed in (one, other) for i in range(150)} for split in SPLITS
    }
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]


def test_split_follows_the_sha256_of_the_content_alone() -> None:
    scene = sample_scene(0, 0, "train")
    digest = hashlib.sha256(scene.content.encode()).hexdigest()
    assert int(digest[:16], 16) % 10 >= 2
    jittered = Scene(scene.placements, scene.background, scene.variation + 1)
    assert (jittered.key, jittered.split) == (scene.key, scene.split)


def test_about_eighty_ten_ten_percent_of_contents() -> None:
    shares = Counter(split_of(f"object {i}|beach") for i in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_the_key_tells_content_apart() -> None:
    dog, cat = (thing for thing in load_catalogue() if thing.name in ("dog", "cat"))
    left, right = (0.25, 0.5, 0.5), (0.75, 0.5, 0.5)
    scenes = [
        Scene((Placement(dog, *left), Placement(cat, *right)), "beach", 0),
        Scene((Placement(cat, *left), Placement(dog, *right)), "beach", 0),
        Scene((Placement(dog, 0.5, 0.25, 0.5), Placement(cat, 0.5, 0.75, 0.5)), "beach", 0),
        Scene((Placement(dog, *left), Placement(cat, *right)), "snow", 0),
        Scene((Placement(dog, 0.5, 0.5, 0.6),), "beach", 0),
        Scene((Placement(dog, 0.5, 0.5, 0.8),), "beach", 0),
        Scene((Placement(dog, 0.35, 0.5, 0.6),), "beach", 0),
    ]
    assert len({scene.key for scene in scenes}) == len(scenes)


def test_the_same_seed_gives_the_same_scenes_on_every_machine() -> None:
    keys = "\n".join(sample_scene(7, i, split).key for split in SPLITS for i in range(100))
    assert (
        hashlib.sha256(keys.encode()).hexdigest() == "9eb3a24ef3d81b2a475bb56ad11612994c4faf38fddba28c3d139c1cacb04cf3"
    )


@settings(max_examples=150, deadline=None)
@given(seeds, indices, splits)
def test_objects_are_large_enough_inside_and_hardly_overlap(seed: int, index: int, split: Split) -> None:
    scene = sample_scene(seed, index, split)
    single = len(scene.placements) == 1
    boxes = []
    for placement in scene.placements:
        assert 28 / 64 <= placement.size <= 52 / 64
        if single:
            assert placement.size >= 34 / 64
        half = placement.size / 2
        boxes.append((placement.x - half, placement.y - half, placement.x + half, placement.y + half))
        assert min(boxes[-1]) >= -1e-9
        assert max(boxes[-1]) <= 1 + 1e-9
    if not single:
        first, second = boxes
        width = min(first[2], second[2]) - max(first[0], second[0])
        height = min(first[3], second[3]) - max(first[1], second[1])
        assert min(width, height) <= 1e-9
        assert scene.placements[0].object != scene.placements[1].object


def test_objects_and_backgrounds_appear_about_equally_often() -> None:
    n = len(load_catalogue())
    scenes = [sample_scene(3, i, "train") for i in range(30 * n)]
    for block in range(30):
        shown = {placement.object.name for scene in scenes[block * n : block * n + n] for placement in scene.placements}
        assert len(shown) == n, "every block of consecutive scenes shows every object"
    objects = Counter(placement.object.name for scene in scenes for placement in scene.placements)
    assert max(objects.values()) / min(objects.values()) < 1.8
    backgrounds = Counter(scene.background for scene in scenes)
    assert set(backgrounds) == set(BACKGROUNDS)
    assert max(backgrounds.values()) / min(backgrounds.values()) < 1.4
    singles = sum(len(scene.placements) == 1 for scene in scenes) / len(scenes)
    assert 0.45 < singles < 0.55


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"'dev'.*train, validation, test"):
        sample_scene(0, 0, "dev")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="index -1"):
        sample_scene(0, -1, "test")

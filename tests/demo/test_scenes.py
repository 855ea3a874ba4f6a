"""Scenes: the catalogue, determinism, disjoint splits, balance, and pictures composited as Pillow does it."""

import csv
import hashlib
import io
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from unibrain.demo import BACKGROUNDS, Placement, Scene, load_catalogue, rearranged, render, sample_scene, split_of
from unibrain.demo.backgrounds import paint_background
from unibrain.demo.scenes import SPLITS, Split, read_sprite
from unibrain.errors import InputError

DATA = Path(str(files("unibrain.demo"))) / "data"
TABLE = Path(__file__).parents[2] / "tools" / "scene_objects.csv"


def test_names_and_noun_phrases_are_unique_and_plain() -> None:
    catalogue = load_catalogue()
    assert len({thing.name for thing in catalogue}) == len(catalogue)
    phrases = [phrase for thing in catalogue for phrase in (thing.noun, *thing.synonyms)]
    assert len(set(phrases)) == len(phrases), "two objects would be told apart by no caption"
    for phrase in phrases:
        assert re.fullmatch(r"[a-z]+( [a-z]+){0,4}", phrase), phrase
        assert not {"small", "large"} & set(phrase.split()), "a size belongs to the scene, not to the object"


def test_sprites_fill_a_128_pixel_square_and_no_file_is_spare() -> None:
    for thing in load_catalogue():
        with Image.open(io.BytesIO(read_sprite(thing.sprite))) as sprite:
            assert (sprite.format, sprite.mode, sprite.size) == ("PNG", "RGBA", (128, 128)), thing.name
            alpha = np.asarray(sprite)[..., 3]
        seen = alpha > 16
        extent = max(np.ptp(np.flatnonzero(seen.any(axis=axis))) + 1 for axis in (0, 1))
        assert extent >= 124, f"{thing.name} would be smaller on the picture than its placement says"
        assert seen.mean() > 0.2, thing.name
    assert {path.name for path in (DATA / "sprites").iterdir()} == {thing.sprite for thing in load_catalogue()}


def test_the_shipped_catalogue_is_the_curated_table() -> None:
    with TABLE.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(r["name"], r["noun"], r["synonym"], r["category"], r["keywords"]) for r in rows] == [
        (o.name, o.noun, (o.synonyms or ("",))[0], o.category, " ".join(o.keywords)) for o in load_catalogue()
    ]


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("LICENSE-FLUENT-EMOJI.txt", ("Copyright (c) Microsoft Corporation", "Permission is hereby granted", "1.1.0")),
        ("LICENSE-EMOJIBASE.txt", ("Miles Johnson", "Permission is hereby granted", "17.0.0")),
        ("LICENSE-DEJAVU-FONTS.txt", ("Bitstream Vera", "DejaVu")),
    ],
)
def test_licence_notices_are_shipped(name: str, needed: tuple[str, ...]) -> None:
    text = (DATA / name).read_text(encoding="utf-8")
    for words in needed:
        assert words in text


seeds = st.integers(0, 2**32 - 1)
indices = st.integers(0, 10**7)
splits = st.sampled_from(SPLITS)


@settings(max_examples=60, deadline=None)
@given(seeds, indices, splits)
def test_a_scene_belongs_to_the_split_it_was_drawn_for(seed: int, index: int, split: Split) -> None:
    scene = sample_scene(seed, index, split)
    assert scene.split == split == split_of(scene.content)
    assert sample_scene(seed, index, split) == scene


@settings(max_examples=3, deadline=None)
@given(seeds, seeds)
def test_splits_share_no_scene_whatever_the_seeds(one: int, other: int) -> None:
    keys = {
        split: {sample_scene(seed, i, split).content for seed in (one, other) for i in range(150)} for split in SPLITS
    }
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]


@settings(max_examples=20, deadline=None)
@given(seeds, indices, splits)
def test_a_rearranged_scene_shows_the_same_in_other_places(seed: int, index: int, split: Split) -> None:
    scene = sample_scene(seed, index, split)
    others = [rearranged(scene, np.random.default_rng([seed, number])) for number in range(40)]
    assert {other.content for other in others} == {scene.content}
    assert len({other.placements for other in others}) > 2
    assert len({other.variation for other in (scene, *others)}) == 41


def test_split_follows_the_sha256_of_the_content_alone() -> None:
    scene = sample_scene(0, 0, "train")
    digest = hashlib.sha256(scene.content.encode()).hexdigest()
    assert int(digest[:16], 16) % 10 >= 2
    jittered = Scene(scene.placements, scene.background, scene.variation + 1)
    assert (jittered.key, jittered.split) == (scene.key, scene.split)


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
        hashlib.sha256(keys.encode()).hexdigest() == "928458864c2fc3acb7346bc1df2abe5f5e91537c1f1059f581eaf5b8f2188ffb"
    )


@settings(max_examples=60, deadline=None)
@given(seeds, indices, splits)
def test_objects_are_large_enough_inside_and_hardly_overlap(seed: int, index: int, split: Split) -> None:
    scene = sample_scene(seed, index, split)
    single = len(scene.placements) == 1
    boxes = []
    for placement in scene.placements:
        assert 28 / 64 <= placement.size <= 52 / 64
        if single:
            assert 64 * placement.size in (36, 44, 52)
            assert {8 * placement.x, 8 * placement.y} in ({4}, {3, 4}, {4, 5}), "middle, or an eighth off"
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


def only_background(scene: Scene, size: int = 64) -> NDArray[np.uint8]:
    return render(Scene((), scene.background, scene.variation), size)


def box(placement: Placement, size: int) -> tuple[int, int, int]:
    left, top = (round((centre - placement.size / 2) * size) for centre in (placement.x, placement.y))
    return left, top, round(placement.size * size)


@pytest.mark.parametrize("index", range(4))
def test_objects_are_laid_over_the_background_as_pillow_does(index: int) -> None:
    scene = sample_scene(2, index, "train")
    expected = Image.fromarray(only_background(scene)).convert("RGBA")
    for placement in scene.placements:
        left, top, side = box(placement, 64)
        sprite = Image.open(io.BytesIO(read_sprite(placement.object.sprite))).resize(
            (side, side), Image.Resampling.LANCZOS
        )
        expected.alpha_composite(sprite, (left, top))
    picture = render(scene)
    difference = np.abs(np.asarray(expected.convert("RGB")).astype(int) - picture)
    assert difference.max() <= 2  # Pillow rounds to 8 bits after every object
    picture[:] = 0
    assert render(scene).any(), "a caller may write into the picture without spoiling later ones"


def test_objects_are_seen_on_backgrounds() -> None:
    names = list(BACKGROUNDS)
    for number, thing in enumerate(load_catalogue()):
        for name in (names[number % len(names)], names[(5 * number + 7) % len(names)]):
            scene = Scene((Placement(thing, 0.5, 0.5, 28 / 64),), name, 1)
            changed = np.abs(render(scene).astype(int) - only_background(scene)).max(axis=-1) > 24
            left, top, side = box(scene.placements[0], 64)
            inside = changed[top : top + side, left : left + side]
            assert inside.mean() > 0.15, (thing.name, name)
            assert changed.sum() == inside.sum(), "nothing changes outside the placement"


def test_a_background_varies_a_little_and_stays_itself() -> None:
    def painted(which: str) -> NDArray[np.float64]:
        # 8 x 8 block means: the layout that is seen at a glance
        pictures = np.stack([paint_background(which, variation, 64) for variation in range(12)]).astype(np.float64)
        blocks: NDArray[np.float64] = pictures.reshape(12, 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return blocks.reshape(12, -1)

    all_of_them = {name: painted(name) for name in BACKGROUNDS}
    for name, own in all_of_them.items():
        assert np.unique(own, axis=0).shape[0] == 12
        mean = own.mean(axis=0)
        spread = np.abs(own - mean).mean(axis=1).max()
        for other, pictures in all_of_them.items():
            if other != name:
                assert np.abs(pictures - mean).mean(axis=1).min() > spread, (name, other)

"""The catalogue: counts, nouns, sprites, licences, and the curated table it was built from."""

import csv
import io
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibrain.demo import CATEGORIES, load_catalogue
from unibrain.demo.scenes import read_sprite

DATA = Path(str(files("unibrain.demo"))) / "data"
TABLE = Path(__file__).parents[2] / "tools" / "scene_objects.csv"


def test_at_least_a_hundred_objects_over_eight_categories() -> None:
    counts = Counter(thing.category for thing in load_catalogue())
    assert sum(counts.values()) >= 120
    assert set(counts) == set(CATEGORIES)
    assert len(CATEGORIES) == 8
    assert min(counts.values()) >= 10


def test_names_and_noun_phrases_are_unique_and_plain() -> None:
    catalogue = load_catalogue()
    assert len({thing.name for thing in catalogue}) == len(catalogue)
    phrases = [phrase for thing in catalogue for phrase in (thing.noun, *thing.synonyms)]
    assert len(set(phrases)) == len(phrases), "two objects would be told apart by no caption"
    for phrase in phrases:
        assert re.fullmatch(r"[a-z]+( [a-z]+){0,4}", phrase), phrase
        assert not {"small", "large"} & set(phrase.split()), "a size belongs to the scene, not to the object"


def test_every_object_has_four_to_eight_keywords_and_most_are_shared() -> None:
    catalogue = load_catalogue()
    uses = Counter(keyword for thing in catalogue for keyword in thing.keywords)
    for thing in catalogue:
        assert 4 <= len(set(thing.keywords)) == len(thing.keywords) <= 8, thing.name
        assert any(uses[keyword] >= 3 for keyword in thing.keywords), thing.name


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


def test_sprites_weigh_one_to_three_megabytes() -> None:
    total = sum(path.stat().st_size for path in (DATA / "sprites").iterdir())
    assert 1e6 <= total <= 3e6


def test_objects_look_different_from_each_other_at_32_pixels() -> None:
    small = []
    for thing in load_catalogue():
        sprite = Image.open(io.BytesIO(read_sprite(thing.sprite))).resize((32, 32))
        grey = Image.new("RGBA", (32, 32), (128, 128, 128, 255))
        small.append(np.asarray(Image.alpha_composite(grey, sprite).convert("RGB"), dtype=np.float64).ravel())
    pictures = np.array(small)
    norms = (pictures**2).mean(axis=1)
    squared = norms[:, None] + norms[None, :] - 2 * pictures @ pictures.T / pictures.shape[1]
    np.fill_diagonal(squared, np.inf)
    assert np.sqrt(squared.min()) > 20


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

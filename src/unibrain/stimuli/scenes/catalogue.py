"""The objects of the scene world: 130 cut-outs in eight categories, with nouns and keywords."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

CATEGORIES: tuple[str, ...] = ("faces", "bodies", "places", "words", "animals", "food", "vehicles", "things")
"""The eight categories; the first four are those that NSD's functional localiser maps."""


@dataclass(frozen=True)
class SceneObject:
    """One object of the scene world.

    Attributes
    ----------
    name : str
        Unique id, for example ``"police-car"``.
    noun : str
        Noun phrase for captions, without article: ``"police car"``.
    synonyms : tuple of str
        Other noun phrases that some captions use instead of ``noun``; may be empty.
    category : str
        One of `CATEGORIES`.
    keywords : tuple of str
        Four to eight words on what the object is and looks like, shared between related objects.
    sprite : str
        File name of the cut-out in the package's ``data/sprites`` folder.
    """

    name: str
    noun: str
    synonyms: tuple[str, ...]
    category: str
    keywords: tuple[str, ...]
    sprite: str


@lru_cache(maxsize=1)
def load_catalogue() -> tuple[SceneObject, ...]:
    """Return all objects, always in the same order (that of the curated table).

    Returns
    -------
    tuple of SceneObject
    """
    text = (files(__package__) / "data" / "objects.json").read_text(encoding="utf-8")
    return tuple(
        SceneObject(
            name=row["name"],
            noun=row["noun"],
            synonyms=tuple(row["synonyms"]),
            category=row["category"],
            keywords=tuple(row["keywords"]),
            sprite=row["sprite"],
        )
        for row in json.loads(text)
    )


def read_sprite(sprite: str) -> bytes:
    """Return the PNG file (128 x 128 RGBA) of one object.

    Parameters
    ----------
    sprite : str
        `SceneObject.sprite`.
    """
    return (files(__package__) / "data" / "sprites" / sprite).read_bytes()

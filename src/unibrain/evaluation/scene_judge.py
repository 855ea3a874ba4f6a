"""An independent judge of decoded scenes: which objects, and which background, does it see or read?

On pictures it is a linear classifier on features of EfficientNet-lite0, fitted to rendered training scenes only, never
to decoded pictures (``python -m training train --parts judge``). In captions it finds the nouns and places of the scene
world.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.demo import BACKGROUNDS, load_catalogue
from unibrain.demo.backgrounds import background

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Judge:
    """Scores of objects and backgrounds from features of pictures.

    `mean` and `deviation`, shape (features,), are of the features over the scenes that it was fitted to; `objects` and
    `backgrounds`, shape (features + 1, ...), are weights, with the constant in the last row.
    """

    mean: Floats
    deviation: Floats
    objects: Floats
    backgrounds: Floats

    def names(self, features: Floats, number: int = 1) -> tuple[list[tuple[str, ...]], list[str]]:
        """Name the `number` most likely objects of each picture, best first, and its background."""
        rows = np.hstack([(features - self.mean) / self.deviation, np.ones((len(features), 1), dtype=np.float32)])
        catalogue = load_catalogue()
        best = np.argsort(-(rows @ self.objects), axis=1)[:, :number]
        seen = [tuple(catalogue[column].name for column in row) for row in best]
        return seen, [BACKGROUNDS[column] for column in (rows @ self.backgrounds).argmax(axis=1)]


def read_judge(path: Path) -> Judge:
    """Read a judge that training wrote."""
    from safetensors.numpy import load_file

    return Judge(**{name: values.astype(np.float32) for name, values in load_file(path).items()})


@cache
def scene_judge() -> Judge | None:
    """The judge that comes with the package; None if it is not there."""
    source = files("unibrain.evaluation") / "data" / "scene-judge.safetensors"
    if not source.is_file():
        return None
    with as_file(source) as path:
        return read_judge(path)


def scene_content(references: Sequence[Sequence[str]]) -> tuple[list[set[str]], list[str | None]]:
    """What is on each picture by its true captions: names of all objects, and of the background."""
    objects = [set().union(*map(objects_in, captions)) for captions in references]
    behind = [next(filter(None, map(background_in, captions)), None) for captions in references]
    return objects, behind


def objects_in(caption: str) -> set[str]:
    """Names of the objects that a caption names; of nouns within nouns ("letter s", "orange letter s") the longest."""
    return {_nouns()[found] for found in _pattern().findall(caption)}


def background_in(caption: str) -> str | None:
    """Name of the background that a caption names, or None; nouns of objects are left out before."""
    rest = _pattern().sub(" ", caption)
    for name in BACKGROUNDS:
        place = background(name)
        if any(re.search(rf"\b{phrase}\b", rest) for phrase in (*place.phrases, place.scenery)):
            return name
    return None


@cache
def _nouns() -> dict[str, str]:
    return {noun: thing.name for thing in load_catalogue() for noun in (thing.noun, *thing.synonyms)}


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(sorted(_nouns(), key=len, reverse=True))})\b")

"""An independent judge of decoded scenes: which objects, and which background, does it see or read?

On pictures it is a linear classifier on features of EfficientNet-lite0, fitted to rendered training scenes only, never
to decoded pictures. In captions it finds the nouns and places of the scene world.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from training.scenes import SceneSet
from unibrain.demo import BACKGROUNDS, load_catalogue
from unibrain.demo.backgrounds import background
from unibrain.evaluation.pictures import picture_features
from unibrain.workspace.files import atomic_path
from unibrain.workspace.progress import track

Floats = NDArray[np.float32]

SCENES = 6000
DECAY = 3e-4


@dataclass(frozen=True)
class Judge:
    """Scores of objects and backgrounds from features of pictures.

    Attributes
    ----------
    mean, deviation : ndarray of shape (features,), float32
        Of the features over the scenes that it was fitted to.
    objects : ndarray of shape (features + 1, objects), float32
        Weights, and the constant in the last row.
    backgrounds : ndarray of shape (features + 1, backgrounds), float32
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


def scene_features(scenes: SceneSet, folder: Path, count: int = SCENES) -> NDArray[np.float32]:
    """Features of the first scenes, computed once; what is done is kept every 500 pictures."""
    parts = []
    for first in track(range(0, count, 500), "features of scenes", unit="batch"):
        file = folder / f"judge-features-{scenes.split}-{first}.npy"
        if not file.exists():
            with atomic_path(file) as temporary:
                np.save(temporary, picture_features(np.array(scenes.pictures[first : min(first + 500, count)])))
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)


def fit_judge(features: NDArray[np.float32], scenes: SceneSet) -> Judge:
    """Fit two softmax regressions; a picture of two objects counts half for each."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    x = torch.from_numpy(np.hstack([(features - mean) / deviation, np.ones((len(features), 1), np.float32)]))
    present = torch.zeros((len(x), len(load_catalogue()) + 1))
    for slot in (0, 1):
        present[torch.arange(len(x)), torch.from_numpy(scenes.objects[: len(x), slot])] += 1
    present = present[:, :-1]  # -1, no second object, fell into the last column
    behind = nn.functional.one_hot(torch.from_numpy(scenes.backgrounds[: len(x)]), len(BACKGROUNDS)).float()
    objects, backgrounds = (_softmax_regression(x, labels / labels.sum(1, True)) for labels in (present, behind))
    return Judge(mean, deviation, objects, backgrounds)


def _softmax_regression(x: Tensor, shares: Tensor) -> NDArray[np.float32]:
    weights = torch.zeros((x.shape[1], shares.shape[1]), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        optimiser.zero_grad()
        total = nn.functional.cross_entropy(x @ weights, shares) + DECAY * weights[:-1].square().sum()
        total.backward()
        return total

    optimiser.step(error)
    return weights.detach().numpy()


def write_judge(judge: Judge, path: Path) -> None:
    """Write the weights in half precision, as the package holds them."""
    with atomic_path(path) as temporary:
        save_file({name: values.astype(np.float16) for name, values in vars(judge).items()}, temporary)


def read_judge(path: Path) -> Judge:
    """Read what `write_judge` wrote."""
    return Judge(**{name: values.astype(np.float32) for name, values in load_file(path).items()})


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


@lru_cache(maxsize=1)
def _nouns() -> dict[str, str]:
    return {noun: thing.name for thing in load_catalogue() for noun in (thing.noun, *thing.synonyms)}


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(sorted(_nouns(), key=len, reverse=True))})\b")

"""Scenes rendered once and kept on disk, for all parts of the training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.demo import describe, render, sample_scene
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.progress import track

__all__ = ["SceneSet", "scene_set"]


@dataclass(frozen=True)
class SceneSet:
    """Pictures with their captions.

    Attributes
    ----------
    pictures : ndarray of shape (n, size, size, 3), uint8
    captions : list of tuple of str
        At least five per picture.
    """

    pictures: NDArray[np.uint8]
    captions: list[tuple[str, ...]]


def scene_set(
    folder: Path, split: Literal["train", "validation", "test"], count: int, seed: int = 0, size: int = 64
) -> SceneSet:
    """Load a set of scenes, rendering it first if it is not there yet.

    Parameters
    ----------
    folder : Path
        Where rendered sets are kept.
    split : {"train", "validation", "test"}
        No scene is in two splits.
    count : int
        Number of scenes.
    seed : int
    size : int
        Pixels.

    Returns
    -------
    SceneSet
        The pictures are memory-mapped.
    """
    home = folder / f"scenes-{split}-{seed}-{count}-{size}"
    if not home.exists():
        with atomic_folder(home) as partial:
            pictures = np.empty((count, size, size, 3), dtype=np.uint8)
            captions = []
            for index in track(range(count), f"{split} scenes", unit="scene"):
                scene = sample_scene(seed, index, split)
                pictures[index] = render(scene, size)
                captions.append(describe(scene))
            np.save(partial / "pictures.npy", pictures)
            (partial / "captions.json").write_text(json.dumps(captions))
    captions = [tuple(row) for row in json.loads((home / "captions.json").read_text())]
    return SceneSet(np.load(home / "pictures.npy", mmap_mode="r", allow_pickle=False), captions)

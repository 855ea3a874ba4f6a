"""Scenes rendered once and kept on disk, and what is on them in numbers."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.demo import BACKGROUNDS, Scene, Split, describe, load_catalogue, rearranged, render, sample_scene
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.progress import track


@dataclass(frozen=True)
class SceneSet:
    """Pictures, their captions, and what is on them.

    Attributes
    ----------
    pictures : ndarray of shape (n, size, size, 3), uint8
        Memory-mapped.
    captions : list of tuple of str
        At least five per picture.
    objects : ndarray of shape (n, 2), int64
        Rows of the catalogue; the second is -1 where there is one object only.
    sizes : ndarray of shape (n, 2), float32
        Side of each object as a fraction of the picture.
    backgrounds : ndarray of shape (n,), int64
    seed, split
        Which scenes these are; `scene` makes them.
    moved : bool
        Whether objects and the jitter of backgrounds are drawn anew (`unibrain.demo.rearranged`).
    """

    pictures: NDArray[np.uint8]
    captions: list[tuple[str, ...]]
    objects: NDArray[np.int64]
    sizes: NDArray[np.float32]
    backgrounds: NDArray[np.int64]
    seed: int
    split: Split
    moved: bool = False

    def scene(self, index: int) -> Scene:
        """The scene of a picture."""
        return _scene(self.seed, index, self.split, self.moved)

    def first(self, count: int) -> "SceneSet":
        """The first scenes alone."""
        rows = slice(count)
        return replace(
            self,
            pictures=self.pictures[rows],
            captions=self.captions[rows],
            objects=self.objects[rows],
            sizes=self.sizes[rows],
            backgrounds=self.backgrounds[rows],
        )


def _scene(seed: int, index: int, split: Split, moved: bool) -> Scene:
    scene = sample_scene(seed, index, split)
    return rearranged(scene, np.random.default_rng([seed, 11, index])) if moved else scene


def scene_set(folder: Path, split: Split, count: int, seed: int = 0, size: int = 64, moved: bool = False) -> SceneSet:
    """Load a set of scenes, rendering it first if it is not in the folder yet."""
    home = folder / f"{'moved' if moved else 'scenes'}-{split}-{seed}-{count}-{size}"
    if not home.exists():
        rows = {thing.name: row for row, thing in enumerate(load_catalogue())}
        objects, sizes = np.full((count, 2), -1), np.zeros((count, 2), np.float32)
        pictures, backgrounds = np.empty((count, size, size, 3), np.uint8), np.zeros(count, np.int64)
        captions = []
        with atomic_folder(home) as partial:
            for index in track(range(count), f"{split} scenes", unit="scene"):
                scene = _scene(seed, index, split, moved)
                pictures[index] = render(scene, size)
                captions.append(describe(scene))
                backgrounds[index] = BACKGROUNDS.index(scene.background)
                for slot, placement in enumerate(scene.placements):
                    objects[index, slot], sizes[index, slot] = rows[placement.object.name], placement.size
            np.save(partial / "pictures.npy", pictures)
            np.savez(partial / "content.npz", objects=objects, sizes=sizes, backgrounds=backgrounds)
            (partial / "captions.json").write_text(json.dumps(captions))
    captions = [tuple(row) for row in json.loads((home / "captions.json").read_text())]
    with np.load(home / "content.npz", allow_pickle=False) as content:
        return SceneSet(
            pictures=np.load(home / "pictures.npy", mmap_mode="r", allow_pickle=False),
            captions=captions,
            objects=content["objects"],
            sizes=content["sizes"],
            backgrounds=content["backgrounds"],
            seed=seed,
            split=split,
            moved=moved,
        )


def covered(scenes: SceneSet, rows: int) -> NDArray[np.float32]:
    """Share of each of rows x rows patches that the square around each object fills: (n, 2, rows, rows)."""
    shares = np.zeros((len(scenes.captions), 2, rows, rows), dtype=np.float32)
    edges = np.arange(rows + 1) / rows
    for index in range(len(shares)):
        for slot, placement in enumerate(scenes.scene(index).placements):
            inside = []
            for centre in (placement.y, placement.x):
                least, most = centre - placement.size / 2, centre + placement.size / 2
                inside.append(np.clip(np.minimum(edges[1:], most) - np.maximum(edges[:-1], least), 0, None) * rows)
            shares[index, slot] = inside[0][:, None] * inside[1]
    return shares

"""Scenes rendered once and kept on disk, what is on them in numbers, and the code that CLIP's tokens approach."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unibrain.demo import BACKGROUNDS, CATEGORIES, Split, describe, load_catalogue, render, sample_scene
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.progress import track

PATCHES = 4
"""CLIP's patches along one side of a picture."""


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
    covered : ndarray of shape (n, 2, patches), float32
        Share of each patch that lies in the square around the object.
    backgrounds : ndarray of shape (n,), int64
    seed, split
        Scene i is ``sample_scene(seed, i, split)``.
    """

    pictures: NDArray[np.uint8]
    captions: list[tuple[str, ...]]
    objects: NDArray[np.int64]
    sizes: NDArray[np.float32]
    covered: NDArray[np.float32]
    backgrounds: NDArray[np.int64]
    seed: int
    split: Split


def scene_set(folder: Path, split: Split, count: int, seed: int = 0, size: int = 64) -> SceneSet:
    """Load a set of scenes, rendering it first if it is not in the folder yet."""
    home = folder / f"scenes-{split}-{seed}-{count}-{size}"
    if not home.exists():
        rows = {thing.name: row for row, thing in enumerate(load_catalogue())}
        edges = np.arange(PATCHES + 1) / PATCHES
        objects, sizes = np.full((count, 2), -1), np.zeros((count, 2), np.float32)
        covered = np.zeros((count, 2, PATCHES, PATCHES), np.float32)
        pictures, backgrounds = np.empty((count, size, size, 3), np.uint8), np.zeros(count, np.int64)
        captions = []
        with atomic_folder(home) as partial:
            for index in track(range(count), f"{split} scenes", unit="scene"):
                scene = sample_scene(seed, index, split)
                pictures[index] = render(scene, size)
                captions.append(describe(scene))
                backgrounds[index] = BACKGROUNDS.index(scene.background)
                for slot, placement in enumerate(scene.placements):
                    objects[index, slot], sizes[index, slot] = rows[placement.object.name], placement.size
                    across, down = (
                        np.diff(np.clip(edges, centre - placement.size / 2, centre + placement.size / 2)) * PATCHES
                        for centre in (placement.x, placement.y)
                    )
                    covered[index, slot] = down[:, None] * across
            np.save(partial / "pictures.npy", pictures)
            np.savez(partial / "content.npz", objects=objects, sizes=sizes, covered=covered, backgrounds=backgrounds)
            (partial / "captions.json").write_text(json.dumps(captions))
    captions = [tuple(row) for row in json.loads((home / "captions.json").read_text())]
    with np.load(home / "content.npz", allow_pickle=False) as content:
        return SceneSet(
            pictures=np.load(home / "pictures.npy", mmap_mode="r", allow_pickle=False),
            captions=captions,
            objects=content["objects"],
            sizes=content["sizes"],
            covered=content["covered"].reshape(count, 2, -1),
            backgrounds=content["backgrounds"],
            seed=seed,
            split=split,
        )


class SceneCode:
    """What CLIP's tokens should be: sums of one fixed vector per object and background, so that concepts add up.

    A linear regression can then predict the tokens from anything that objects and backgrounds can be read from
    linearly, and a mixture of tokens means a mixture of content. Objects of one category have similar vectors; those of
    backgrounds are orthogonal to all others. Nothing of it is kept after training.

    Parameters
    ----------
    width : int
        Of the tokens.
    text_tokens : int
    device : str
    """

    def __init__(self, width: int, text_tokens: int, device: str = "cpu") -> None:
        catalogue = load_catalogue()
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn((width, width), generator=generator))[0]
        spare = basis[len(BACKGROUNDS) :]
        categories = _directions((len(CATEGORIES), len(spare)), generator)
        own = _directions((len(catalogue), len(spare)), generator)
        category = torch.tensor([CATEGORIES.index(thing.category) for thing in catalogue])
        codes = nn.functional.normalize(0.2**0.5 * categories[category] + 0.8**0.5 * own) @ spare
        # The last row stands for "no object".
        self.objects = torch.cat([codes, torch.zeros((1, width))]).to(device)
        self.backgrounds = basis[: len(BACKGROUNDS)].to(device)
        self.places = 0.4 * _directions((PATCHES**2 + text_tokens + 1, width), generator).to(device)
        self.patches = PATCHES**2

    def image(self, objects: Tensor, sizes: Tensor, covered: Tensor, backgrounds: Tensor) -> Tensor:
        """Targets of shape (n, 1 + patches, width): the whole picture first, then what covers each patch."""
        content = self.objects[objects]
        everything = torch.einsum("bo,bod->bd", sizes, content)
        behind = 0.45 * self.backgrounds[backgrounds]
        whole = nn.functional.normalize(everything + behind + self.places[0], dim=-1)
        local = 0.7 * torch.einsum("bop,bod->bpd", covered, content) + (0.5 * everything + behind)[:, None]
        return torch.cat([whole[:, None], local + self.places[1 : self.patches + 1]], dim=1)

    def text(self, objects: Tensor, backgrounds: Tensor) -> Tensor:
        """Targets of shape (n, text tokens, width)."""
        content = self.objects[objects]
        pair = (objects[:, 1] >= 0).float()[:, None]
        everything = content.sum(1) * (0.7 - 0.2 * pair)
        said = everything + 0.45 * self.backgrounds[backgrounds]
        tokens: Tensor = said[:, None] + self.places[self.patches + 1 :]
        return tokens


def _directions(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random directions of length 1."""
    return nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)

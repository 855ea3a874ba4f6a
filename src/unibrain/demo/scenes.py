"""What a scene is: objects on a background; how scenes are drawn at random for a split, and how they are rendered.

A scene's `Scene.key` says what is on the picture: which objects, in which arrangement and relative
size, on which background. Its `Scene.split` follows from a hash of the objects and the background
alone (`Scene.content`), so two splits never share a combination of objects and background in any
arrangement, whatever the seeds and indices.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unibrain.demo.backgrounds import BACKGROUNDS, paint_background
from unibrain.errors import InputError

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
    """Return all objects, always in the same order (that of the curated table)."""
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
    """Return the PNG file (128 x 128 RGBA) that `SceneObject.sprite` names."""
    return (files(__package__) / "data" / "sprites" / sprite).read_bytes()


Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

GRID = 64
"""Positions and sizes are drawn in 64ths of the picture, so a 64-pixel picture is pixel-exact."""
SINGLE_SHARE = 0.5
"""Share of one-object scenes."""
SINGLE_SIDES = (36, 44, 52)
"""Sides of a single object, in 64ths of the picture."""
PAIR_SIDES = ((32, 32), (32, 32), (32, 32), (28, 36), (36, 28))
"""Sides of two objects; together they fill the picture in one direction."""
STEP = GRID // 8
"""Objects are in the middle or one step off it: a backbone as small as the one for these scenes spends what it has on
what objects look like, and not on where between two pixels they are."""
SMALL_SIZE, LARGE_SIZE = 39 / GRID, 47 / GRID
"""A single object up to the first is called small, from the second on large."""
SIZE_CONTRAST = 1.2
"""Of two objects, the larger must be this many times the smaller to be called large beside small."""
SIDE_OFFSET, MIDDLE_OFFSET = 7 / GRID, 3 / GRID
"""From the first on a single object's centre is off to a side; up to the second it is in the middle."""


@dataclass(frozen=True)
class Placement:
    """An object on the picture.

    Attributes
    ----------
    object : SceneObject
    x, y : float
        Centre as a fraction of the picture, ``x`` to the right and ``y`` down.
    size : float
        Side of the square around the object (its longer extent) as a fraction of the picture.
    """

    object: SceneObject
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background.

    Attributes
    ----------
    placements : tuple of Placement
        One object; or two, the left one first (when side by side) or the upper one first.
    background : str
        One of `BACKGROUNDS`.
    variation : int
        Seed of the background's jitter.
    """

    placements: tuple[Placement, ...]
    background: str
    variation: int

    @property
    def position(self) -> str:
        """Where a single object is: ``left``, ``right``, ``top``, ``bottom``, ``middle`` or empty."""
        if len(self.placements) != 1:
            return ""
        dx, dy = self.placements[0].x - 0.5, self.placements[0].y - 0.5
        if max(abs(dx), abs(dy)) <= MIDDLE_OFFSET + 1e-9:
            return "middle"
        if max(abs(dx), abs(dy)) < SIDE_OFFSET - 1e-9 or abs(dx) == abs(dy):
            return ""
        if abs(dx) > abs(dy):
            return "left" if dx < 0 else "right"
        return "top" if dy < 0 else "bottom"

    @property
    def sizes(self) -> tuple[str, ...]:
        """For each object ``small``, ``large`` or empty: of a single one by its size, of two relative to each other."""
        if len(self.placements) == 1:
            size = self.placements[0].size
            return ("small" if size <= SMALL_SIZE + 1e-9 else "large" if size >= LARGE_SIZE - 1e-9 else "",)
        first, second = (placement.size for placement in self.placements)
        if first >= SIZE_CONTRAST * second:
            return ("large", "small")
        if second >= SIZE_CONTRAST * first:
            return ("small", "large")
        return ("", "")

    @property
    def arrangement(self) -> str:
        """``single``, ``beside`` (two objects, left and right) or ``stacked`` (two, one above the other)."""
        if len(self.placements) == 1:
            return "single"
        first, second = self.placements
        return "beside" if abs(first.x - second.x) >= abs(first.y - second.y) else "stacked"

    @property
    def key(self) -> str:
        """What the scene shows, without pixel jitter; equal keys mean the same scene."""
        objects = ",".join(
            f"{size or 'medium'} {placement.object.name}"
            for size, placement in zip(self.sizes, self.placements, strict=True)
        )
        return f"{self.arrangement} {self.position}".strip() + f"|{objects}|{self.background}"

    @property
    def content(self) -> str:
        """Which objects are before which background, however arranged."""
        return ",".join(sorted(placement.object.name for placement in self.placements)) + f"|{self.background}"

    @property
    def split(self) -> Split:
        """The split that this scene belongs to: 80 % of contents train, 10 % validation, 10 % test."""
        return split_of(self.content)


def split_of(content: str) -> Split:
    """Return the split of a scene's content, from the first eight bytes of its SHA-256."""
    share = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % 10
    return "test" if share == 0 else "validation" if share == 1 else "train"


@lru_cache(maxsize=64)
def _order(seed: int, block: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 7, block]).permutation(n)


def sample_scene(seed: int, index: int, split: Split) -> Scene:
    """Draw a scene of one split.

    Every run of as many consecutive indices as there are objects, starting at a multiple of that
    number, shows each object once as its main object; second objects, places and sizes are drawn
    uniformly. A draw that falls into another split is drawn again with the same main object.

    Parameters
    ----------
    seed, index : int
        0 or more; the same pair gives the same scene on every machine.
    split : {"train", "validation", "test"}

    Returns
    -------
    Scene

    Raises
    ------
    InputError
        When ``split`` is none of the three, or ``seed`` or ``index`` is negative.
    """
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r} of scenes. Choose one of {', '.join(SPLITS)}.")
    if seed < 0 or index < 0:
        raise InputError(f"A scene cannot have seed {seed} and index {index}. Choose 0 or more.")
    catalogue = load_catalogue()
    block, position = divmod(index, len(catalogue))
    main = int(_order(seed, block, len(catalogue))[position])
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    while True:
        scene = _draw(rng, catalogue, main)
        if scene.split == split:
            return scene


def rearranged(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draw places and sizes of a scene's objects and the jitter of its background anew; its `Scene.content` stays.

    Parameters
    ----------
    scene : Scene
    rng : numpy.random.Generator

    Returns
    -------
    Scene
    """
    things = [placement.object for placement in scene.placements]
    placements = _single(rng, *things) if len(things) == 1 else _pair(rng, *things)
    return Scene(placements, scene.background, _variation(rng))


def _draw(rng: np.random.Generator, catalogue: tuple[SceneObject, ...], main: int) -> Scene:
    if rng.random() < SINGLE_SHARE:
        placements = _single(rng, catalogue[main])
    else:
        other = int(rng.integers(len(catalogue) - 1))
        placements = _pair(rng, catalogue[main], catalogue[other + (other >= main)])
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(placements, background, _variation(rng))


def _variation(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _place(thing: SceneObject, x: int, y: int, side: int) -> Placement:
    return Placement(thing, x / GRID, y / GRID, side / GRID)


def _single(rng: np.random.Generator, thing: SceneObject) -> tuple[Placement, ...]:
    side = SINGLE_SIDES[int(rng.integers(len(SINGLE_SIDES)))]
    middle = GRID // 2
    axis, sign = int(rng.integers(3)), int(rng.choice((-1, 1)))
    off = sign * STEP if side + 2 * STEP <= GRID else 0  # a large object fills too much to be on one side
    return (_place(thing, middle + off * (axis == 0), middle + off * (axis == 1), side),)


def _pair(rng: np.random.Generator, main: SceneObject, other: SceneObject) -> tuple[Placement, ...]:
    sides = PAIR_SIDES[int(rng.integers(len(PAIR_SIDES)))]
    things = [main, other]
    if rng.random() < 0.5:
        things.reverse()
    beside = rng.random() < 0.6
    placements = []
    for thing, side, along in zip(things, sides, (sides[0] // 2, GRID - sides[1] // 2), strict=True):
        across = GRID // 2 + STEP * int(rng.integers(-1, 2))
        placements.append(_place(thing, along, across, side) if beside else _place(thing, across, along, side))
    return tuple(placements)


@lru_cache(maxsize=256)
def _sprite(sprite: str) -> Image.Image:
    with Image.open(io.BytesIO(read_sprite(sprite))) as picture:
        # Colours multiplied by opacity, which is what resizing needs.
        return picture.convert("RGBA").convert("RGBa")


@lru_cache(maxsize=8192)
def _scaled(sprite: str, side: int) -> NDArray[np.uint8]:
    """An object at one size, uint8 of shape (4, side, side): red, green, blue, opacity."""
    scaled = _sprite(sprite).resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))


def render(scene: Scene, size: int = 64) -> NDArray[np.uint8]:
    """Draw a scene.

    Parameters
    ----------
    scene : Scene
    size : int
        Side of the picture in pixels; objects scale with it.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        RGB.
    """
    canvas = paint_background(scene.background, scene.variation, size) * np.float32(255)
    for placement in scene.placements:
        side = max(1, min(size, round(placement.size * size)))
        left = min(max(round((placement.x - placement.size / 2) * size), 0), size - side)
        top = min(max(round((placement.y - placement.size / 2) * size), 0), size - side)
        sprite = _scaled(placement.object.sprite, side)
        alpha = sprite[3].astype(np.float32) / np.float32(255)
        under = canvas[:, top : top + side, left : left + side]
        under += alpha * (sprite[:3] - under)
    picture: NDArray[np.uint8] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))

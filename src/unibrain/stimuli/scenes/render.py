"""Pictures of scenes: sprites laid over a painted background."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unibrain.stimuli.scenes.backgrounds import paint_background
from unibrain.stimuli.scenes.catalogue import read_sprite
from unibrain.stimuli.scenes.scene import Scene


@lru_cache(maxsize=256)
def _sprite(sprite: str) -> Image.Image:
    with Image.open(io.BytesIO(read_sprite(sprite))) as picture:
        return picture.convert("RGBA")


@lru_cache(maxsize=8192)
def _scaled(sprite: str, side: int) -> NDArray[np.uint8]:
    return np.asarray(_sprite(sprite).resize((side, side), Image.Resampling.LANCZOS))


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
        alpha = sprite[..., 3:].astype(np.float32) / np.float32(255)
        under = canvas[top : top + side, left : left + side]
        under += alpha * (sprite[..., :3] - under)
    picture: NDArray[np.uint8] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return picture

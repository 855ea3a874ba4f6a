"""The twelve procedural backgrounds, drawn with numpy at any size.

Every background is a smooth function of the picture coordinates (``x`` to the right and ``y`` down,
both 0 to 1) and of a handful of random numbers, so that it looks the same at every size.

Colours come first, and what depends on one coordinate alone is computed along it alone: ``x`` is a row and ``y`` a
column, a colour is of shape (3, 1, 1), and a picture of (3, size, size), or 1 where it does not change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_ZERO, _ONE = np.float32(0), np.float32(1)
Painter = Callable[[Floats, Floats, np.random.Generator], Floats]


@dataclass(frozen=True)
class Background:
    """How one background is painted and named: ``("on a beach", "at the beach")``, ``"a sandy beach"``."""

    name: str
    phrases: tuple[str, ...]
    scenery: str
    paint: Painter


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Floats, Floats]:
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, :], centres[:, None]


@lru_cache(maxsize=256)
def _rgb(colour: int) -> Floats:
    channels = np.array([colour >> 16 & 255, colour >> 8 & 255, colour & 255], dtype=np.float32)
    return channels[:, None, None] / np.float32(255)


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """Go from ``first`` (share 0) to ``second`` (share 1); ``share`` has no colour axis."""
    return first + (second - first) * share


def _clipped(values: NDArray[Any]) -> Floats:
    """Values from 0 to 1, sooner than by `numpy.clip` where they are few."""
    clipped: Floats = np.minimum(np.maximum(values, _ZERO), _ONE)
    return clipped


def _step(value: Floats, softness: float = 0.012) -> Floats:
    """0 where ``value`` is negative, 1 where it is positive, with a soft edge about one 64th wide."""
    return _clipped(value / np.float32(2 * softness) + np.float32(0.5))


def _between(rng: np.random.Generator, low: float, high: float) -> np.float32:
    return np.float32(rng.uniform(low, high))


def _tint(rng: np.random.Generator, colour: int, amount: float = 0.035) -> Floats:
    """A colour of the palette, shifted a little."""
    return _clipped(_rgb(colour) + rng.uniform(-amount, amount, (3, 1, 1)).astype(np.float32))


def _wave(t: Floats, rng: np.random.Generator, cycles: float) -> Floats:
    """A smooth wavy line: two sines with random phases, range about -1 to 1."""
    a, b = rng.uniform(0, 2 * np.pi, 2)
    turn = np.float32(2 * np.pi * cycles) * t
    wave: Floats = np.float32(0.65) * np.sin(turn + np.float32(a)) + np.float32(0.35) * np.sin(
        np.float32(2.3) * turn + np.float32(b)
    )
    return wave


def _sky(y: Floats, top: Floats, low: Floats, horizon: np.float32) -> Floats:
    return _mix(top, low, _clipped(y / horizon))


def _beach(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    horizon = _between(rng, 0.28, 0.36)
    shore = _between(rng, 0.52, 0.6) + np.float32(0.02) * _wave(x, rng, 1.0)
    picture = _sky(y, _tint(rng, 0x6EC3F2), _tint(rng, 0xD4EFFA), horizon)
    picture = _mix(picture, _tint(rng, 0x1FA3B8), _step(y - horizon))
    picture = _mix(picture, _rgb(0xF4FBFA), _step(y - shore + np.float32(0.025)))
    return _mix(picture, _tint(rng, 0xEBCF93), _step(y - shore))


def _field(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    hill = _between(rng, 0.26, 0.38) + np.float32(0.03) * _wave(x, rng, 0.8)
    picture = _sky(y, _tint(rng, 0x8FD0F5), _tint(rng, 0xE3F4FA), np.float32(0.4))
    grass = _mix(_tint(rng, 0x8CCB4A), _tint(rng, 0x4B9A2C), _clipped((y - hill) / np.float32(0.65)))
    return _mix(picture, grass, _step(y - hill))


def _forest(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    light = _mix(_tint(rng, 0x2F6B3F), _tint(rng, 0x12402A), y)
    stripes = np.sin(np.float32(2 * np.pi * rng.uniform(4.2, 5.2)) * x + _between(rng, 0, 6.28))
    trunks = _step(stripes - np.float32(0.35), 0.25) * _step(np.float32(0.84) - y, 0.03)
    picture = _mix(light, _tint(rng, 0x4A2F1D), trunks)
    crown = _between(rng, 0.18, 0.26) + np.float32(0.05) * _wave(x, rng, 2.2)
    picture = _mix(picture, _tint(rng, 0x1E5B2E), _step(crown - y, 0.03))
    return _mix(picture, _tint(rng, 0x3A5A25), _step(y - np.float32(0.84), 0.02))


def _night(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    picture = _mix(_tint(rng, 0x0C1440, 0.02), _tint(rng, 0x34408F, 0.03), y)
    for _ in range(14):
        cx, cy = _between(rng, 0.03, 0.97), _between(rng, 0.03, 0.75)
        width = _between(rng, 0.009, 0.016)
        glow = (
            np.exp(-((x[0] - cx) ** 2) / (2 * width**2))[None, :]
            * np.exp(-((y[:, 0] - cy) ** 2) / (2 * width**2))[:, None]
        )
        picture = _mix(picture, _rgb(0xFFF8D0), glow)
    ground = _between(rng, 0.86, 0.92) + np.float32(0.02) * _wave(x, rng, 1.0)
    return _mix(picture, _tint(rng, 0x10162B, 0.02), _step(y - ground))


def _snow(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    hill = _between(rng, 0.36, 0.46) + np.float32(0.04) * _wave(x, rng, 0.7)
    picture = _sky(y, _tint(rng, 0x9DB8D6), _tint(rng, 0xC9D9E8), np.float32(0.45))
    firs = np.abs(np.mod(x * np.float32(rng.uniform(4.5, 6)) + _between(rng, 0, 1), 1) - np.float32(0.5))
    picture = _mix(picture, _tint(rng, 0x55786F), _step(y - hill + np.float32(0.2) - np.float32(0.42) * firs, 0.03))
    snow = _mix(_tint(rng, 0xFBFDFF, 0.01), _tint(rng, 0xDDE8F5, 0.02), _clipped((y - hill) / np.float32(0.6)))
    return _mix(picture, snow, _step(y - hill))


def _desert(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    picture = _sky(y, _tint(rng, 0xF3C77C), _tint(rng, 0xFBE9C0), np.float32(0.5))
    for height, colour in ((0.42, 0xE3A35A), (0.58, 0xD08A3F), (0.76, 0xB86F2C)):
        dune = np.float32(height) + _between(rng, -0.04, 0.04) + np.float32(0.05) * _wave(x, rng, 0.75)
        picture = _mix(picture, _tint(rng, colour, 0.025), _step(y - dune))
    return picture


def _sea(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    horizon = _between(rng, 0.2, 0.3)
    picture = _sky(y, _tint(rng, 0xA9D8F5), _tint(rng, 0xE6F5FB), horizon)
    depth = _clipped((y - horizon) / (1 - horizon))
    water = _mix(_tint(rng, 0x2C86D1), _tint(rng, 0x0B3F92), depth)
    crest = np.sin(np.float32(2 * np.pi * 6.5) * depth ** np.float32(0.7) + np.float32(0.9) * _wave(x, rng, 1.6))
    water = _mix(water, _rgb(0x8CC8F2), np.float32(0.45) * _step(crest - np.float32(0.72), 0.15))
    return _mix(picture, water, _step(y - horizon))


def _street(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    picture = _sky(y, _tint(rng, 0xB7C9D9), _tint(rng, 0xDCE4EA), np.float32(0.5))
    edges = np.cumsum(rng.uniform(0.16, 0.26, 7)).astype(np.float32) - np.float32(0.08)
    lot = (x[0][:, None] > edges[None, :]).sum(axis=1)
    roofs = rng.uniform(0.06, 0.36, 8).astype(np.float32)[lot]
    shades = rng.choice(np.array([0x8A7F8C, 0x6F7688, 0xA28477, 0x7A8CA0]), 8)
    walls = np.concatenate([_tint(rng, int(shade)) for shade in shades], axis=2)[..., lot]
    windows = (np.sin(np.float32(2 * np.pi * 11) * x) > 0.1) & (np.sin(np.float32(2 * np.pi * 9) * y) > 0.1)
    facade = _mix(walls, _rgb(0xF4E3A1), np.float32(0.55) * windows)
    picture = _mix(picture, facade, _step(y - roofs[None, :]))
    kerb = _between(rng, 0.72, 0.78)
    picture = _mix(picture, _tint(rng, 0xC2BDB5, 0.02), _step(y - kerb))
    return _mix(picture, _tint(rng, 0x55585E, 0.02), _step(y - kerb - np.float32(0.08)))


def _room(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    floor = _between(rng, 0.66, 0.74)
    paper = _mix(
        _tint(rng, 0xEFB6BE, 0.02), _tint(rng, 0xE39CA8, 0.02), _step(np.sin(np.float32(2 * np.pi * 7) * x), 0.2)
    )
    planks = _mix(
        _tint(rng, 0x9A6236), _tint(rng, 0x84512B), _step(np.sin(np.float32(2 * np.pi * 9) * (y - floor)), 0.2)
    )
    picture = _mix(paper, planks, _step(y - floor))
    skirting = _step(y - floor + np.float32(0.045)) * _step(floor - y)
    return _mix(picture, _rgb(0xFBF3EA), skirting)


def _road(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    horizon = _between(rng, 0.26, 0.34)
    vanishing = _between(rng, 0.44, 0.56)
    picture = _sky(y, _tint(rng, 0x9CCBEA), _tint(rng, 0xE8F1F3), horizon)
    picture = _mix(picture, _tint(rng, 0xA9B35C), _step(y - horizon))
    depth = np.maximum(y - horizon, 0) / (1 - horizon)
    offset = np.abs(x - vanishing)
    picture = _mix(
        picture, _rgb(0xF0F0EA), _step(np.float32(0.04) + np.float32(0.49) * depth - offset) * _step(y - horizon)
    )
    picture = _mix(
        picture,
        _tint(rng, 0x5A5D63, 0.02),
        _step(np.float32(0.03) + np.float32(0.44) * depth - offset) * _step(y - horizon),
    )
    dashes = _step(np.sin(np.float32(16) * np.sqrt(depth) + _between(rng, 0, 6.28)), 0.2)
    line = _step(np.float32(0.005) + np.float32(0.03) * depth - offset) * dashes * _step(y - horizon)
    return _mix(picture, _rgb(0xF7D64A), line)


def _sunset(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    horizon = _between(rng, 0.74, 0.82)
    upper = _mix(_tint(rng, 0x5B2A86), _tint(rng, 0xE8486A), _clipped(y / np.float32(0.42)))
    picture = _mix(upper, _tint(rng, 0xFFB347), _clipped((y - np.float32(0.35)) / np.float32(0.42)))
    sun = np.float32(0.17) - np.hypot(x - _between(rng, 0.25, 0.75), y - horizon)
    picture = _mix(picture, _rgb(0xFFEE9E), _step(sun, 0.02))
    hill = horizon + np.float32(0.02) * _wave(x, rng, 1.0)
    return _mix(picture, _tint(rng, 0x3B1B3F, 0.02), _step(y - hill))


def _wall(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    rows, shift = np.float32(8), _between(rng, 0, 1)
    row = np.floor(y * rows + shift)
    along = np.mod(x * np.float32(4) + np.float32(0.5) * np.mod(row, 2) + _between(rng, 0, 1), 1)
    across = np.mod(y * rows + shift, 1)
    mortar = np.maximum(
        _step(np.float32(0.05) - np.minimum(along, 1 - along), 0.03),
        _step(np.float32(0.1) - np.minimum(across, 1 - across), 0.06),
    )
    brick = _mix(_tint(rng, 0xA9492F), _tint(rng, 0x8C3A26), np.mod(row, 2))
    return _mix(brick, _tint(rng, 0xCDB9A8), mortar)


_PAINTED = (
    Background("beach", ("on a beach", "at the beach"), "a sandy beach", _beach),
    Background("field", ("on a green field", "in the grass"), "a green field", _field),
    Background("forest", ("in a forest", "in the woods"), "a dark forest", _forest),
    Background("night", ("under a night sky", "under the stars"), "a night sky", _night),
    Background("snow", ("in the snow", "on a snowy day"), "a snowy field", _snow),
    Background("desert", ("in a desert", "on the dunes"), "a desert", _desert),
    Background("sea", ("on the sea", "over the water"), "a blue sea", _sea),
    Background("street", ("on a city street", "in the city"), "a city street", _street),
    Background("room", ("in a room", "inside a room"), "a pink room", _room),
    Background("road", ("on a road", "on a country road"), "a country road", _road),
    Background("sunset", ("under a sunset sky", "in front of a sunset"), "a sunset sky", _sunset),
    Background("wall", ("in front of a wall", "by a brick wall"), "a brick wall", _wall),
)
_BY_NAME = {background.name: background for background in _PAINTED}

BACKGROUNDS: tuple[str, ...] = tuple(background.name for background in _PAINTED)
"""Names of the twelve backgrounds."""


def background(name: str) -> Background:
    """Return one background by its name (`KeyError` when unknown)."""
    return _BY_NAME[name]


def paint_background(name: str, variation: int, size: int) -> Floats:
    """Paint a background as float32 of shape (3, size, size), 0 to 1; `variation` seeds horizon, hues and waves."""
    painted = background(name).paint(*_grid(size), np.random.default_rng([variation]))
    picture = np.empty((3, size, size), dtype=np.float32)
    return np.clip(painted, 0, 1, out=picture)

"""Inputs of the fingerprints, made of whole numbers, so that every machine has the very same ones."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAPTIONS", "SENTENCES", "fixed_numbers", "fixed_picture", "mixed"]

SENTENCES = (
    "A red bus drives past two sleeping dogs.",
    "The  CAT's bowl isn't near 12 café tables -- it's gone!",
    "",
    "Naïve façades, 漢字 and ½ of an emoji 🙂 stay\twhole",
    "a dog and a cat and a bird and a horse and a cow and a bear and a panda and a monkey and a tree on the beach",
)
"""Case, accents, digits, contractions, runs of blanks, other scripts, nothing, and more than a tokenizer keeps."""

CAPTIONS = (
    "a picture of an exit sign on a green field",
    "A dinosaur next to a green letter k in the snow",
    "a sunflower beside a brown horse under a sunset sky",
)
"""Sentences of the scene world, which the small backbone was trained on."""


def mixed(count: int, seed: int) -> NDArray[np.uint32]:
    """Whole numbers that look random: an invertible mix of the bits of a counter.

    Parameters
    ----------
    count : int
    seed : int
        0 to 999.

    Returns
    -------
    ndarray of shape (count,), uint32
        The same on every machine and with every version of NumPy, unlike a random generator's stream.
    """
    number = np.arange(count, dtype=np.uint32) + np.uint32(seed * 4_000_037)
    for factor in (0x7FEB352D, 0x846CA68B):
        number ^= number >> np.uint32(16)
        number *= np.uint32(factor)
    return number ^ (number >> np.uint32(15))


def fixed_numbers(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Numbers that look like noise: evenly spread, mean about 0, variance about 1.

    Parameters
    ----------
    shape : tuple of int
    seed : int
        0 to 999.

    Returns
    -------
    ndarray of shape `shape`, float32
        Between -1.73 and 1.73.
    """
    steps = (mixed(int(np.prod(shape)), seed) >> np.uint32(8)).astype(np.float64) / 2**24
    return ((steps - 0.5) * 12**0.5).reshape(shape).astype(np.float32)


def fixed_picture(height: int, width: int) -> NDArray[np.uint8]:
    """A picture with smooth ramps, sharp edges, fine texture and three unlike channels.

    Anything that is done differently to it shows: another filter at the edges, no antialiasing in the texture, swapped
    channels or axes in the ramps.

    Parameters
    ----------
    height, width : int
        Pixels.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
    """
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    ramp = 255 * row // max(height - 1, 1) + 0 * column
    checks = 230 * ((7 * row // height + 5 * column // width) % 2) + 12
    texture = (mixed(height * width, 1) >> np.uint32(24)).astype(np.int64).reshape(height, width)
    wedge = np.where(3 * column * height > 2 * row * width + height * width, 200, 40)
    return np.stack([ramp, (checks + texture) // 2, (wedge + ramp * column // width) // 2], axis=-1).astype(np.uint8)

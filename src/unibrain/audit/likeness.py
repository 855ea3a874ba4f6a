"""How alike pictures are: the same pixels, or the same edges in a small grey copy.

Two pictures are compared by the cosine of the differences between neighbouring pixels of their grey copies of 32 x 32.
Differences do not know the overall brightness, the cosine does not know the contrast, and averaging into few pixels
forgets JPEG's rounding; pictures of different things, which may share a bright sky above a dark ground, have their
edges in different places.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.nearest import unit_rows
from unibrain.workspace.progress import track

__all__ = ["NEAR_DUPLICATE", "SIDE", "SmallPictures", "edges_of", "small_pictures"]

NEAR_DUPLICATE = 0.9
"""From this likeness on two pictures count as near duplicates. Recompressed or brightened copies are above 0.95; the
nearest of thousands of other photographs is usually below 0.8."""
SIDE = 32
"""Side of the grey copies, in pixels."""
_BYTES_AT_ONCE = 32 * 2**20


@dataclass(frozen=True)
class SmallPictures:
    """What is kept of pictures to compare them.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
    digests : tuple of n str
        sha256 of the pixels.
    edges : ndarray of shape (n, 2 * 31 * 32), float32
        See `edges_of`; 8 kB for a picture.
    """

    stimulus_ids: NDArray[np.int64]
    digests: tuple[str, ...]
    edges: NDArray[np.float32]


def edges_of(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Differences of neighbouring pixels in small grey copies.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 3), uint8

    Returns
    -------
    ndarray of shape (n, 2 * 31 * 32), float32
        Rows of length 1, or 0 for a picture of one shade; the dot product of two rows is the likeness, -1 to 1.
    """
    from PIL import Image

    small = np.empty((len(pictures), SIDE, SIDE), dtype=np.float32)
    for row, picture in enumerate(pictures):
        # In floats: rounding the grey values would drown the edges of a faint picture.
        grey = Image.fromarray(picture).convert("L").convert("F")
        small[row] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    across = np.diff(small, axis=2).reshape(len(small), SIDE * (SIDE - 1))
    down = np.diff(small, axis=1).reshape(len(small), SIDE * (SIDE - 1))
    return unit_rows(np.concatenate((across, down), axis=1))


def small_pictures(
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]], stimulus_ids: NDArray[np.int64]
) -> SmallPictures:
    """Read pictures, some at a time, and keep what is needed to compare them.

    Parameters
    ----------
    read : callable
        As `unibrain.stimuli.Stimuli.read_pictures`.
    stimulus_ids : ndarray of shape (n,), int64

    Returns
    -------
    SmallPictures

    Raises
    ------
    InputError
        If a picture cannot be read.
    """
    edges = np.empty((len(stimulus_ids), 2 * SIDE * (SIDE - 1)), dtype=np.float32)
    digests: list[str] = []
    for pictures in _read(read, stimulus_ids):
        start = len(digests)
        digests += [hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest() for picture in pictures]
        edges[start : len(digests)] = edges_of(pictures)
    return SmallPictures(stimulus_ids, tuple(digests), edges)


def _read(
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]], stimulus_ids: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    if not len(stimulus_ids):
        return
    first = read(stimulus_ids[:1])
    yield first
    step = max(1, _BYTES_AT_ONCE // max(first.nbytes, 1))
    starts = range(1, len(stimulus_ids), step)
    for start in track(starts, "comparing pictures", unit="block"):
        yield read(stimulus_ids[start : start + step])

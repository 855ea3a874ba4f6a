"""Pictures as every part of the backbone takes them: 8-bit RGB."""

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["check_pictures", "resize_pictures"]


def check_pictures(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `pictures` if they are uint8 of shape (n, height, width, 3); raise `InputError` if not."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise InputError(
            f"pictures are {pictures.dtype} of shape {pictures.shape}, expected uint8 of shape (n, height, width, 3): "
            "convert them, floats mean different things to different libraries"
        )
    return pictures


def resize_pictures(pictures: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize pictures (bicubic, Pillow's 8-bit way) to a square; those of that size are copied.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 3), uint8
    size : int
        Pixels.

    Returns
    -------
    ndarray of shape (n, size, size, 3), uint8
    """
    if pictures.shape[1:3] == (size, size):
        return np.array(pictures)
    from PIL import Image

    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(picture).resize((size, size), bicubic)) for picture in pictures])

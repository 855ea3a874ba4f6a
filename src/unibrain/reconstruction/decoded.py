"""`Decoded`: a picture and a caption per scan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["Decoded"]


@dataclass(frozen=True)
class Decoded:
    """What was decoded, one row per scan.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids of the images that were seen.
    pictures : ndarray of shape (n, height, width, 3), uint8
        Decoded pictures, RGB.
    captions : tuple of str, length n
        Decoded captions; one may be empty.
    """

    stimulus_ids: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.stimulus_ids)
        if self.pictures.ndim != 4 or self.pictures.shape[-1] != 3 or self.pictures.dtype != np.uint8:
            raise InputError(
                f"decoded pictures are {self.pictures.dtype} of shape {self.pictures.shape}, "
                "expected uint8 of shape (n, height, width, 3)"
            )
        if len(self.pictures) != n or len(self.captions) != n:
            raise InputError(
                f"{len(self.pictures)} decoded pictures and {len(self.captions)} captions for {n} scans, "
                "expected one of each per scan: reconstruct again"
            )

"""The four latents of UniBrain (paper, figure 2): where each flow starts, and what guides it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["LATENT_NAMES", "LATENT_TITLES", "Latents", "rows_of"]

LATENT_NAMES = ("z_image", "z_text", "c_image", "c_text")
"""Image latent (AutoKL), text latent (Optimus), CLIP-Image tokens, CLIP-Text tokens."""

LATENT_TITLES = {
    "z_image": "image latent (AutoKL)",
    "z_text": "text latent (Optimus)",
    "c_image": "CLIP-Image tokens",
    "c_text": "CLIP-Text tokens",
}


@dataclass(frozen=True)
class Latents:
    """The four latents of a set of images.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids, in the order of the rows.
    z_image : ndarray of shape (n, channels, height, width), float32
        Scaled AutoKL latent.
    z_text : ndarray of shape (n, width), float32
        Optimus mean.
    c_image : ndarray of shape (n, image tokens, context width), float32
        CLIP-Image tokens.
    c_text : ndarray of shape (n, text tokens, context width), float32
        CLIP-Text tokens (mean over an image's captions).
    """

    stimulus_ids: NDArray[np.int64]
    z_image: NDArray[np.float32]
    z_text: NDArray[np.float32]
    c_image: NDArray[np.float32]
    c_text: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.stimulus_ids)
        for name, dimensions in zip(LATENT_NAMES, (4, 2, 3, 3), strict=True):
            array = self[name]
            if array.ndim != dimensions or len(array) != n:
                raise InputError(
                    f"latent {name} has shape {array.shape}, expected {dimensions} dimensions and {n} rows, "
                    "one per image: extract the latents again"
                )

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in LATENT_NAMES:
            raise KeyError(f"no latent {name!r}; there are {', '.join(LATENT_NAMES)}")
        array: NDArray[np.float32] = getattr(self, name)
        return array

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def items(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Pairs of latent name and array, in the order of `LATENT_NAMES`."""
        return ((name, self[name]) for name in LATENT_NAMES)

    def rows(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Latents":
        """Keep some rows (a slice, a mask or row numbers)."""
        return Latents(self.stimulus_ids[rows], *(array[rows] for _, array in self.items()))

    def select(self, stimulus_ids: NDArray[np.int64]) -> "Latents":
        """The rows of `stimulus_ids`, in that order, an id as often as it is named.

        Raises
        ------
        InputError
            If one of them is not there.
        """
        return self.rows(rows_of(self.stimulus_ids, stimulus_ids))


def rows_of(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each wanted image.

    Parameters
    ----------
    known : ndarray of shape (n,), int64
        Image of each row; of an image with several rows, the first counts.
    wanted : ndarray of shape (m,), int64
        Ids, in any order; one may occur several times.

    Returns
    -------
    ndarray of shape (m,), int64

    Raises
    ------
    InputError
        If one of them is not there.
    """
    wanted = np.asarray(wanted, dtype=np.int64).reshape(-1)
    images, first = np.unique(known, return_index=True)
    place = np.minimum(np.searchsorted(images, wanted), max(len(images) - 1, 0))
    found = images[place] == wanted if len(images) else np.zeros(len(wanted), dtype=bool)
    if not found.all():
        absent = wanted[~found]
        raise InputError(
            f"no latents for image id {absent[0]} ({len(absent)} of {len(wanted)} are missing), "
            "expected all: extract the latents of this subject's images"
        )
    return first[place].astype(np.int64)

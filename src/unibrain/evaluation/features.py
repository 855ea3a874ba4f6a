"""`FeatureCache`: features of pictures, kept by what the pictures are, in memory and if wanted on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.workspace.files import atomic_path


class FeatureCache:
    """Features of sets of pictures, computed once for each set and each way to compute them.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Keeps them for the next time; without it they are kept in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, NDArray[np.float32]] = {}

    def get(
        self,
        way: str,
        pictures: NDArray[np.uint8],
        compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Features (n, ...) of pictures (n, h, w, 3); `way` names all that decides them, besides the pictures."""
        keys = [_key(way, picture) for picture in pictures]
        # Controls show pictures that were looked at before, and some of them twice.
        missing = {key: row for row, key in enumerate(keys) if key not in self._known}
        if missing:
            rows = list(missing.values())
            together = hashlib.sha256("".join(missing).encode()).hexdigest()[:32]
            found = self._from_disk(together, lambda: compute(pictures[rows]))
            self._known.update(zip(missing, found, strict=True))
        return np.stack([self._known[key] for key in keys])

    def _from_disk(self, key: str, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        if self.folder is None:
            return compute()
        file = self.folder / f"{key}.npy"
        try:
            kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
            return kept
        except (OSError, ValueError):  # not there, or cut off
            found = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, found)
        return found


def _key(way: str, picture: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(f"{way} {picture.shape} ".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()[:32]

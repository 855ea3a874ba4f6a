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
        digest = hashlib.sha256(f"{way} {pictures.shape} ".encode())
        digest.update(np.ascontiguousarray(pictures).data)
        key = digest.hexdigest()[:32]
        if key not in self._known:
            self._known[key] = self._from_disk(key, lambda: compute(pictures))
        return self._known[key]

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

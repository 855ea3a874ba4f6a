"""`FeatureCache`: features of pictures or texts, kept on disk by what they are features of, and looked at in place."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.workspace.files import atomic_path

Rows = list[NDArray[np.float32]]
"""One row of features for each item, which may lie on disk: nobody needs all large features in memory at once."""

_AT_ONCE = 64
"""Items whose features lie in one file: what is lost when a run is stopped."""


class FeatureCache:
    """Features of pictures or texts, computed once for each item and each way to compute them.

    `folder` keeps them for the next time; without it they are in a temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = TemporaryDirectory(prefix="unibrain-") if folder is None else None
        self.folder = folder or Path(str(self._temporary and self._temporary.name))
        self._known: dict[str, Rows] = {}

    def get(self, way: str, items: Any, compute: Callable[[Any], Sequence[NDArray[np.float32]]]) -> list[Rows]:
        """Features of items: for each layer, a row of every item.

        `items` are n pictures, uint8, or n texts; `way` names all that decides features besides the items. `compute`
        takes some items and returns one array (items, ...) per layer.
        """
        keys: list[str] = []
        # Controls show pictures that were looked at before, and some of them twice.
        missing: dict[str, int] = {}
        for start in range(0, len(items), _AT_ONCE):
            keys += [_key(way, item) for item in items[start : start + _AT_ONCE]]
        for row, key in enumerate(keys):
            if key not in self._known:
                missing.setdefault(key, row)
        for start in range(0, len(missing), _AT_ONCE):
            group = list(missing)[start : start + _AT_ONCE]
            rows = [missing[key] for key in group]
            some = [items[row] for row in rows] if isinstance(items, list) else items[np.array(rows)]
            layers = self._kept(hashlib.sha256("".join(group).encode()).hexdigest()[:32], some, compute)
            for place, key in enumerate(group):
                self._known[key] = [layer[place] for layer in layers]
        return [list(layer) for layer in zip(*(self._known[key] for key in keys), strict=True)]

    def _kept(self, key: str, items: Any, compute: Callable[[Any], Sequence[NDArray[np.float32]]]) -> Rows:
        """Features of a group of items from their file, which is written first if it is not there."""
        for file in self.folder.glob(f"{key}-*.npy"):
            try:
                return _layers(file)
            except (OSError, ValueError):  # cut off
                file.unlink()
        layers = [layer.reshape(len(items), -1) for layer in compute(items)]
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{'-'.join([key, *(str(layer.shape[1]) for layer in layers)])}.npy"
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, np.hstack(layers))
        return _layers(file)


def _layers(file: Path) -> Rows:
    """The layers of a file, whose name tells their widths."""
    ends = np.cumsum([int(width) for width in file.stem.split("-")[1:]])
    return np.split(np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray), ends[:-1], axis=1)


def _key(way: str, item: NDArray[np.uint8] | str) -> str:
    if isinstance(item, str):
        return hashlib.sha256(f"{way} text {item}".encode()).hexdigest()[:32]
    digest = hashlib.sha256(f"{way} {item.shape} ".encode())
    digest.update(np.ascontiguousarray(item).data)
    return digest.hexdigest()[:32]

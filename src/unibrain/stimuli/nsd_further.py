"""The pictures of NSD-Synthetic and of NSD-Imagery, which have no captions."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import file_inside, hdf5_dataset, open_hdf5, reading
from unibrain.scans.nsd_further import imagery_targets
from unibrain.scans.nsd_layout import FETCH_FURTHER, FURTHER_SETS, NsdLayout
from unibrain.stimuli.custom import open_square
from unibrain.stimuli.stimuli import Stimuli

SIDE = 425
"""Side in pixels that the pictures of NSD-Imagery are brought to: that of NSD's own."""

_BRICK = "imgBrick"
# The monitor showed NSD's pictures with a gamma of 2, and these with 1: shown the other way, they look like this.
_AS_SEEN = np.rint(255 * np.sqrt(np.arange(256) / 255)).astype(np.uint8)


def read_further_stimuli(layout: NsdLayout, name: str) -> Stimuli:
    """Open the pictures of a further set by its own 0-based ids, as `unibrain.scans.nsd_further.read_further` has them.

    Those of NSD-Synthetic are cut to the middle square, and brightened to look on a usual screen as they did in the
    scanner. Of NSD-Imagery they are the targets, without the frame and the letter that were shown around and on them.

    Parameters
    ----------
    layout : NsdLayout
        Of the person: some colours of NSD-Synthetic were made for each.
    name : {"nsd-synthetic", "nsd-imagery"}

    Returns
    -------
    Stimuli
        Without captions; pictures are read when asked for.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    if name not in FURTHER_SETS:
        raise InputError(f"the set is {name!r}. Choose one of {', '.join(FURTHER_SETS)}.")
    if name == "nsd-imagery":
        files = [file_inside(path.parent, path.name) for path in imagery_targets(layout).values()]

        def targets(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.stack([open_square(files[int(identity)], SIDE) for identity in wanted])

        return Stimuli(np.arange(len(files)), {}, targets, name, has_captions=False)
    lengths = [_shape(path)[0] for path in layout.synthetic_stimuli]

    def shown(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([_read_synthetic(layout, lengths, int(identity)) for identity in wanted])

    return Stimuli(np.arange(sum(lengths)), {}, shown, name, has_captions=False)


def _shape(path: Path) -> tuple[int, ...]:
    with open_hdf5(path, "the pictures of NSD-Synthetic", FETCH_FURTHER) as file:
        return tuple(_brick(path, file).shape)


def _brick(path: Path, file: Any) -> Any:
    brick = hdf5_dataset(path, file, _BRICK)
    if len(brick.shape) != 4 or brick.shape[3] != 3 or brick.dtype != np.uint8:
        raise InputError(
            f"{path}: {_BRICK} is {brick.dtype} of shape {brick.shape}, not uint8 of shape (images, height, width, 3). "
            "Use the file as it is published."
        )
    return brick


def _read_synthetic(layout: NsdLayout, lengths: list[int], identity: int) -> NDArray[np.uint8]:
    which = int(identity >= lengths[0])
    path = layout.synthetic_stimuli[which]
    with open_hdf5(path, "the pictures of NSD-Synthetic", FETCH_FURTHER) as file:
        brick = _brick(path, file)
        with reading(path, "HDF5"):
            picture: NDArray[np.uint8] = brick[identity - which * lengths[0]]
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    seen: NDArray[np.uint8] = _AS_SEEN[picture[top : top + side, left : left + side]]
    return seen

"""`Stimuli`: pictures and captions by stimulus id, whatever file they come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Stimuli:
    """Pictures (read when asked for) and captions of a set of stimulus ids.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids, unique.
    captions_by_id : mapping of int to tuple of str
        One to seven non-empty captions for every id; none for any if `has_captions` is False.
    read_pictures : callable
        Takes an int64 array of ids (in any order), returns uint8 RGB of shape (len(ids), height, width, 3).
    source : str
        Where they come from, for messages and the report.
    has_captions : bool
        False if these stimuli come without captions: then everything about captions is switched off.

    Raises
    ------
    InputError
        If an image lacks captions, or has some where there are to be none.
    """

    stimulus_ids: NDArray[np.int64]
    captions_by_id: Mapping[int, tuple[str, ...]]
    read_pictures: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    source: str
    has_captions: bool = True

    def __post_init__(self) -> None:
        if not self.has_captions:
            if any(self.captions_by_id.values()):
                raise InputError(f"{self.source}: has captions where there are to be none. Import the stimuli again.")
            return
        without = [int(i) for i in self.stimulus_ids if not any(self.captions_by_id.get(int(i), ()))]
        if without:
            raise InputError(
                f"{self.source}: has no caption for image id {without[0]} ({len(without)} of {len(self.stimulus_ids)} "
                "images lack one). Check the caption file."
            )

    def __repr__(self) -> str:
        captions = "with" if self.has_captions else "without"
        return f"Stimuli({len(self.stimulus_ids):,} pictures {captions} captions from {self.source})"

    def captions(self, stimulus_ids: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, ...]]:
        """All captions of each of `stimulus_ids`, in that order; empty tuples if there are none."""
        self._check(stimulus_ids)
        return [self.captions_by_id.get(int(i), ()) for i in stimulus_ids]

    def pictures(self, stimulus_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures of `stimulus_ids`, in that order: uint8 RGB of shape (n, height, width, 3)."""
        self._check(stimulus_ids)
        return self.read_pictures(np.asarray(stimulus_ids, dtype=np.int64))

    def _check(self, stimulus_ids: Sequence[int] | NDArray[np.int64]) -> None:
        absent = np.setdiff1d(np.asarray(stimulus_ids, dtype=np.int64), self.stimulus_ids)
        if len(absent):
            raise InputError(
                f"{self.source}: image id {absent[0]} is not one of its {len(self.stimulus_ids)}. Check that scans and "
                "stimuli belong together."
            )

"""Which images two runs have in common: what their pictures look like counts, a number alone says little."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.workspace.fingerprints import digest

if TYPE_CHECKING:
    from unibrain.experiments.bench import Bench
    from unibrain.stimuli import Stimuli

_AT_ONCE = 64


def contents(stimuli: "Stimuli", ids: NDArray[np.int64]) -> list[str]:
    """Digest of each picture."""
    parts = [stimuli.pictures(ids[start : start + _AT_ONCE]) for start in range(0, len(ids), _AT_ONCE)]
    return [digest(np.ascontiguousarray(picture)) for part in parts for picture in part]


def shared_images(one: "Bench", other: "Bench") -> NDArray[np.int64]:
    """Images that both subjects saw, shape (m, 2): the id in the one run, and in the other.

    NSD numbers its images, so only equal ids can be the same picture; a laboratory's own pictures are numbered anew in
    each run, and are found whatever their number is.
    """
    mine, theirs = (np.unique(bench.subject.stimulus_ids) for bench in (one, other))
    if one.settings.custom is None and other.settings.custom is None:
        mine = theirs = np.intersect1d(mine, theirs)
    known = dict(zip(contents(one.stimuli, mine), mine.tolist(), strict=True))
    found = dict(zip(contents(other.stimuli, theirs), theirs.tolist(), strict=True))
    pairs = [(known[content], identity) for content, identity in found.items() if content in known]
    return np.array(pairs, np.int64).reshape(-1, 2)

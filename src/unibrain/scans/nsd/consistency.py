"""Whether the sessions in a folder are of one brain: file names alone do not say so."""

import logging
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd.sessions import MaskedSessions

__all__ = ["check_one_subject"]

_log = logging.getLogger(__name__)

_STABLE, _ALIKE = 0.4, 0.2
_FEWEST_VOXELS = 30


def check_one_subject(sessions: MaskedSessions) -> None:
    """Warn about sessions whose mean response over voxels does not resemble that of the others.

    The mean over trials differs from voxel to voxel, and one brain keeps the pattern over its sessions. A session with
    a pattern of its own (stable within the session: reliability from its odd and even trials above 0.4) that correlates
    with the mean of the other sessions below 0.2 is of another subject, or was aligned to another space. Copies of one
    session under two names are found as well. It is a warning, because data that were processed otherwise, for example
    centred per session, may have no such pattern.

    Parameters
    ----------
    sessions : MaskedSessions
    """
    halves = {session: (_mean(trials[::2]), _mean(trials[1::2])) for session, trials in sessions if len(trials) > 1}
    for one, other in pairwise(halves):
        if np.array_equal(halves[one], halves[other]) and np.ptp(halves[one][0]) > 0:
            _log.warning(
                "%s: found the same betas as in %s, expected another session: download both again",
                sessions.sources[other],
                sessions.sources[one].name,
            )
    if sessions.voxels < _FEWEST_VOXELS:
        return
    whole = {session: (odd + even) / 2 for session, (odd, even) in halves.items()}
    for session, (odd, even) in halves.items():
        others = [pattern for other, pattern in whole.items() if other != session]
        if not others:
            continue
        alike, half = _correlation(whole[session], np.mean(others, axis=0)), _correlation(odd, even)
        stable = 2 * half / (1 + half) if half > 0 else 0.0  # Spearman and Brown: from half a session to a whole one
        if stable > _STABLE and alike < _ALIKE:
            _log.warning(
                "%s: found a mean response over voxels that does not resemble the other sessions' (correlation %.2f; "
                "reliability within the session %.2f), expected one subject's betas: check that the file belongs to "
                "this subject",
                sessions.sources[session],
                alike,
                stable,
            )


def _mean(trials: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(trials.mean(axis=0, dtype=np.float64))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])

"""Findings about scans: sessions, silent voxels, scales, empty and repeated scans, regions, noise ceiling."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.audit import Finding, SessionSummary, count, judge, some
from unibrain.errors import InputError
from unibrain.scans.nsd_layout import as_ranges
from unibrain.workspace.fingerprints import digest

MANY_VOXELS = 0.1
"""A session in which this share of the mask or more is zero is a problem, not the edge of a slab that moved."""
FACTOR = 3
"""Sessions whose responses vary more than so many times as much as those of another are in another unit."""
SHIFT = 2
"""So many deviations the mean responses of two sessions may lie apart."""
ENOUGH = 8
"""Trials from which on the deviation of a session is known well enough to compare it."""
LARGE = 10
"""A prepared scan of so many times the usual size is no response."""
_COLUMNS_AT_ONCE = 512


@dataclass(frozen=True)
class Sessions:
    """Sessions (1-based) of the design, those that were run, that are there, and that a subject was read from."""

    design: tuple[int, ...]
    run: tuple[int, ...]
    present: tuple[int, ...]
    used: tuple[int, ...] | None = None


def check_sessions(sessions: Sessions) -> Finding:
    """Compare sessions of the design with those that were run, are there, and were read."""
    design, run, present = set(sessions.design), set(sessions.run), set(sessions.present)
    used = present & run if sessions.used is None else set(sessions.used)
    fetch = "fetch them, or prepare with --sessions present"
    never, missing, strange = design - run, run - present, present - run
    gone, more = used - present, present & run - used
    return judge(
        "sessions",
        f"{len(present)} of {count(len(run), 'session')} that were run are there (design: {len(design)})",
        (
            (never, "note", f"never run: {as_ranges(never)}", ""),
            (missing, "note", f"betas missing: {as_ranges(missing)}", fetch),
            (gone, "note", f"read before, and gone now: {as_ranges(gone)}", ""),
            (more, "note", f"there, and not read: {as_ranges(more)}", "prepare with --sessions to read them"),
            (strange, "problem", f"betas without trials: {as_ranges(strange)}", "check that they are this subject's"),
        ),
        "",
        "every missing session takes trials, and some images altogether; counts differ from those of other papers",
        {name: None if numbers is None else list(numbers) for name, numbers in asdict(sessions).items()},
    )


@dataclass(frozen=True)
class SessionBetas:
    """One session (1-based), what reads its betas (voxels, trials) as they are stored, and its training trials."""

    session: int
    read: Callable[[], NDArray[np.generic]]
    is_training: NDArray[np.bool_]


@dataclass(frozen=True)
class Looked:
    """What the betas of all sessions are like.

    Summaries, sentences about those that cannot be read, and pairs of scans (session and trial, 1-based) with the same
    values.
    """

    sessions: tuple[SessionSummary, ...] = ()
    unreadable: tuple[str, ...] = ()
    same: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()


def look_at(sessions: Iterable[SessionBetas]) -> Looked:
    """Go through the betas of all sessions once, and keep what the checks need."""
    summaries, unreadable, same = [], [], []
    seen: dict[str, tuple[int, int]] = {}
    for entry in sessions:
        try:
            betas = entry.read()
        except InputError as error:
            unreadable.append(str(error))
            continue
        summaries.append(summary_of(entry.session, betas, int(entry.is_training.sum())))
        for trial, scan in enumerate(np.ascontiguousarray(betas.T), 1):
            here = (entry.session, trial)
            if scan.any() and (first := seen.setdefault(digest(scan), here)) != here:
                same.append((first, here))
    return Looked(tuple(summaries), tuple(unreadable), tuple(same))


def summary_of(session: int, betas: NDArray[np.generic], training: int) -> SessionSummary:
    """Summarise betas (voxels, trials) as stored; a voxel counts once: as not finite, as zero, or as constant."""
    finite = np.isfinite(betas).all(axis=1)
    zero = (betas == 0).all(axis=1)
    same = (betas == betas[:, :1]).all(axis=1) & ~zero & finite & (betas.shape[1] > 1)
    alive = betas[finite & ~zero & ~same]
    mean = deviation = 0.0
    if len(alive):
        mean = float(np.median(alive.mean(axis=1, dtype=np.float64)))
        deviation = float(np.median(alive.std(axis=1, dtype=np.float64)))
    empty = (np.flatnonzero((betas == 0).all(axis=0)) + 1).tolist()
    counts = (int(zero.sum()), int(same.sum()), int((~finite).sum()))
    return SessionSummary(session, betas.shape[1], training, len(betas), *counts, mean, deviation, tuple(empty))


def check_voxels(looked: Looked) -> Finding:
    """Judge the voxels without a response in each session."""

    def listed(kind: str) -> str:
        counts = ((entry.session, getattr(entry, kind)) for entry in looked.sessions)
        return some(f"session {session} ({count(number, 'voxel')})" for session, number in counts if number)

    unreadable = list(looked.unreadable)
    zero, constant, non_finite = listed("zero"), listed("constant"), listed("non_finite")
    many = any(entry.zero >= MANY_VOXELS * entry.voxels for entry in looked.sessions)
    kept = "nothing: `prepare` averages them over their other sessions"
    return judge(
        "voxels in sessions",
        "",
        (
            (
                unreadable,
                "problem",
                f"{count(len(unreadable), 'session')} cannot be read: {''.join(unreadable[:1])}",
                "download them again",
            ),
            (
                non_finite,
                "problem",
                f"NaN or infinite values in {non_finite}",
                "choose a mask without those voxels, or get these betas again",
            ),
            (
                constant,
                "problem",
                f"one value other than 0 throughout in {constant}",
                "find out what wrote these betas: such voxels enter averages as if they had responded",
            ),
            (
                zero,
                "problem" if many else "note",
                f"all zero in {zero}",
                "check those sessions: so many voxels do not leave the scanned slab" if many else kept,
            ),
        ),
        f"every voxel responds in each of {count(len(looked.sessions), 'session')}",
        "a voxel without a response holds nothing to decode, and breaks z-scores and averages if nobody notices",
        {"unreadable": unreadable},
    )


def check_zscores(looked: Looked) -> Finding:
    """Look for sessions in other units than the rest, and for those with too few trials to be z-scored alone."""
    alive = [entry for entry in looked.sessions if entry.deviation > 0 and entry.trials >= ENOUGH]
    few = [entry.session for entry in looked.sessions if entry.training < 2]
    factor, shift, varying, apart = 1.0, 0.0, "", ""
    if alive:
        by_size, by_mean = (sorted(alive, key=attrgetter(name)) for name in ("deviation", "mean"))
        factor = by_size[-1].deviation / by_size[0].deviation
        shift = (by_mean[-1].mean - by_mean[0].mean) / float(np.median([entry.deviation for entry in alive]))
        varying, apart = (
            f"session {one.session} (mean {one.mean:,.4g}, deviation {one.deviation:,.4g}) and "
            f"session {other.session} (mean {other.mean:,.4g}, deviation {other.deviation:,.4g})"
            for one, other in ((by_size[0], by_size[-1]), (by_mean[0], by_mean[-1]))
        )
    unit = "bring all sessions into one unit (look at the scale factors in their headers), and prepare again"
    return judge(
        "z-scores of sessions",
        "",
        (
            (factor > FACTOR, "problem", f"responses vary {factor:,.3g} times as much between {varying}", unit),
            (shift > SHIFT, "problem", f"mean responses are {shift:,.3g} deviations apart in {apart}", unit),
            (
                few,
                "note",
                f"fewer than two training trials in {count(len(few), 'session')}: {as_ranges(few)}",
                "z-score over all sessions, not each by itself, or leave those sessions out",
            ),
        ),
        f"mean and deviation of {count(len(looked.sessions), 'session')} are of one size",
        "averages and z-scores over sessions in different units give most of the weight to some of them, silently",
        {"factor": round(factor, 4), "shift": round(shift, 4), "few_training_trials": few},
    )


def check_scans(looked: Looked) -> Finding:
    """Look for scans of zeros, and for scans that are there twice."""
    empty = [(entry.session, trial) for entry in looked.sessions for trial in entry.empty_scans]
    pairs = some(f"{_place(one)} and {_place(other)}" for one, other in looked.same)
    advice = "find out what wrote them, and leave out what was not measured"
    return judge(
        "single scans",
        f"{sum(entry.trials for entry in looked.sessions):,} scans",
        (
            (empty, "problem", f"{count(len(empty), 'scan')} of zeros: {some(map(_place, empty))}", advice),
            (looked.same, "problem", f"{count(len(looked.same), 'scan')} the same as an earlier one: {pairs}", advice),
        ),
        "none of zeros, no two alike",
        "a scan that was not measured, or that stands for two pictures, teaches the decoder nothing or something wrong",
        {"empty": [list(scan) for scan in empty], "same": [[list(one), list(other)] for one, other in looked.same]},
    )


def _place(scan: tuple[int, int]) -> str:
    return f"session {scan[0]} trial {scan[1]}"


def check_matrix(betas: NDArray[np.float32], is_test: NDArray[np.bool_]) -> Finding:
    """Look into prepared betas (rows, voxels; finite) for constant voxels, and for rows that cannot be responses."""
    constant = {"training": 0, "test": 0}
    squares = np.zeros(len(betas))
    for start in range(0, betas.shape[1], _COLUMNS_AT_ONCE):
        block = betas[:, start : start + _COLUMNS_AT_ONCE]
        squares += np.square(block, dtype=np.float64).sum(axis=1)
        for side, rows in (("training", block[~is_test]), ("test", block[is_test])):
            if len(rows) > 1:
                constant[side] += int((rows == rows[:1]).all(axis=0).sum())
    large = np.flatnonzero(squares > LARGE**2 * np.median(squares)).tolist()
    again = len(betas) - len({digest(row) for row in betas})
    mask, scans = "leave those voxels out of the mask and prepare again", "find out what is wrong with those scans"
    return judge(
        "prepared betas",
        f"{betas.shape[0]:,} rows x {betas.shape[1]:,} voxels",
        (
            (constant["training"], "problem", f"{count(constant['training'], 'voxel')} constant in training", mask),
            (constant["test"], "note", f"{count(constant['test'], 'voxel')} constant over the test rows", mask),
            (large, "problem", f"{count(len(large), 'row')} over {LARGE} times the usual size: {some(large)}", scans),
            (again, "problem", f"{count(again, 'row')} the same as another", scans),
        ),
        "all of them finite and changing",
        "a constant voxel tells nothing about images; values that are not finite or of absurd size spoil predictions",
        {"constant": constant, "large": large, "again": again},
    )


def check_regions(
    regions: Mapping[str, NDArray[np.bool_]], noise_ceiling: NDArray[np.float32]
) -> tuple[Finding, Finding]:
    """Judge regions, and the noise ceiling (percent, NaN unknown) of all voxels."""
    voxels = {name: int(mask.sum()) for name, mask in regions.items()}
    empty = [name for name, number in voxels.items() if not number]
    known = noise_ceiling[np.isfinite(noise_ceiling)].astype(np.float64)
    low, middle, high = np.percentile(known, (25, 50, 75)).round(3).tolist() if len(known) else (None, None, None)
    unknown = len(noise_ceiling) - len(known)
    recompute = "download ncsnr, or prepare with --noise-ceiling recompute"
    return judge(
        "regions",
        f"{len(noise_ceiling):,} voxels, {count(len(regions), 'region') if regions else 'no region'}",
        (
            (empty, "note", f"no voxel in {some(empty)}", "normal for some people; otherwise check the label volumes"),
            (not regions, "note", "", "name --regions in `prepare` to get scores per region"),
        ),
        "",
        "scores per region are only as good as the number of voxels behind them",
        {"voxels": voxels, "empty": empty},
    ), judge(
        "noise ceiling",
        f"median {middle:.1f} % of the variance of three trials (quartiles {low:.1f} and {high:.1f} %)"
        if len(known)
        else "not known for any voxel",
        (
            (not len(known), "note", "", recompute),
            (len(known) and unknown, "note", f"not known for {count(unknown, 'voxel')}", ""),
            (high == 0, "problem", "three voxels out of four carry no signal", "check ncsnr"),
        ),
        "",
        "it bounds what any decoder can read out of a voxel; a region near 0 % has nothing to give",
        {"quartiles": [low, middle, high], "unknown": unknown},
    )

"""Findings about scans: sessions, voxels without a response, repeats, regions and their noise ceiling."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.audit import Finding, Level, RegionVoxels, SessionVoxels
from unibrain.audit.images import Images
from unibrain.audit.wording import count, some
from unibrain.scans.nsd_layout import REPEATS
from unibrain.scans.nsd_layout import as_ranges

__all__ = [
    "MANY_VOXELS",
    "Sessions",
    "check_matrix",
    "check_regions",
    "check_repeats",
    "check_sessions",
    "check_voxels",
    "count_voxels",
    "region_voxels",
]

MANY_VOXELS = 0.1
"""A session in which this share of the mask or more is zero is a problem, not the edge of a slab that moved."""
_COLUMNS_AT_ONCE = 512


@dataclass(frozen=True)
class Sessions:
    """Numbers of a subject's sessions, 1-based and ascending.

    Attributes
    ----------
    design : tuple of int
        Those of the experiment's design.
    run : tuple of int
        Those with trials in ``responses.tsv``.
    present : tuple of int
        Those whose betas are there.
    used : tuple of int or None
        Those that the prepared subject was read from; None if it is not prepared.
    """

    design: tuple[int, ...]
    run: tuple[int, ...]
    present: tuple[int, ...]
    used: tuple[int, ...] | None = None


def check_sessions(sessions: Sessions) -> Finding:
    """Compare sessions of the design with those that were run, are there, and were read."""
    design, run, present = set(sessions.design), set(sessions.run), set(sessions.present)
    used = present & run if sessions.used is None else set(sessions.used)
    parts = [f"{len(present)} of {count(len(run), 'session')} that were run are there (design: {len(design)})"]
    remedies: list[str] = []
    level: Level = "ok"
    for numbers, text, remedy, becomes in (
        (design - run, "never run: {}", "", "note"),
        (run - present, "betas missing: {}", "fetch them, or prepare with --sessions present", "note"),
        (used - present, "read before, and gone now: {}", "", "note"),
        (present & run - used, "there, and not read: {}", "prepare with --sessions to read them", "note"),
        (present - run, "betas of sessions without trials: {}", "check that they are this subject's", "problem"),
    ):
        if numbers:
            parts.append(text.format(as_ranges(numbers)))
            remedies += [remedy] if remedy else []
            level = "problem" if becomes == "problem" or level == "problem" else "note"
    return Finding(
        "sessions",
        level,
        "; ".join(parts),
        "every missing session takes trials, and some images altogether; counts differ from those of other papers",
        "; ".join(remedies),
        {
            "design": sorted(design),
            "run": sorted(run),
            "present": sorted(present),
            "used": None if sessions.used is None else sorted(used),
        },
    )


def count_voxels(session: int, betas: NDArray[np.generic]) -> SessionVoxels:
    """Count voxels that hold the same value in all trials of a session, or NaN or infinite ones.

    Parameters
    ----------
    session : int
    betas : ndarray of shape (voxels, trials)
        As stored.

    Returns
    -------
    SessionVoxels
        A voxel is counted once: as not finite, as zero, or as constant. With a single trial none is constant.
    """
    finite = np.isfinite(betas).all(axis=1)
    zero = (betas == 0).all(axis=1)
    same = (betas == betas[:, :1]).all(axis=1) & ~zero & finite & (betas.shape[1] > 1)
    numbers = (int(zero.sum()), int(same.sum()), int((~finite).sum()))
    return SessionVoxels(session, betas.shape[1], len(betas), *numbers)


def check_voxels(sessions: Sequence[SessionVoxels], unreadable: Sequence[str] = ()) -> Finding:
    """Judge the voxels without a response in each session.

    Parameters
    ----------
    sessions : sequence of SessionVoxels
    unreadable : sequence of str
        Sentences about betas that could not be read.
    """
    zero = [entry for entry in sessions if entry.zero]
    constant = [entry for entry in sessions if entry.constant]
    non_finite = [entry for entry in sessions if entry.non_finite]
    many = [entry for entry in zero if entry.zero >= MANY_VOXELS * entry.voxels]
    parts: list[str] = []
    remedies: list[str] = []
    if unreadable:
        parts.append(f"{count(len(unreadable), 'session')} cannot be read: {unreadable[0]}")
        remedies.append("download them again")
    if non_finite:
        parts.append(f"NaN or infinite values in {_listed(non_finite, 'non_finite')}")
        remedies.append("choose a mask without those voxels, or get these betas again")
    if constant:
        parts.append(f"one value other than 0 throughout in {_listed(constant, 'constant')}")
        remedies.append("find out what wrote these betas: such voxels enter averages as if they had responded")
    if zero:
        parts.append(f"all zero in {_listed(zero, 'zero')}")
        remedies.append(
            "check those sessions: so many voxels do not leave the scanned slab"
            if many
            else "nothing: `prepare` averages them over their other sessions"
        )
    bad = bool(unreadable or non_finite or constant or many)
    return Finding(
        "voxels in sessions",
        "problem" if bad else "note" if zero else "ok",
        "; ".join(parts) or f"every voxel responds in each of {count(len(sessions), 'session')}",
        "a voxel without a response holds nothing to decode, and breaks z-scores and averages if nobody notices",
        "; ".join(remedies),
        {"unreadable": list(unreadable), "sessions": [entry.session for entry in (*non_finite, *constant, *zero)]},
    )


def _listed(sessions: Iterable[SessionVoxels], kind: str) -> str:
    return some(f"session {entry.session} ({count(getattr(entry, kind), 'voxel')})" for entry in sessions)


def check_matrix(betas: NDArray[np.float32], is_test: NDArray[np.bool_]) -> Finding:
    """Look for voxels of a prepared matrix that do not change, and for values that are not finite.

    Parameters
    ----------
    betas : ndarray of shape (rows, voxels), float32
    is_test : ndarray of shape (rows,), bool
    """
    constant = {"training": 0, "test": 0}
    non_finite = 0
    for start in range(0, betas.shape[1], _COLUMNS_AT_ONCE):
        block = betas[:, start : start + _COLUMNS_AT_ONCE]
        non_finite += int((~np.isfinite(block)).any(axis=0).sum())
        for side, rows in (("training", block[~is_test]), ("test", block[is_test])):
            if len(rows) > 1:
                constant[side] += int((rows == rows[:1]).all(axis=0).sum())
    parts = [f"{count(n, 'voxel')} constant over the {side} rows" for side, n in constant.items() if n]
    parts += [f"{count(non_finite, 'voxel')} not finite"] * bool(non_finite)
    return Finding(
        "prepared betas",
        "problem" if non_finite or constant["training"] else "note" if parts else "ok",
        f"{betas.shape[0]:,} rows x {betas.shape[1]:,} voxels"
        + (f"; {'; '.join(parts)}" if parts else ", all of them finite and changing"),
        "a constant voxel tells nothing about images; one that is not finite spoils every prediction",
        "leave those voxels out of the mask and prepare again" if parts else "",
        {"rows": betas.shape[0], "voxels": betas.shape[1], "non_finite": non_finite, "constant": constant},
    )


def check_repeats(images: Images) -> Finding:
    """Count images with fewer than three trials."""
    parts, numbers = [], {}
    fewer = 0
    for side, repeats in (("training", images.train_repeats), ("test", images.test_repeats)):
        times, many = np.unique(np.minimum(repeats, REPEATS), return_counts=True)
        by_times = dict(zip(times.tolist(), many.tolist(), strict=True))
        low = {n: by_times[n] for n in by_times if n < REPEATS}
        fewer += sum(low.values())
        shown = ", ".join(f"{number:,} shown {('once', 'twice')[n - 1]}" for n, number in low.items())
        parts.append(f"{side}: {shown or 'none'} of {count(len(repeats), 'image')}")
        numbers[side] = {str(n): number for n, number in by_times.items()}
    return Finding(
        "repeats",
        "note" if fewer else "ok",
        f"{count(fewer, 'image')} with fewer than {REPEATS} trials ({'; '.join(parts)})",
        "averages of fewer trials are noisier, and the noise ceiling is that of three",
        "compare scores only with those of subjects and protocols with as many repeats" if fewer else "",
        numbers,
    )


def region_voxels(
    regions: Mapping[str, NDArray[np.bool_]], noise_ceiling: NDArray[np.float32]
) -> tuple[RegionVoxels, ...]:
    """Count voxels and summarise the noise ceiling of every region, after that of all voxels.

    Parameters
    ----------
    regions : mapping of str to ndarray of shape (voxels,), bool
    noise_ceiling : ndarray of shape (voxels,)
        Percent; NaN where it is not known.
    """
    entries = []
    for name, mask in {"all": np.ones(len(noise_ceiling), dtype=np.bool_), **regions}.items():
        known = noise_ceiling[mask & np.isfinite(noise_ceiling)].astype(np.float64)
        quartiles = None
        if len(known):
            low, middle, high = (round(float(value), 3) for value in np.percentile(known, (25, 50, 75)))
            quartiles = (low, middle, high)
        entries.append(RegionVoxels(name, int(mask.sum()), len(known), quartiles))
    return tuple(entries)


def check_regions(regions: Sequence[RegionVoxels]) -> tuple[Finding, Finding]:
    """Judge regions and noise ceiling.

    Parameters
    ----------
    regions : sequence of RegionVoxels
        As of `region_voxels`.

    Returns
    -------
    tuple of Finding
        ``regions`` and ``noise ceiling``.
    """
    whole, named = regions[0], regions[1:]
    empty = [entry.region for entry in named if not entry.voxels]
    about = f"{whole.voxels:,} voxels, {count(len(named), 'region')}"
    voxels = Finding(
        "regions",
        "note" if empty or not named else "ok",
        f"{about}; no voxel in {some(empty)}" if empty else about if named else f"{whole.voxels:,} voxels, no region",
        "scores per region are only as good as the number of voxels behind them",
        "normal for some labels of some people; otherwise check the label volumes and the mask"
        if empty
        else ""
        if named
        else "name --regions in `prepare` to get scores per region",
        {"empty": empty},
    )
    why = "it bounds what any decoder can read out of a voxel; a region near 0 % has nothing to give"
    if whole.quartiles is None:
        remedy = "download ncsnr, or prepare with --noise-ceiling recompute"
        return voxels, Finding("noise ceiling", "note", "not known for any voxel", why, remedy)
    low, middle, high = whole.quartiles
    unknown = whole.voxels - whole.known
    found = f"median {middle:.1f} % of the variance of three trials (quartiles {low:.1f} and {high:.1f} %)"
    return voxels, Finding(
        "noise ceiling",
        "problem" if high == 0 else "note" if unknown else "ok",
        found + (f"; not known for {count(unknown, 'voxel')}" if unknown else ""),
        why,
        "check ncsnr: three voxels out of four carry no signal at all" if high == 0 else "",
        {"quartiles": [low, middle, high], "unknown": unknown},
    )

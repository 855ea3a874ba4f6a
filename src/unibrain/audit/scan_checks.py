"""Findings about scans: sessions, silent voxels, scales, empty and repeated scans, repeats, regions, noise ceiling."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.audit.audit import RegionVoxels, SessionSummary
from unibrain.audit.findings import Finding, Level, count, some
from unibrain.audit.material import Images, SessionBetas, Sessions
from unibrain.errors import InputError
from unibrain.scans.nsd_layout import REPEATS, as_ranges
from unibrain.workspace.fingerprints import digest

MANY_VOXELS = 0.1
"""A session in which this share of the mask or more is zero is a problem, not the edge of a slab that moved."""
FACTOR = 3
"""Deviations of two sessions that differ by more than this factor are in different units. NSD's differ by less than 2."""
SHIFT = 2
"""So many deviations the mean responses of two sessions may lie apart."""
LARGE = 10
"""A prepared scan of so many times the usual size is no response."""
_COLUMNS_AT_ONCE = 512


def check_sessions(sessions: Sessions) -> Finding:
    """Compare sessions of the design with those that were run, are there, and were read."""
    design, run, present = set(sessions.design), set(sessions.run), set(sessions.present)
    used = present & run if sessions.used is None else set(sessions.used)
    rows: tuple[tuple[set[int], Level, str, str], ...] = (
        (design - run, "note", "never run: {}", ""),
        (run - present, "note", "betas missing: {}", "fetch them, or prepare with --sessions present"),
        (used - present, "note", "read before, and gone now: {}", ""),
        (present & run - used, "note", "there, and not read: {}", "prepare with --sessions to read them"),
        (present - run, "problem", "betas of sessions without trials: {}", "check that they are this subject's"),
    )
    hit = [row for row in rows if row[0]]
    said = [what.format(as_ranges(numbers)) for numbers, _, what, _ in hit]
    return Finding(
        hit[-1][1] if hit else "ok",
        "sessions",
        "; ".join(
            [f"{len(present)} of {count(len(run), 'session')} that were run are there (design: {len(design)})", *said]
        ),
        "; ".join(advice for *_, advice in hit if advice),
        "every missing session takes trials, and some images altogether; counts differ from those of other papers",
        {name: None if numbers is None else list(numbers) for name, numbers in asdict(sessions).items()},
    )


@dataclass(frozen=True)
class Looked:
    """What the betas of all sessions are like: summaries, sentences about those that cannot be read, and pairs of scans
    (session and trial, 1-based) with the same values."""

    sessions: tuple[SessionSummary, ...] = ()
    unreadable: tuple[str, ...] = ()
    same: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()


def look_at(sessions: Iterable[SessionBetas]) -> Looked:
    """Go through the betas of all sessions once, and keep what the checks need."""
    summaries, unreadable, same = [], [], []
    seen: dict[str, tuple[int, int]] = {}
    for entry in sessions:
        if isinstance(entry.betas, InputError):
            unreadable.append(str(entry.betas))
            continue
        summaries.append(summary_of(entry.session, entry.betas, int(entry.is_training.sum())))
        for trial, scan in enumerate(np.ascontiguousarray(entry.betas.T), 1):
            first = seen.setdefault(digest(scan), (entry.session, trial)) if scan.any() else (entry.session, trial)
            if first != (entry.session, trial):
                same.append((first, (entry.session, trial)))
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
    zero = [entry for entry in looked.sessions if entry.zero]
    constant = [entry for entry in looked.sessions if entry.constant]
    non_finite = [entry for entry in looked.sessions if entry.non_finite]
    many = any(entry.zero >= MANY_VOXELS * entry.voxels for entry in zero)
    said, advice = [], []
    if looked.unreadable:
        said.append(f"{count(len(looked.unreadable), 'session')} cannot be read: {looked.unreadable[0]}")
        advice.append("download them again")
    if non_finite:
        said.append(f"NaN or infinite values in {_listed(non_finite, 'non_finite')}")
        advice.append("choose a mask without those voxels, or get these betas again")
    if constant:
        said.append(f"one value other than 0 throughout in {_listed(constant, 'constant')}")
        advice.append("find out what wrote these betas: such voxels enter averages as if they had responded")
    if zero:
        said.append(f"all zero in {_listed(zero, 'zero')}")
        advice.append(
            "check those sessions: so many voxels do not leave the scanned slab"
            if many
            else "nothing: `prepare` averages them over their other sessions"
        )
    return Finding(
        "problem" if looked.unreadable or non_finite or constant or many else "note" if zero else "ok",
        "voxels in sessions",
        "; ".join(said) or f"every voxel responds in each of {count(len(looked.sessions), 'session')}",
        "; ".join(advice),
        "a voxel without a response holds nothing to decode, and breaks z-scores and averages if nobody notices",
        {
            "unreadable": list(looked.unreadable),
            "sessions": [entry.session for entry in (*non_finite, *constant, *zero)],
        },
    )


def _listed(sessions: Iterable[SessionSummary], kind: str) -> str:
    return some(f"session {entry.session} ({count(getattr(entry, kind), 'voxel')})" for entry in sessions)


def check_zscores(sessions: Sequence[SessionSummary]) -> Finding:
    """Look for sessions in other units than the rest, and for those that have too few trials to be z-scored alone."""
    alive = sorted((entry for entry in sessions if entry.deviation > 0), key=lambda entry: entry.deviation)
    few = [entry.session for entry in sessions if entry.training < 2]
    said, advice, numbers = [], [], {"few_training_trials": few}
    if alive:
        usual = float(np.median([entry.deviation for entry in alive]))
        factor = alive[-1].deviation / alive[0].deviation
        by_mean = sorted(alive, key=lambda entry: entry.mean)
        shift = (by_mean[-1].mean - by_mean[0].mean) / usual
        numbers |= {"factor": round(factor, 4), "shift": round(shift, 4)}
        for wrong, what, ends, name in (
            (factor > FACTOR, f"responses vary {factor:,.3g} times as much", (alive[0], alive[-1]), "deviation"),
            (shift > SHIFT, f"responses lie {shift:,.3g} deviations apart", (by_mean[0], by_mean[-1]), "mean"),
        ):
            if wrong:
                low, high = (f"session {entry.session} ({name} {getattr(entry, name):.3g})" for entry in ends)
                said.append(f"{what}: {low} and {high}")
    if said:
        advice.append("bring all sessions into one unit (look at the scale factor in the headers), then prepare again")
    bad = bool(said)
    if few:
        said.append(f"fewer than two training trials in {count(len(few), 'session')}: {as_ranges(few)}")
        advice.append("z-score over all sessions, not each by itself, or leave those sessions out")
    return Finding(
        "problem" if bad else "note" if few else "ok",
        "z-scores of sessions",
        "; ".join(said) or f"mean and deviation of {count(len(sessions), 'session')} are of one size",
        "; ".join(advice),
        "averages and z-scores over sessions in different units give most of the weight to some of them, silently",
        numbers,
    )


def check_scans(looked: Looked) -> Finding:
    """Look for scans of zeros, and for scans that are there twice."""
    empty = [(entry.session, trial) for entry in looked.sessions for trial in entry.empty_scans]
    parts = [f"{count(len(empty), 'scan')} of zeros: {some(map(_scan, empty))}"] * bool(empty)
    if looked.same:
        pairs = some(f"{_scan(one)} and {_scan(other)}" for one, other in looked.same)
        parts.append(f"{count(len(looked.same), 'scan')} the same as an earlier one: {pairs}")
    return Finding(
        "problem" if parts else "ok",
        "single scans",
        "; ".join(parts) or f"{sum(entry.trials for entry in looked.sessions):,} scans, no two alike and none empty",
        "find out what wrote them, and leave out what was not measured" if parts else "",
        "a scan that was not measured, or that stands for two pictures, teaches the decoder nothing or something wrong",
        {"empty": [list(scan) for scan in empty], "same": [[list(one), list(other)] for one, other in looked.same]},
    )


def _scan(place: tuple[int, int]) -> str:
    return f"session {place[0]} trial {place[1]}"


def check_matrix(betas: NDArray[np.float32], is_test: NDArray[np.bool_]) -> Finding:
    """Look into prepared betas (rows, voxels) for voxels that do not change, values that are not finite, rows out of all
    proportion, and rows that are there twice."""
    constant = {"training": 0, "test": 0}
    non_finite = 0
    squares = np.zeros(len(betas))
    for start in range(0, betas.shape[1], _COLUMNS_AT_ONCE):
        block = betas[:, start : start + _COLUMNS_AT_ONCE]
        non_finite += int((~np.isfinite(block)).any(axis=0).sum())
        squares += np.square(block, dtype=np.float64).sum(axis=1)
        for side, rows in (("training", block[~is_test]), ("test", block[is_test])):
            if len(rows) > 1:
                constant[side] += int((rows == rows[:1]).all(axis=0).sum())
    large = np.flatnonzero(squares > LARGE**2 * np.median(squares)).tolist()
    again = len(betas) - len({digest(row) for row in betas})
    said = [f"{count(number, 'voxel')} constant over the {side} rows" for side, number in constant.items() if number]
    said += [f"{count(non_finite, 'voxel')} not finite"] * bool(non_finite)
    said += [f"{count(len(large), 'row')} more than {LARGE} times the usual size: row {some(large)}"] * bool(large)
    said += [f"{count(again, 'row')} the same as another"] * bool(again)
    return Finding(
        "problem" if non_finite or constant["training"] or large or again else "note" if said else "ok",
        "prepared betas",
        f"{betas.shape[0]:,} rows x {betas.shape[1]:,} voxels: "
        + ("; ".join(said) or "all of them finite and changing"),
        "leave those voxels or scans out, and prepare again" if said else "",
        "a constant voxel tells nothing about images; one that is not finite, and a scan of absurd size, spoil predictions",
        {
            "rows": betas.shape[0],
            "voxels": betas.shape[1],
            "non_finite": non_finite,
            "constant": constant,
            "large": large,
            "again": again,
        },
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
        "note" if fewer else "ok",
        "repeats",
        f"{count(fewer, 'image')} with fewer than {REPEATS} trials ({'; '.join(parts)})",
        "compare scores only with those of subjects and protocols with as many repeats" if fewer else "",
        "averages of fewer trials are noisier, and the noise ceiling is that of three",
        numbers,
    )


def region_voxels(
    regions: Mapping[str, NDArray[np.bool_]], noise_ceiling: NDArray[np.float32]
) -> tuple[RegionVoxels, ...]:
    """Count voxels and summarise the noise ceiling (percent, NaN unknown) of all voxels, then of every region."""
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
    """Judge what `region_voxels` gave: findings on regions and on the noise ceiling."""
    whole, named = regions[0], regions[1:]
    empty = [entry.region for entry in named if not entry.voxels]
    about = f"{whole.voxels:,} voxels, {count(len(named), 'region') if named else 'no region'}"
    advice = "" if named else "name --regions in `prepare` to get scores per region"
    voxels = Finding(
        "note" if empty or not named else "ok",
        "regions",
        f"{about}; no voxel in {some(empty)}" if empty else about,
        "normal for some labels of some people; otherwise check the label volumes and the mask" if empty else advice,
        "scores per region are only as good as the number of voxels behind them",
        {"empty": empty},
    )
    why = "it bounds what any decoder can read out of a voxel; a region near 0 % has nothing to give"
    if whole.quartiles is None:
        advice = "download ncsnr, or prepare with --noise-ceiling recompute"
        return voxels, Finding("note", "noise ceiling", "not known for any voxel", advice, why)
    low, middle, high = whole.quartiles
    unknown = whole.voxels - whole.known
    what = f"median {middle:.1f} % of the variance of three trials (quartiles {low:.1f} and {high:.1f} %)"
    return voxels, Finding(
        "problem" if high == 0 else "note" if unknown else "ok",
        "noise ceiling",
        what + (f"; not known for {count(unknown, 'voxel')}" if unknown else ""),
        "check ncsnr: three voxels out of four carry no signal at all" if high == 0 else "",
        why,
        {"quartiles": [low, middle, high], "unknown": unknown},
    )

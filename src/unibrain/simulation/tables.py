"""The design's tables as NSD keeps them: a MAT file, a table of images, a table of trials."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_layout import REPEATS, SUBJECTS
from unibrain.simulation.experiment import Experiment, run_lengths

__all__ = ["write_expdesign", "write_responses", "write_stim_info"]

_SLOT_SECONDS = 4.0
_DAY = 86400.0
_ERRORS, _MISSES = 0.1, 0.02


def write_expdesign(path: Path, experiment: Experiment) -> None:
    """Write ``nsd_expdesign.mat`` with one-row matrices, as NSD's."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        path,
        {
            "masterordering": experiment.masterordering[None].astype(np.float64),
            "subjectim": experiment.subjectim.astype(np.float64),
            "sharedix": experiment.sharedix[None].astype(np.float64),
            "basiccnt": experiment.basiccnt.astype(np.float64),
            "stimpattern": experiment.stimpattern.astype(np.float64),
        },
        do_compression=True,
    )


def write_stim_info(
    path: Path, experiment: Experiment, coco_ids: NDArray[np.int64], coco_splits: NDArray[np.str_]
) -> None:
    """Write ``nsd_stim_info_merged.csv``: 41 columns, one row per image, 0-based ids, 1-based trials (0: not shown).

    Parameters
    ----------
    path : pathlib.Path
    experiment : Experiment
    coco_ids : ndarray of shape (images,), int64
    coco_splits : ndarray of shape (images,), str
    """
    import pandas

    images = len(coco_ids)
    shared = np.zeros(images, dtype=np.bool_)
    shared[experiment.sharedix - 1] = True
    columns: dict[str, object] = {
        "cocoId": coco_ids,
        "cocoSplit": coco_splits,
        "cropBox": ["(0.0, 0.0, 0.0, 0.0)"] * images,
        "loss": np.zeros(images),
        "nsdId": np.arange(images),
        "flagged": np.zeros(images, dtype=np.bool_),
        "BOLD5000": np.zeros(images, dtype=np.bool_),
        "shared1000": shared,
    }
    repetitions = experiment.repetitions()
    trials = {}
    for subject in range(1, SUBJECTS + 1):
        rows = experiment.subjectim[subject - 1] - 1
        columns[f"subject{subject}"] = np.isin(np.arange(images), rows).astype(np.int64)
        for repeat in range(REPEATS):
            trials[f"subject{subject}_rep{repeat}"] = np.zeros(images, dtype=np.int64)
            trials[f"subject{subject}_rep{repeat}"][rows] = repetitions[:, repeat]
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame({**columns, **trials}).to_csv(path)


def write_responses(path: Path, experiment: Experiment, subject: int, rng: np.random.Generator) -> None:
    """Write ``responses.tsv``: 19 columns, one row per trial, with simulated button presses.

    The task was to say for every image whether it had been shown before (2) or not (1).

    Parameters
    ----------
    path : pathlib.Path
    experiment : Experiment
    subject : int
        1 to 8.
    rng : numpy.random.Generator
    """
    import pandas

    order = experiment.masterordering
    trials, length = len(order), experiment.trials_per_session
    session = np.arange(trials) // length + 1
    lengths = run_lengths(length)
    run = np.tile(np.repeat(np.arange(1, len(lengths) + 1), lengths), experiment.sessions)
    trial = np.tile(np.concatenate([np.arange(1, n + 1) for n in lengths]), experiment.sessions)
    recent, first = np.full(trials, np.nan), np.full(trials, np.nan)
    current = np.zeros(trials, dtype=np.int64)
    seen: dict[int, tuple[int, int]] = {}
    for now, image in enumerate(order.tolist()):
        if image in seen:
            first[now], recent[now] = (now - before - 1 for before in seen[image])
            current[now] = session[seen[image][1]] == session[now]
        seen[image] = (seen.get(image, (now, now))[0], now)
    old = np.isfinite(first).astype(np.int64)

    correct = rng.random(trials) >= _ERRORS
    button = np.where(correct, old, 1 - old) + 1
    lost = np.zeros(trials, dtype=np.bool_)
    lost[rng.integers(trials)] = True
    pressed = (rng.random(trials) >= _MISSES) & ~lost
    no_press = np.where(pressed, 0.0, np.nan)
    no_data = np.where(lost, np.nan, 0.0)
    table = {
        "SUBJECT": np.full(trials, subject),
        "SESSION": session,
        "RUN": run,
        "TRIAL": trial,
        "73KID": experiment.subjectim[subject - 1, order - 1],
        "10KID": order,
        "TIME": 7 * (session - 1) + 0.4 + (np.arange(trials) % length) * _SLOT_SECONDS / _DAY,
        "ISOLD": old,
        "ISCORRECT": correct + no_press,
        "RT": np.round(rng.uniform(500, 1500, trials), 3) + no_press,
        "CHANGEMIND": no_press,
        "MEMORYRECENT": recent,
        "MEMORYFIRST": first,
        "ISOLDCURRENT": current,
        "ISCORRECTCURRENT": (button == current + 1) + no_press,
        "TOTAL1": ((button == 1) & pressed) + no_data,
        "TOTAL2": ((button == 2) & pressed) + no_data,
        "BUTTON": button + no_press,
        "MISSINGDATA": lost.astype(np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_csv(path, sep="\t", index=False, na_rep="NaN")

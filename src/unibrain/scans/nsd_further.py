"""NSD-Synthetic and NSD-Imagery: further scans of NSD's subjects, prepared as those that a decoder was fitted to.

Each is one session of the same people on the same grid, with betas as those of NSD itself, percent signal change x 300.
Which trial is of which stimulus:

- NSD-Synthetic: ``masterordering`` of ``nsdsynthetic_expdesign.mat``, 1-based, in the order of the betas.
- NSD-Imagery: twelve runs in the order of `IMAGERY_RUNS`, each with a table of its trials in the order of the betas.
  Its column ``CONDITION`` is the letter of what was seen, attended or imagined. A trial has one beta; in attention runs
  it has two (cue, then search), which are passed over. ``A_pair_list.mat`` and ``B_pair_list.mat`` tell the picture of
  each letter; the targets of set C are words without a picture, and are not read.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import read_cells, read_columns, read_mat, whole_numbers
from unibrain.scans.nsd_betas import read_betas
from unibrain.scans.nsd_layout import BETA_SCALE, FETCH_FURTHER, FURTHER_SETS, NsdLayout, formats_of
from unibrain.scans.subject import Subject

_log = logging.getLogger(__name__)

IMAGERY_RUNS = (
    *("visA", "attA", "imgA_1", "visB", "attB", "imgB_1", "visC", "attC", "imgC_1"),
    *("imgA_2", "imgB_2", "imgC_2"),
)
"""Runs of NSD-Imagery in the order in which they were scanned, which is that of the betas."""

SEEN, IMAGINED = "seen", "imagined"
_TASKS = {"vis": SEEN, "img": IMAGINED}
_PUBLISHED = "Use the file as it is published"


Shown = Mapping[str, NDArray[np.int64]]
"""By task, the 0-based stimulus of each trial of a further session; -1 for one that is not of that task."""


def synthetic_trials(layout: NsdLayout) -> Shown:
    """The trials of NSD-Synthetic; stimuli are counted as in its design, from 0."""
    path = layout.synthetic_expdesign
    order = read_mat(path, ["masterordering"], "the design of NSD-Synthetic", FETCH_FURTHER)["masterordering"].ravel()
    order = order.astype(np.int64)
    if not order.size or order.min() < 1:
        found = f"goes from {order.min()}" if order.size else "is empty"
        raise InputError(f"{path}: masterordering {found}, but its stimuli count from 1. {_PUBLISHED}.")
    return {SEEN: order - 1}


def imagery_targets(layout: NsdLayout) -> dict[str, Path]:
    """The letter of every target of NSD-Imagery that has a picture, and the picture, in the order of stimulus ids."""
    targets: dict[str, Path] = {}
    for letter, path in layout.imagery_pairs.items():
        rows = read_cells(path, "pair_list", "NSD-Imagery's list of targets", FETCH_FURTHER)
        if any(len(row) != 3 or not row[0].isdecimal() for row in rows):
            raise InputError(f"{path}: pair_list has lines other than number, picture and letter. {_PUBLISHED}.")
        for _, name, cue in sorted(rows, key=lambda row: int(row[0])):
            if Path(name).name != name or name in ("", ".", ".."):
                raise InputError(f"{path}: names the picture {name!r}, which is no plain file name. {_PUBLISHED}.")
            if cue in targets:
                raise InputError(f"{path}: the letter {cue} stands for two pictures. {_PUBLISHED}.")
            targets[cue] = layout.imagery_targets[letter] / name
    return targets


def imagery_trials(layout: NsdLayout) -> Shown:
    """The trials of NSD-Imagery that have a picture as their target; stimuli are counted as `imagery_targets`."""
    numbers = {cue: number for number, cue in enumerate(imagery_targets(layout))}
    parts: dict[str, list[NDArray[np.int64]]] = {task: [] for task in _TASKS.values()}
    for run in IMAGERY_RUNS:
        path = layout.imagery_responses(run)
        table = read_columns(path, "\t", ["TRIAL", "CONDITION"], "the trials of NSD-Imagery", FETCH_FURTHER)
        order = whole_numbers(path, table, ["TRIAL"])[:, 0]
        if not np.array_equal(np.sort(order), np.arange(1, len(order) + 1)):
            raise InputError(f"{path}: TRIAL does not count its {len(order)} lines from 1. {_PUBLISHED}.")
        letters = table["CONDITION"].astype(str).str.strip().to_numpy()[np.argsort(order)]
        task, letter = _TASKS.get(run[:3]), run[3]
        none = np.full(len(letters) * (1 if task else 2), -1, dtype=np.int64)
        stimuli = none
        if task and letter in layout.imagery_pairs:
            unknown = sorted(set(letters) - set(numbers))
            if unknown:
                pairs = layout.imagery_pairs[letter].name
                raise InputError(f"{path}: CONDITION {unknown[0]} is no target of {pairs}. {_PUBLISHED}.")
            stimuli = np.array([numbers[cue] for cue in letters], dtype=np.int64)
        for name, found in parts.items():
            found.append(stimuli if name == task else none)
    return {name: np.concatenate(found) for name, found in parts.items()}


def read_further(
    layout: NsdLayout, name: str, subject: Subject, file_format: str = "auto", zscore: str = "train"
) -> dict[str, Subject]:
    """Read further scans of a subject, prepared with the statistics of the scans that a decoder was fitted to.

    Voxels are those of `subject`, in its order, in percent signal change, less the mean and over the deviation of its
    training rows; with `zscore` as ``"set"`` those of all trials of this session instead, as published decoders of
    NSD-Imagery do it, though these are statistics of what is tested. A voxel that is zero throughout the session was
    not measured, and gets the training mean.

    Returned are ``"seen"``, and of NSD-Imagery also ``"imagined"``: one row for each stimulus, the average of its
    trials, all of them test. Ids count the stimuli of the set, and are not NSD's. Their `preparation` has
    ``identified_repeats``: how often (two-way) the first half of a stimulus' trials is told from those of others by the
    second half. By chance it is 0.5, and near that trials and stimuli may not belong together.
    """
    if name not in FURTHER_SETS:
        raise InputError(f"the set is {name!r}. Choose one of {', '.join(FURTHER_SETS)}.")
    how = subject.preparation.get("zscore")
    if zscore == "train" and how != "none" and subject.statistics is None:
        raise InputError(
            f"{subject.name}: was z-scored session by session, and a session of {name} has no training trials. Prepare "
            "a run with --zscore train, or choose --zscore set."
        )
    if zscore == "set" and how == "none":
        raise InputError(f"{subject.name}: was not z-scored, so further scans are not either. Choose --zscore train.")
    shown = synthetic_trials(layout) if name == "nsd-synthetic" else imagery_trials(layout)
    trials = _read_trials(layout, name, subject, len(shown[SEEN]), file_format)
    measured = np.asarray((trials != 0).any(axis=0))
    if not measured.all():
        text = "%s: %d of %d voxels are zero throughout the session, and get the training mean."
        _log.warning(text, name, int((~measured).sum()), len(measured))
    mean, deviation = np.zeros(trials.shape[1]), np.ones(trials.shape[1])
    if zscore == "set":
        mean, deviation = trials.mean(axis=0, dtype=np.float64), trials.std(axis=0, ddof=1, dtype=np.float64)
        deviation[deviation == 0] = 1
    elif subject.statistics is not None:
        mean, deviation = subject.statistics.astype(np.float64)
    found = {}
    for task, stimuli in shown.items():
        ids, counts = np.unique(stimuli[stimuli >= 0], return_counts=True)
        averages = np.stack([trials[stimuli == identity].mean(axis=0, dtype=np.float64) for identity in ids])
        found[task] = Subject(
            name=subject.name,
            betas=np.where(measured, (averages - mean) / deviation, 0).astype(np.float32),
            stimulus_ids=ids,
            is_test=np.ones(len(ids), dtype=np.bool_),
            repeats=counts,
            voxel_indices=subject.voxel_indices,
            grid_shape=subject.grid_shape,
            regions=subject.regions,
            noise_ceiling=subject.noise_ceiling,
            simulated=subject.simulated,
            statistics=None if zscore == "set" else subject.statistics,
            preparation={
                **subject.preparation,
                "set": name,
                "task": task,
                "zscore": how if zscore == "train" else "set",
                "identified_repeats": _identified_repeats(trials, deviation, stimuli),
            },
        )
    return found


def _identified_repeats(
    trials: NDArray[np.float32], deviation: NDArray[np.float64], stimuli: NDArray[np.int64]
) -> float | None:
    """How often the halves of a stimulus' trials are more alike than halves of two stimuli; None if nothing repeats."""
    ids, counts = np.unique(stimuli[stimuli >= 0], return_counts=True)
    halves = []
    for rows in (np.flatnonzero(stimuli == identity) for identity in ids[counts > 1]):
        middle = len(rows) // 2
        halves.append([trials[half].mean(axis=0, dtype=np.float64) for half in (rows[:middle], rows[middle:])])
    if len(halves) < 2:
        return None
    scaled = np.array(halves) / deviation
    scaled -= scaled.mean(axis=0)  # what all stimuli share tells none apart
    scaled /= np.linalg.norm(scaled, axis=2, keepdims=True).clip(1e-12)
    likeness = scaled[:, 0] @ scaled[:, 1].T
    own, others = np.diag(likeness), ~np.eye(len(likeness), dtype=np.bool_)
    return float(np.mean([(likeness < side)[others].mean() for side in (own[:, None], own[None])]))


def _read_trials(layout: NsdLayout, name: str, subject: Subject, trials: int, file_format: str) -> NDArray[np.float32]:
    """All trials of the session in percent signal change, shape (trials, voxels)."""
    paths = {kind: layout.further_betas(name, kind) for kind in formats_of(file_format)}
    kind = next((kind for kind, path in paths.items() if path.is_file()), None)
    if kind is None:
        raise InputError(f"{next(iter(paths.values()))}: no such file, nor in another format. {FETCH_FURTHER}.")
    mask = np.zeros(subject.grid_shape, dtype=np.bool_)
    mask.reshape(-1)[subject.voxel_indices] = True
    betas, how = read_betas(paths[kind], mask, trials, kind)
    if how == "percent":
        _log.warning("%s: its betas are percent signal change by their size, and were read as such.", paths[kind])
    return np.ascontiguousarray(betas.T, dtype=np.float32) / np.float32(BETA_SCALE)

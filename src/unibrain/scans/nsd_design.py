"""Which trial showed which image: three files that must tell the same story."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import read_columns, read_mat, whole_numbers
from unibrain.scans.nsd_layout import FETCH, REPEATS, TOGETHER, NsdLayout, as_ranges, present_sessions

_log = logging.getLogger(__name__)

_FIELDS = ("masterordering", "subjectim", "sharedix")
_PUBLISHED = "Use the file as NSD publishes it"


@dataclass(frozen=True)
class ExperimentDesign:
    """What ``nsd_expdesign.mat`` holds; all values are 1-based as in the file."""

    masterordering: NDArray[np.int64]  # (trials,): 10k id of every trial of the full design, the same for all subjects
    subjectim: NDArray[np.int64]  # (subjects, 10k ids): 73k id of every 10k id
    sharedix: NDArray[np.int64]  # (shared,): 73k ids of the images that all see; their 10k ids are 1 to `shared`


@dataclass(frozen=True)
class Design:
    """The trials of one subject that are read, in chronological order."""

    sessions: tuple[int, ...]  # 1-based, ascending
    session: NDArray[np.int64]  # of every trial
    stimulus_ids: NDArray[np.int64]  # 0-based id of every trial's image (NSD's 73k id)
    is_shared: NDArray[np.bool_]  # whether every trial's image is one that all subjects see (the test images)

    def trials(self, session: int) -> NDArray[np.int64]:
        """Stimulus ids of one session's trials, in order."""
        return np.asarray(self.stimulus_ids[self.session == session])


def read_expdesign(path: Path) -> ExperimentDesign:
    """Read ``nsd_expdesign.mat`` (of any version of MATLAB's format)."""
    content = read_mat(path, _FIELDS, "NSD's experiment design", FETCH)
    # int64 at once: the file's own integers may be unsigned or too narrow to subtract from.
    fields = {name: values.astype(np.int64) for name, values in content.items()}
    masterordering, sharedix = fields["masterordering"].ravel(), fields["sharedix"].ravel()
    subjectim = fields["subjectim"]
    if subjectim.ndim != 2 or subjectim.shape[1] <= len(sharedix):
        raise InputError(
            f"{path}: subjectim has the shape {subjectim.shape}, which leaves no images beside the {len(sharedix)} "
            f"shared ones. {_PUBLISHED}."
        )
    for name, top in (("masterordering", subjectim.shape[1]), ("subjectim", None), ("sharedix", None)):
        values = fields[name]
        if values.size == 0 or values.min() < 1 or (top is not None and values.max() > top):
            found = f"goes from {values.min()} to {values.max()}" if values.size else "is empty"
            limit = "" if top is None else f" to {top}, the images of a subject"
            raise InputError(f"{path}: {name} {found}, but its ids count from 1{limit}. {_PUBLISHED}.")
    return ExperimentDesign(masterordering, subjectim, sharedix)


def read_stim_info(layout: NsdLayout, columns: Sequence[str]) -> Any:
    """Read columns of ``nsd_stim_info_merged.csv``: a pandas.DataFrame whose row is the 0-based 73k id.

    The rows of the file may be in any order; its ``nsdId`` must be every number from 0 on, once.
    """
    path = layout.stim_info
    table = read_columns(path, ",", ["nsdId", *columns], "NSD's table of images", FETCH)
    ids = whole_numbers(path, table, ["nsdId"])[:, 0]
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], np.arange(len(ids))):
        found = f"goes from {ids.min()} to {ids.max()}" if len(ids) else "is empty"
        raise InputError(f"{path}: nsdId {found} in {len(ids)} rows, not once from 0 to the last row. {_PUBLISHED}.")
    return table.iloc[order].reset_index(drop=True)


def read_design(layout: NsdLayout, sessions: Iterable[int] | None = None) -> Design:
    """Read which trial showed which image, and check that NSD's tables agree.

    The 73k id of trial t (0-based) is ``subjectim[subject - 1, masterordering[t] - 1]``; it must equal column 73KID of
    ``responses.tsv`` and the trial numbers in ``nsd_stim_info_merged.csv``. Without ``responses.tsv``, which says no
    more about trials than the design does, the sessions up to the last one whose betas are there count as run.
    `sessions` are 1-based; all that were run by default.
    """
    experiment = read_expdesign(layout.expdesign)
    if layout.subject > len(experiment.subjectim):
        raise InputError(
            f"{layout.expdesign}: has {len(experiment.subjectim)} subjects, no {layout.name}. Choose another subject."
        )
    images = experiment.subjectim[layout.subject - 1]
    if layout.responses.exists():
        told, session = layout.responses, _read_responses(layout, experiment, images)
    else:
        told, session = layout.betas_folder, _presumed_sessions(layout, experiment)
    order = experiment.masterordering[: len(session)]
    _check_shared(layout, experiment, images)
    _check_stim_info(layout, images[experiment.masterordering - 1], experiment.sharedix)

    present = np.unique(session)
    chosen = present if sessions is None else np.unique(np.asarray(list(sessions), dtype=np.int64))
    absent = np.setdiff1d(chosen, present)
    if len(absent) or not len(chosen):
        wanted = f"no session {as_ranges(absent.tolist())}" if len(absent) else "none was asked for"
        raise InputError(
            f"{told}: has sessions {as_ranges(present.tolist())}, {wanted}. Choose sessions that were run."
        )
    keep = np.isin(session, chosen)
    return Design(
        sessions=tuple(int(s) for s in chosen),
        session=session[keep],
        stimulus_ids=images[order - 1][keep] - 1,
        is_shared=(order <= len(experiment.sharedix))[keep],
    )


def _read_responses(layout: NsdLayout, experiment: ExperimentDesign, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Session of every trial that was run, checked against the design."""
    path = layout.responses
    columns = ["SESSION", "73KID", "10KID"]
    table = read_columns(path, "\t", columns, "the subject's trials", FETCH)
    session, ids_73k, ids_10k = whole_numbers(path, table, columns).T
    if not len(session) or session[0] != 1 or not np.isin(np.diff(session), (0, 1)).all():
        raise InputError(
            f"{path}: its sessions do not count up one by one from 1 in chronological order. Download it again."
        )
    if len(session) > len(experiment.masterordering):
        raise InputError(
            f"{path}: has {len(session)} trials, but {layout.expdesign.name} has {len(experiment.masterordering)}. "
            f"{TOGETHER}."
        )
    order = experiment.masterordering[: len(session)]
    _agree(layout, "10KID", ids_10k, order, "masterordering")
    _agree(layout, "73KID", ids_73k, images[order - 1], "subjectim[subject, masterordering]")
    return np.ascontiguousarray(session)


def _presumed_sessions(layout: NsdLayout, experiment: ExperimentDesign) -> NDArray[np.int64]:
    # How many distinct images were shown once, twice and three times within each session.
    counts = read_mat(layout.expdesign, ["basiccnt"], "NSD's experiment design", FETCH)["basiccnt"]
    trials = np.arange(1, counts.shape[0] + 1) @ counts
    if counts.ndim != 2 or not trials.size or trials.min() != trials.max() or trials[0] < 1:
        raise InputError(f"{layout.expdesign}: basiccnt does not say how many trials a session has. {_PUBLISHED}.")
    length = int(trials[0])
    most = len(experiment.masterordering) // length
    present = [number for number in present_sessions(layout, "auto") if 1 <= number <= most]
    if not present:
        raise InputError(f"{layout.responses}: no such file, and no betas beside it. {FETCH}.")
    _log.warning(
        "%s: no such file. Trials are taken from %s alone, and sessions 1 to %d, the last with betas, count as run.",
        *(layout.responses, layout.expdesign.name, present[-1]),
    )
    return np.repeat(np.arange(1, present[-1] + 1), length)


def _agree(layout: NsdLayout, column: str, found: NDArray[np.int64], expected: NDArray[np.int64], source: str) -> None:
    wrong = np.flatnonzero(found != expected)
    if not len(wrong):
        return
    first, hint = int(wrong[0]), f"{TOGETHER}."
    if np.array_equal(found + 1, expected):
        hint = "Every value is one too low, as if counted from 0: NSD counts from 1, use the file as published."
    raise InputError(
        f"{layout.responses}: {column} is {found[first]} in trial {first + 1} ({len(wrong)} of {len(found)} trials "
        f"differ), but {expected[first]} in {layout.expdesign.name} ({source}). {hint}"
    )


def _check_shared(layout: NsdLayout, experiment: ExperimentDesign, images: NDArray[np.int64]) -> None:
    shared = len(experiment.sharedix)
    both = np.intersect1d(images[:shared], images[shared:])
    if len(both):
        raise InputError(
            f"{layout.expdesign}: the image with the 73k id {both[0]} is both a shared (test) and a subject-specific "
            f"(training) one of {layout.name}, and a test image must not be trained on. {_PUBLISHED}."
        )
    if not np.array_equal(np.sort(images[:shared]), np.sort(experiment.sharedix)):
        raise InputError(
            f"{layout.expdesign}: the first {shared} images of {layout.name} in subjectim are not those of sharedix. "
            f"{_PUBLISHED}."
        )


def _check_stim_info(layout: NsdLayout, trial_ids: NDArray[np.int64], sharedix: NDArray[np.int64]) -> None:
    """Check that the table of images agrees with the design: `trial_ids` are 1-based 73k ids of all designed trials."""
    columns = [f"subject{layout.subject}_rep{rep}" for rep in range(REPEATS)]
    table = read_stim_info(layout, ["shared1000", *columns])
    path = layout.stim_info
    trials = whole_numbers(path, table, columns)
    highest = int(max(trial_ids.max(), sharedix.max()))
    if highest > len(table):
        raise InputError(
            f"{path}: has {len(table)} images, but {layout.expdesign} names the 73k id {highest}. One of the two files "
            f"is not NSD's, or was cut. {TOGETHER}."
        )
    shared = np.flatnonzero(table["shared1000"].astype(str).str.strip().str.lower().isin(("true", "1", "1.0")))
    if not np.array_equal(shared, np.sort(sharedix) - 1):
        raise InputError(
            f"{path}: {len(shared)} images are marked as shared1000, but sharedix in {layout.expdesign.name} has "
            f"{len(sharedix)}, or others. {TOGETHER}."
        )
    listed = np.zeros(len(trial_ids), dtype=np.int64)
    rows, _ = np.nonzero(trials)
    numbers = trials[trials != 0]
    inside = (numbers >= 1) & (numbers <= len(trial_ids))
    listed[numbers[inside] - 1] = rows[inside] + 1
    wrong = np.flatnonzero(listed != trial_ids)
    if len(wrong) or not inside.all():
        trial = int(wrong[0]) if len(wrong) else int(numbers[~inside][0]) - 1
        found = f"lists image {listed[trial] - 1}" if 0 <= trial < len(listed) and listed[trial] else "lists no image"
        raise InputError(
            f"{path}: {found} for trial {trial + 1} of {layout.name} (1-based) in columns {columns[0]} to "
            f"{columns[-1]}, at odds with {layout.expdesign.name}. {TOGETHER}."
        )

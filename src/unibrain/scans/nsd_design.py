"""NSD's table of images: COCO ids, and the trials that showed each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import require_file, whole_file
from unibrain.scans.nsd_layout import REPEATS, NsdLayout


def read_stim_info(layout: NsdLayout, columns: Sequence[str]) -> Any:
    """Read columns of ``nsd_stim_info_merged.csv``.

    Parameters
    ----------
    layout : NsdLayout
    columns : sequence of str
        Names of columns beside ``nsdId``.

    Returns
    -------
    pandas.DataFrame
        One row per image; row number, index and ``nsdId`` are the 0-based 73k id.

    Raises
    ------
    InputError
        If the table is missing or damaged, lacks a column, or its ids are not counted from 0.
    """
    import pandas

    path = require_file(layout.stim_info, "NSD's table of images")
    with whole_file(path, "comma-separated"):
        header = list(pandas.read_csv(path, nrows=0).columns)
        absent = [name for name in ("nsdId", *columns) if name not in header]
        if absent:
            raise InputError(
                f"{path}: found {len(header)} columns without {absent[0]}, expected NSD's 41 columns: download it again"
            )
        table = pandas.read_csv(path, usecols=["nsdId", *columns])
        ids = table["nsdId"].to_numpy(dtype=np.int64)
    if not np.array_equal(ids, np.arange(len(ids))):
        found = f"{ids[0]} to {ids[-1]}" if len(ids) else "none"
        raise InputError(
            f"{path}: found nsdId {found} in {len(ids)} rows, expected 0 to {max(len(ids) - 1, 0)} in order "
            "(0-based): use the file as NSD publishes it"
        )
    return table


def check_stim_info(layout: NsdLayout, trial_ids: NDArray[np.int64], sharedix: NDArray[np.int64]) -> None:
    """Check that the table of images agrees with the experiment's design.

    Parameters
    ----------
    layout : NsdLayout
    trial_ids : ndarray of shape (trials,), int64
        1-based 73k id of every trial of the full design of this subject.
    sharedix : ndarray of int64
        1-based 73k ids of the shared images.

    Raises
    ------
    InputError
        If a trial number (1-based; 0 means not shown) points to a trial of another image, a trial is not listed, or
        the shared images differ.
    """
    columns = [f"subject{layout.subject}_rep{rep}" for rep in range(REPEATS)]
    table = read_stim_info(layout, ["shared1000", *columns])
    path = layout.stim_info
    with whole_file(path, "comma-separated"):
        trials = table[columns].to_numpy(dtype=np.int64)
        shared = np.flatnonzero(table["shared1000"].to_numpy(dtype=bool))
    highest = int(max(trial_ids.max(), sharedix.max()))
    if highest > len(table):
        raise InputError(
            f"{layout.expdesign}: found the 73k id {highest}, expected ids from 1 to {len(table)}, the number of "
            f"images in {path.name}: take both files from one download"
        )
    if not np.array_equal(shared, np.sort(sharedix) - 1):
        raise InputError(
            f"{path}: found {len(shared)} images marked as shared1000, expected the {len(sharedix)} of sharedix "
            f"in {layout.expdesign.name}: take both files from one download"
        )
    listed = np.zeros(len(trial_ids), dtype=np.int64)
    rows, _ = np.nonzero(trials)
    numbers = trials[trials != 0]
    inside = (numbers >= 1) & (numbers <= len(trial_ids))
    listed[numbers[inside] - 1] = rows[inside] + 1
    wrong = np.flatnonzero(listed != trial_ids)
    if len(wrong) or not inside.all():
        trial = int(wrong[0]) if len(wrong) else int(numbers[~inside][0]) - 1
        found = f"image {listed[trial] - 1}" if trial < len(listed) and listed[trial] else "no such"
        raise InputError(
            f"{path}: found {found} for trial {trial + 1} of {layout.name} (1-based) in columns {columns[0]} to "
            f"{columns[-1]}, expected what {layout.expdesign.name} says: take both files from one download"
        )


"""Which trial showed which image: three files that must tell the same story."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_layout import NsdLayout, as_ranges


@dataclass(frozen=True)
class ExperimentDesign:
    """What ``nsd_expdesign.mat`` holds; all values are 1-based as in the file.

    Attributes
    ----------
    masterordering : ndarray of shape (trials,), int64
        10k id of every trial of the full design, the same for all subjects.
    subjectim : ndarray of shape (subjects, 10k ids), int64
        73k id of every 10k id, by subject.
    sharedix : ndarray of shape (shared,), int64
        73k ids of the images that all subjects see; their 10k ids are 1 to ``shared``.
    """

    masterordering: NDArray[np.int64]
    subjectim: NDArray[np.int64]
    sharedix: NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """The trials of one subject that are read, in chronological order.

    Attributes
    ----------
    sessions : tuple of int
        1-based numbers of the sessions, ascending.
    session : ndarray of shape (trials,), int64
        Session of every trial.
    stimulus_ids : ndarray of shape (trials,), int64
        0-based 73k id of every trial.
    is_shared : ndarray of shape (trials,), bool
        True where the image is one of those that all subjects see (the test images).
    """

    sessions: tuple[int, ...]
    session: NDArray[np.int64]
    stimulus_ids: NDArray[np.int64]
    is_shared: NDArray[np.bool_]

    def trials(self, session: int) -> NDArray[np.int64]:
        """Stimulus ids of one session's trials, in order."""
        return np.asarray(self.stimulus_ids[self.session == session])


def read_expdesign(path: Path) -> ExperimentDesign:
    """Read ``nsd_expdesign.mat`` (MAT version 5).

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    ExperimentDesign

    Raises
    ------
    InputError
        If the file is missing or damaged, or a field is missing, misshapen, or not 1-based.
    """
    from scipy.io import loadmat

    require_file(path, "NSD's experiment design")
    with whole_file(path, "MAT"):
        content: dict[str, Any] = loadmat(path)
    fields = {}
    for name in ("masterordering", "subjectim", "sharedix"):
        if name not in content:
            raise InputError(f"{path}: found no field {name}, expected NSD's experiment design: download it again")
        # int64 at once: the file's own integers may be unsigned or too narrow to subtract from.
        fields[name] = np.asarray(content[name]).astype(np.int64)
    masterordering, sharedix = fields["masterordering"].ravel(), fields["sharedix"].ravel()
    subjectim = fields["subjectim"]
    if subjectim.ndim != 2 or subjectim.shape[1] <= len(sharedix):
        raise InputError(
            f"{path}: found subjectim of shape {subjectim.shape} with {len(sharedix)} shared images, "
            "expected (subjects, images) with more images than shared ones: download it again"
        )
    for name, values, top in (
        ("masterordering", masterordering, subjectim.shape[1]),
        ("subjectim", subjectim, None),
        ("sharedix", sharedix, None),
    ):
        if values.size == 0 or values.min() < 1 or (top is not None and values.max() > top):
            found = f"{values.min()} to {values.max()}" if values.size else "nothing"
            raise InputError(
                f"{path}: found {name} from {found}, expected 1-based ids"
                f"{f' from 1 to {top}' if top is not None else ''}: use the file as NSD publishes it"
            )
    return ExperimentDesign(masterordering, subjectim, sharedix)


def read_design(layout: NsdLayout, sessions: Iterable[int] | None = None) -> Design:
    """Read which trial showed which image, and check that NSD's three tables agree.

    The 73k id of trial t (0-based) is ``subjectim[subject - 1, masterordering[t] - 1]``; it must equal column 73KID of
    ``responses.tsv`` and the trial numbers in ``nsd_stim_info_merged.csv``.

    Parameters
    ----------
    layout : NsdLayout
    sessions : iterable of int, optional
        1-based numbers of the sessions to read; all that were run by default.

    Returns
    -------
    Design

    Raises
    ------
    InputError
        If a table is missing or damaged, if two of them disagree (a wrong index base, for example), if a session was
        not run, or if an image is both a shared and a subject-specific one.
    """
    experiment = read_expdesign(layout.expdesign)
    if layout.subject > len(experiment.subjectim):
        raise InputError(
            f"{layout.expdesign}: found {len(experiment.subjectim)} subjects, expected {layout.name} among them: "
            "choose another subject"
        )
    images = experiment.subjectim[layout.subject - 1]
    session, ids_73k, ids_10k = _read_responses(layout.responses)
    run = len(session)
    if run > len(experiment.masterordering):
        raise InputError(
            f"{layout.responses}: found {run} trials, expected at most {len(experiment.masterordering)} "
            f"as in {layout.expdesign.name}: take both from one download"
        )
    order = experiment.masterordering[:run]
    _agree(layout.responses, "10KID", ids_10k, order, "masterordering")
    _agree(layout.responses, "73KID", ids_73k, images[order - 1], "subjectim[subject, masterordering]")

    shared = len(experiment.sharedix)
    both = np.intersect1d(images[:shared], images[shared:])
    if len(both):
        raise InputError(
            f"{layout.expdesign}: found the image with 73k id {both[0]} both among the shared (test) and the "
            f"subject-specific (training) images of {layout.name}, expected it in one of them: "
            "a test image must not be trained on, use the file as NSD publishes it"
        )
    if not np.array_equal(np.sort(images[:shared]), np.sort(experiment.sharedix)):
        raise InputError(
            f"{layout.expdesign}: found the first {shared} images of {layout.name} to differ from sharedix, "
            "expected the same images: use the file as NSD publishes it"
        )
    check_stim_info(layout, images[experiment.masterordering - 1], experiment.sharedix)

    present = np.unique(session)
    chosen = present if sessions is None else np.unique(np.asarray(list(sessions), dtype=np.int64))
    absent = np.setdiff1d(chosen, present)
    if len(absent) or not len(chosen):
        wanted = "session" + "s" * (len(absent) > 1) + f" {as_ranges(absent.tolist())}"
        raise InputError(
            f"{layout.responses}: found sessions {as_ranges(present.tolist())}, expected "
            f"{wanted if len(absent) else 'session numbers (none were given)'}: choose sessions that were run"
        )
    keep = np.isin(session, chosen)
    return Design(
        sessions=tuple(int(s) for s in chosen),
        session=session[keep],
        stimulus_ids=images[order - 1][keep] - 1,
        is_shared=(order <= shared)[keep],
    )


def _read_responses(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    import pandas

    require_file(path, "the subject's trials")
    columns = ["SESSION", "73KID", "10KID"]
    with whole_file(path, "tab-separated"):
        table = pandas.read_csv(path, sep="\t", usecols=columns)
        session, ids_73k, ids_10k = (table[column].to_numpy(dtype=np.int64) for column in columns)
    if not len(session):
        raise InputError(f"{path}: found no trials, expected one row per trial that was run: download it again")
    if session[0] != 1 or not np.isin(np.diff(session), (0, 1)).all():
        raise InputError(
            f"{path}: found sessions that do not count up one by one from 1 (the first is {session[0]}), "
            "expected all trials in chronological order: download it again"
        )
    return session, ids_73k, ids_10k


def _agree(path: Path, column: str, found: NDArray[np.int64], expected: NDArray[np.int64], source: str) -> None:
    wrong = np.flatnonzero(found != expected)
    if not len(wrong):
        return
    first = int(wrong[0])
    hint = ": take both files from one download"
    if np.array_equal(found + 1, expected):
        hint = " (every value is one too low, as if counted from 0): NSD counts from 1, use the file as published"
    raise InputError(
        f"{path}: found {column} {found[first]} in trial {first + 1} ({len(wrong)} of {len(found)} trials differ), "
        f"expected {expected[first]} from {source}{hint}"
    )

"""Single-trial betas in a folder of BIDS derivatives, as GLMsingle writes them, with the tables of their trials.

The files are found by their names; what is in them is read as any other custom data. A subject has one file of betas a
session, a 4-D NIfTI or GLMsingle's HDF5, and in the same folder the tables of its trials: one of the session, or one a
run. LAION-fMRI is such a folder.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from unibrain.errors import InputError
from unibrain.scans.custom import ListedScans
from unibrain.scans.custom_table import Trial, build_table, number_scans, read_lines
from unibrain.scans.foreign import require_folder
from unibrain.scans.published_split import PictureSplit

BETAS = (
    "*desc-singletrial*_statmap.nii*",
    "*_betas.nii*",
    "typed_fithrf_glmdenoise_rr.*",
    "*desc-glmsingle_model.h5",
)
"""File names of betas, in lower case: of the first that fits a folder, its file is read."""
TRIALS = ("*_trials.tsv", "*_events.tsv")
"""Likewise for the tables of trials, all of which are read."""
PICTURES = ("picture", "stim_file", "image_name", "label")
"""Columns that may name the picture of a trial, best first: ours, that of BIDS, and LAION-fMRI's."""

_LABEL = re.compile(r"(?:sub-)?([A-Za-z0-9]+)")
_SESSION = re.compile(r"(?:^|[_/])(ses-[A-Za-z0-9]+)(?=[_/]|$)")


@dataclass(frozen=True)
class _Session:
    label: str  # such as ses-01; empty if there are none
    betas: Path
    trials: tuple[Path, ...]


def subject_label(subject: str) -> str:
    """The name of a subject's folder: ``sub-01`` for itself and for ``01``."""
    match = _LABEL.fullmatch(subject)
    if match is None:
        raise InputError(f"--subject is {subject!r}. Give a label of letters and digits, such as sub-01.")
    return f"sub-{match[1]}"


def read_bids(
    root: str | os.PathLike[str],
    subject: str,
    betas: str | None = None,
    test_share: float = 0.1,
    seed: int = 0,
    *,
    split: PictureSplit | None = None,
    captions: Path | None = None,
) -> ListedScans:
    """Find the betas of one subject in a folder of BIDS derivatives, and read the tables of their trials.

    A table has a line per trial, in the order of the betas (of several tables, one a run, in the order of runs), or in
    any order with a column ``beta_index`` that counts them from 0. The picture is in column ``picture``, ``stim_file``,
    ``image_name`` or ``label``. Lines without one are no trials, such as a pause; with ``beta_index`` their betas are
    left out.

    Parameters
    ----------
    root : path-like
        The folder that holds ``sub-01`` and so on.
    subject : str
        ``"sub-01"`` or ``"01"``.
    betas : str, optional
        File name of the betas, in which ``*`` stands for any text; by default the names in `BETAS`.
    test_share, seed, split, captions
        As in `unibrain.scans.read_table`.

    Returns
    -------
    ListedScans
        Its mask is the one file ``*_mask.nii*`` of the subject, if there is exactly one.

    Raises
    ------
    InputError
        If betas or tables are missing or ambiguous, or a table is wrong.
    """
    label = subject_label(subject)
    folder = require_folder(Path(root), "BIDS derivatives") / label
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in Path(root).glob("sub-*") if path.is_dir())) or "none"
        raise InputError(
            f"{folder}: no such folder (subjects there: {there}). Give the folder of derivatives that holds {label}, "
            "such as derivatives/glmsingle."
        )
    listed: list[tuple[Path, int]] = []
    trials: list[Trial] = []
    columns: dict[str, None] = {}
    sessions = _sessions(folder, betas)
    for session in sessions:
        found, names = _trials(session, sum(number for _, number in listed))
        listed.append((session.trials[0], len(found)))
        trials += found
        columns |= dict.fromkeys(names)
    table = build_table(folder, tuple(listed), trials, list(columns), test_share, seed, split, captions)
    masks = sorted(path for path in folder.rglob("*_mask.nii*") if path.is_file())
    return ListedScans(table, tuple(session.betas for session in sessions), masks[0] if len(masks) == 1 else None)


def _sessions(folder: Path, pattern: str | None) -> list[_Session]:
    patterns = BETAS if pattern is None else (pattern.lower(),)
    found: list[_Session] = []
    for place, subfolders, names in os.walk(folder):
        subfolders.sort()
        betas = _first(names, patterns)
        if not betas:
            continue
        if len(betas) > 1:
            raise InputError(
                f"{place}: {' and '.join(betas)} may both be the betas. Say with --betas which file name to read."
            )
        trials = _first(names, TRIALS)
        if not trials:
            raise InputError(
                f"{Path(place, betas[0])}: has no table of trials beside it ({' or '.join(TRIALS)}). Copy it there."
            )
        path = Path(place, betas[0])
        match = _SESSION.search(path.relative_to(folder).as_posix())
        found.append(_Session(match[1] if match else "", path, tuple(Path(place, name) for name in trials)))
    if not found:
        raise InputError(
            f"{folder}: holds no betas named {' or '.join(patterns)}. Give the folder of derivatives with single-trial "
            "betas, or name them with --betas."
        )
    found.sort(key=lambda session: _natural(session.label))
    labels = [session.label for session in found]
    twice = next((n for n, label in enumerate(labels) if label in labels[:n]), None)
    if twice is not None:
        raise InputError(
            f"{found[twice].betas}: is a second file of betas of {labels[twice] or 'a subject without sessions'}, "
            f"beside {found[labels.index(labels[twice])].betas.name}. Say with --betas which file name to read."
        )
    return found


def _first(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that fit the first pattern that any fits, in the order of their numbers."""
    seen = [name for name in names if not name.startswith(".")]  # such as what macOS puts beside files
    fits = ([name for name in seen if fnmatchcase(name.lower(), pattern)] for pattern in patterns)
    return sorted(next(filter(None, fits), []), key=_natural)


def _natural(text: str) -> list[tuple[int, str]]:
    """A sorting key by which run-2 comes before run-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _trials(session: _Session, start: int) -> tuple[list[Trial], list[str]]:
    """The trials of one session, its first beta being scan `start`, and the columns of its tables."""
    lines: list[tuple[Path, int, dict[str, str]]] = []
    columns: dict[str, None] = {}
    indexed: set[bool] = set()
    for path in session.trials:
        rows, names = read_lines(path, "the table of trials")
        picture = next((name for name in PICTURES if name in names), None)
        if picture is None:
            raise InputError(
                f"{path}: has the columns {', '.join(names)}, none of which names the picture ({', '.join(PICTURES)}). "
                "Add one."
            )
        indexed.add("beta_index" in names)
        if "beta_index" not in names:
            _check_onsets(path, rows)
            rows = [(line, row) for line, row in rows if row[picture]]
        for line, row in rows:
            cells = row | {"picture": row[picture]}
            if not row[picture]:
                cells["split"] = "unused"
            if session.label:
                cells["session"] = session.label
            lines.append((path, line, cells))
        columns |= dict.fromkeys(name for name in names if name not in (picture, "beta_index"))
    if len(indexed) > 1:
        raise InputError(f"{path}: some tables of {session.label} have beta_index, others have not. Give it to all.")
    if indexed == {True}:
        numbers = number_scans(path, [(line, cells["beta_index"]) for _, line, cells in lines], 0)
    else:
        numbers = list(range(len(lines)))
    trials = [Trial(start + number, *line) for number, line in zip(numbers, lines, strict=True)]
    return trials, ["picture", *columns, *["session"] * bool(session.label and "session" not in columns)]


def _check_onsets(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Refuse lines that are not in the order in which things were shown, which is that of betas."""
    before = float("-inf")
    for line, row in rows:
        if not (text := row.get("onset", "")):
            continue
        try:
            onset = float(text)
        except ValueError:
            raise InputError(f"{path}: line {line} has the onset {text!r}, no number. Correct it.") from None
        if onset < before:
            raise InputError(f"{path}: line {line} begins before the line above it. Sort the lines by onset.")
        before = onset

"""NSD's table of images: COCO ids, and the trials that showed each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.files import require_file, whole_file
from unibrain.scans.nsd.layout import REPEATS, NsdLayout

__all__ = ["check_stim_info", "read_stim_info"]


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

"""A laboratory's own scans to the same `Subject` that NSD's files give."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.custom_scans import ScanMatrix, open_scans, read_mask, read_regions
from unibrain.scans.custom_table import CustomTable
from unibrain.scans.nsd_design import Design
from unibrain.scans.prepare import average_repeats, standardise, zscore_sessions
from unibrain.scans.subject import Subject
from unibrain.workspace.progress import track

_ROWS = 256


def read_custom(
    table: CustomTable,
    scans: Path,
    mask: Path | None = None,
    regions: Mapping[str, Path] | None = None,
    *,
    dataset: str | None = None,
    name: str = "own",
    average: str = "all",
    zscore: str = "train",
    simulated: bool = False,
) -> Subject:
    """Read scans that a table describes.

    What is done to them is what is done to NSD's: repeats of a picture are averaged, voxels that do not change over the
    training rows are dropped with a warning, and all are z-scored with the training rows' mean and deviation. A voxel
    that is zero in all scans of a session is taken for not measured there.

    Parameters
    ----------
    table : CustomTable
    scans : pathlib.Path
        See `unibrain.scans.custom_scans.open_scans`.
    mask : pathlib.Path, optional
        See `unibrain.scans.custom_scans.read_mask`.
    regions : mapping of str to pathlib.Path, optional
        See `unibrain.scans.custom_scans.read_regions`.
    dataset : str, optional
        In HDF5.
    name : str
        Of the subject.
    average : {"all", "test"}
        With ``"test"`` every training scan is a row of its own.
    zscore : {"train", "session", "none"}
    simulated : bool
        Whether no human was scanned.

    Returns
    -------
    Subject
        Its noise ceiling is not known (NaN).

    Raises
    ------
    InputError
        If a file is wrong, does not have as many scans as the table lists, or holds NaN; if `zscore` is ``"session"``
        and the table names no sessions.
    """
    if zscore == "session" and table.sessions == ("",):
        raise InputError(
            f"{table.path}: found no column session, expected one to z-score every session by itself: add it, or "
            "z-score over all scans"
        )
    voxel_mask = None if mask is None else read_mask(mask)
    matrix = open_scans(scans, voxel_mask, dataset)
    if matrix.scans != table.rows:
        turned = " (rows are scans: is the matrix transposed?)" if matrix.voxels == table.rows else ""
        raise InputError(
            f"{scans}: found {matrix.scans} scans, expected {table.rows} as {table.path.name} lists{turned}: "
            "list every scan, with split unused for those to leave out"
        )
    masks = read_regions(regions or {}, matrix.voxels, voxel_mask)
    design = Design(
        tuple(range(1, len(table.sessions) + 1)), table.session, table.stimulus_ids, table.is_test[table.stimulus_ids]
    )
    sessions: Iterator[tuple[int, NDArray[np.float32]]] = _sessions(matrix, table)
    if zscore == "session":
        sessions = zscore_sessions(sessions, design, str(scans))
    averages = average_repeats(sessions, design, str(scans), average)
    betas, kept = standardise(averages, str(scans), zscore=zscore == "train")
    return Subject(
        name=name,
        betas=betas,
        stimulus_ids=averages.stimulus_ids,
        is_test=averages.is_test,
        repeats=averages.repeats,
        voxel_indices=matrix.voxel_indices[kept],
        grid_shape=matrix.grid_shape,
        regions={region: inside[kept] for region, inside in masks.items()},
        noise_ceiling=np.full(int(kept.sum()), np.nan, dtype=np.float32),
        simulated=simulated,
        preparation={
            "source": "own data",
            "scans": scans.name,
            "mask": None if mask is None else mask.name,
            "table": table.path.name,
            "sessions": [label for label in table.sessions if label],
            "split": table.split,
            "average": average,
            "zscore": zscore,
            "noise_ceiling": None,
        },
    )


def _sessions(matrix: ScanMatrix, table: CustomTable) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for session in track(range(1, len(table.sessions) + 1), "reading scans", unit="session"):
        rows = table.scans[table.session == session]
        betas = matrix.read(rows)
        for start in range(0, len(rows), _ROWS):
            wrong = np.argwhere(~np.isfinite(betas[start : start + _ROWS]))
            if len(wrong):
                row, voxel = rows[start + wrong[0][0]], wrong[0][1]
                raise InputError(
                    f"{matrix.path}: scan {row} holds a NaN or infinite value in voxel {voxel} (both counted from 0), "
                    "expected finite betas: leave that voxel out of the matrix or of the mask, or mark the scan unused"
                )
        yield session, betas

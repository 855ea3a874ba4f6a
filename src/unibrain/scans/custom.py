"""A laboratory's own scans: the `Subject` that they make with the table of what was shown in each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.custom_scans import Mask, ScanMatrix, join_scans, open_scans, read_mask, read_regions
from unibrain.scans.custom_table import CustomTable
from unibrain.scans.nsd_design import Design
from unibrain.scans.prepare import prepare_rows
from unibrain.scans.subject import Subject
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedScans:
    """What `read_custom` takes, once it is found: a table of trials, the files of scans that it lists, and a mask."""

    table: CustomTable
    scans: tuple[Path, ...]
    mask: Path | None = None
    dataset: str | None = None


def open_listed(
    table: CustomTable, scans: Sequence[Path], mask: Mask | None = None, dataset: str | None = None
) -> ScanMatrix:
    """Open the files of scans that a table lists, one for each of its `CustomTable.listed`, without reading them."""
    matrices = []
    for (path, rows), file in zip(table.listed, scans, strict=True):
        matrix = open_scans(file, mask, dataset)
        if matrix.scans != rows:
            turned = " Rows are scans: is the matrix transposed?" if matrix.voxels == rows else ""
            raise InputError(
                f"{file}: holds {matrix.scans} scans, but {path.name} lists {rows}.{turned} List every scan, with "
                "split unused for those to leave out."
            )
        matrices.append(matrix)
    return join_scans(matrices)


def read_custom(
    table: CustomTable,
    scans: Path | Sequence[Path],
    mask: Path | None = None,
    regions: Mapping[str, Path] | None = None,
    *,
    dataset: str | None = None,
    name: str = "custom",
    average: str = "all",
    zscore: str = "train",
    simulated: bool = False,
) -> Subject:
    """Read scans that a table describes.

    What is done to them is what is done to NSD's: repeats of a picture are averaged, voxels that do not change over the
    training rows are dropped with a warning, and all are z-scored with the training rows' mean and deviation. A voxel
    that is zero, or NaN, in all scans of a session is taken for not measured there.

    Parameters
    ----------
    table : CustomTable
        From `read_table` or `read_bids`.
    scans : pathlib.Path or sequence of pathlib.Path
        ``.npy``, ``.csv``, ``.tsv``, HDF5 or 4-D NIfTI; see `unibrain.scans.custom_scans.open_scans`. Several files are
        those that the table lists, in its order.
    mask : pathlib.Path, optional
        NIfTI or ``.npy`` of three axes; above 0 is read.
    regions : mapping of str to pathlib.Path, optional
        Volumes on the grid of the mask, or one value per voxel.
    dataset : str, optional
        In HDF5.
    name : str
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
        If a file is wrong, or does not have as many scans as the table lists; if a scan holds NaN, or one value in all
        voxels, or is that of another picture once more; if `zscore` is ``"session"`` and the table names no sessions.
    """
    if zscore == "session" and table.sessions == ("",):
        raise InputError(
            f"{table.path}: has no column session, so sessions cannot be z-scored by themselves. Add it, or z-score "
            "over all scans."
        )
    files = (scans,) if isinstance(scans, Path) else tuple(scans)
    voxel_mask = None if mask is None else read_mask(mask)
    matrix = open_listed(table, files, voxel_mask, dataset)
    masks = read_regions(regions or {}, matrix.voxels, voxel_mask)
    design = Design(
        tuple(range(1, len(table.sessions) + 1)), table.session, table.stimulus_ids, table.is_test[table.stimulus_ids]
    )
    source = str(files[0] if len(files) == 1 else table.path)
    rows, kept, statistics = prepare_rows(_sessions(matrix, table), design, source, average=average, zscore=zscore)
    return Subject(
        name=name,
        betas=rows.betas,
        stimulus_ids=rows.stimulus_ids,
        is_test=rows.is_test,
        repeats=rows.repeats,
        voxel_indices=matrix.voxel_indices[kept],
        grid_shape=matrix.grid_shape,
        regions={region: inside[kept] for region, inside in masks.items()},
        noise_ceiling=np.full(int(kept.sum()), np.nan, dtype=np.float32),
        simulated=simulated,
        statistics=statistics,
        preparation={
            "source": "custom data",
            "scans": ", ".join(file.name for file in files),
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
    seen: dict[str, int] = {}
    for session in track(range(1, len(table.sessions) + 1), "reading scans", unit="session"):
        trials = np.flatnonzero(table.session == session)
        betas = matrix.read(table.scans[trials])
        # GLMsingle has no estimate for voxels without signal, such as at the edge of a mask.
        lost = np.isnan(betas).all(axis=0)
        betas = np.where(lost, np.float32(0), betas) if lost.any() else betas
        for trial, scan in zip(trials, betas, strict=True):
            _check_scan(matrix, table, int(trial), scan, seen)
        yield session, betas


def _check_scan(
    matrix: ScanMatrix, table: CustomTable, trial: int, scan: NDArray[np.float32], seen: dict[str, int]
) -> None:
    """Refuse a scan with a hole or without a pattern, and one that is there twice for two pictures."""
    path, number = matrix.place(int(table.scans[trial]))
    wrong = np.flatnonzero(~np.isfinite(scan))
    if len(wrong):
        raise InputError(
            f"{path}: scan {number} holds a NaN or infinite value in voxel {wrong[0]} (both counted from 0). Leave "
            "that voxel out of the matrix or of the mask, or mark the scan unused."
        )
    if len(scan) == 1:
        return
    if (scan == scan[0]).all():
        raise InputError(
            f"{path}: scan {number} (counted from 0) is {scan[0]:g} in all voxels, so it measured nothing. Mark it "
            "unused in the table."
        )
    before = seen.setdefault(digest(scan), trial)
    if before == trial:
        return
    other, earlier = matrix.place(int(table.scans[before]))
    both = f"scans {earlier} and {number} (counted from 0) are identical"
    if other != path:
        both = f"scan {number} is identical to scan {earlier} of {other.name} (counted from 0)"
    if table.stimulus_ids[before] != table.stimulus_ids[trial]:
        shown = " and ".join(table.pictures[table.stimulus_ids[place]] for place in (before, trial))
        raise InputError(f"{path}: {both}, though {shown} were shown. Export it again, or mark one unused.")
    _log.warning("%s: %s. They count as two repeats of %s.", path, both, table.pictures[table.stimulus_ids[trial]])

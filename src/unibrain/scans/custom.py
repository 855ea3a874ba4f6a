"""A laboratory's own scans: the table of what was shown in each, and the `Subject` that both make."""

import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.custom_scans import ScanMatrix, open_scans, read_mask, read_regions
from unibrain.scans.foreign import kind_of, text_rows
from unibrain.scans.nsd_design import Design
from unibrain.scans.prepare import average_repeats, standardise, zscore_sessions
from unibrain.scans.subject import Subject
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import track

_log = logging.getLogger(__name__)

_BASES = {"scan_from_0": 0, "scan_from_1": 1}
_CAPTION = re.compile(r"captions?|caption_\d+")
_SPLITS = ("train", "test", "unused")
_NOTHING = ("nan", "<na>", "n/a", "null")
"""How other programs write an empty cell."""


@dataclass(frozen=True)
class CustomTable:
    """What was shown in every scan."""

    path: Path
    rows: int  # scans that the table lists, unused ones included: as many as the matrix has
    scans: NDArray[np.int64]  # (trials,): 0-based row of the matrix of each trial that is used, ascending
    stimulus_ids: NDArray[np.int64]  # (trials,): place in `pictures`
    session: NDArray[np.int64]  # (trials,): 1-based place in `sessions`
    sessions: tuple[str, ...]  # in order of appearance; one empty name if the table has none
    pictures: tuple[str, ...]  # file names in the folder of pictures, sorted, each once
    captions: tuple[tuple[str, ...], ...]  # of each picture; all empty if there are none
    is_test: NDArray[np.bool_]  # (pictures,)
    split: str  # where the split comes from, in words
    ignored: tuple[str, ...]  # columns that were not read

    @property
    def has_captions(self) -> bool:
        """Whether there are captions (then every picture has some)."""
        return any(self.captions)


def read_table(path: Path, scan_base: int | None = None, test_share: float = 0.1, seed: int = 0) -> CustomTable:
    """Read a table of trials.

    Columns: ``scan_from_0`` or ``scan_from_1`` (row of the matrix, counted from there; or ``scan`` with `scan_base`);
    ``picture`` (file name in the folder of pictures); optional ``captions`` (separated by ``|``) or ``caption_1``,
    ``caption_2`` and so on (captions that stand in several rows of a picture are put together), ``session``, and
    ``split`` (``train``, ``test``, or ``unused`` for scans to leave out). Others are not read. ``NaN`` is no text.

    Parameters
    ----------
    path : pathlib.Path
        csv or tsv.
    scan_base : {0, 1}, optional
        What ``scan`` is counted from.
    test_share : float
        Without ``split``: share of the pictures that are held out, above 0 and below 1; at least two.
    seed : int
        Of that draw.

    Returns
    -------
    CustomTable

    Raises
    ------
    InputError
        If a column is missing or a cell is wrong, a scan is listed twice or not at all, a picture's name leads out of
        the folder, some pictures have captions and others none, a picture is in training and in test, or there are
        fewer than two training pictures or no test picture.
    """
    lines, columns = _lines(path)
    scan, base = _scan_column(path, columns, scan_base)
    listed: dict[int, int] = {}
    trials: list[tuple[int, int, str, dict[str, str]]] = []
    for line, row in lines:
        text = row[scan]
        if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < base:
            raise InputError(
                f"{path}: line {line} names scan {text!r}, no whole number of at least {base}. Correct it."
            )
        number = int(text) - base
        before = listed.setdefault(number, line)
        if before != line:
            raise InputError(f"{path}: lines {before} and {line} both name scan {text}. Give every scan one line.")
        row["split"] = row.get("split", "").lower()
        if "split" in columns and row["split"] not in _SPLITS:
            raise InputError(f"{path}: line {line} has the split {row['split']!r}. Write train, test or unused.")
        if row["split"] != "unused":
            trials.append((number, line, _picture(path, line, row["picture"]), row))
    absent = next((row for row in range(len(listed)) if row not in listed), None)
    if absent is not None:
        raise InputError(
            f"{path}: lists {len(listed)} scans, and none of them is {absent + base}. List every row of the matrix "
            f"from {base} on, with split unused if it is to be left out."
        )
    trials.sort(key=lambda trial: trial[0])
    pictures = tuple(sorted({name for _, _, name, _ in trials}))
    place = {name: index for index, name in enumerate(pictures)}
    shown = [(place[name], line, row) for _, line, name, row in trials]
    if "split" in columns:
        is_test = _split(path, pictures, shown)
        origin = "the table's column split"
    else:
        is_test = np.zeros(len(pictures), dtype=np.bool_)
        held_out = max(2, round(test_share * len(pictures)))
        is_test[np.random.default_rng(seed).permutation(len(pictures))[:held_out]] = True
        origin = f"drawn by picture with seed {seed}: {is_test.sum()} of {len(pictures)} pictures held out"
    test = int(is_test.sum())
    if len(is_test) - test < 2 or test < 1:
        raise InputError(
            f"{path}: leaves {len(is_test) - test} training pictures and {test} test pictures, where two and one are "
            "needed. Add scans, or change the split."
        )
    names = [row.get("session", "") for _, _, row in shown]
    if "session" in columns and not all(names):
        raise InputError(f"{path}: line {shown[names.index('')][1]} names no session. Fill it in.")
    sessions = tuple(dict.fromkeys(names))
    used = {scan, "picture", "session", "split", *filter(_CAPTION.fullmatch, columns)}
    return CustomTable(
        path=path,
        rows=len(listed),
        scans=np.array([number for number, *_ in trials], dtype=np.int64),
        stimulus_ids=np.array([picture for picture, *_ in shown], dtype=np.int64),
        session=np.array([sessions.index(name) + 1 for name in names], dtype=np.int64),
        sessions=sessions,
        pictures=pictures,
        captions=_captions(path, columns, pictures, shown),
        is_test=is_test,
        split=origin,
        ignored=tuple(name for name in columns if name not in used),
    )


def _lines(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Line number and cells by column of every line, and the columns with a name."""
    kind = kind_of(path, ("csv", "tsv"), "the table of trials")
    lines = list(text_rows(path, kind, "the table of trials"))
    if len(lines) < 2:
        raise InputError(f"{path}: has {len(lines)} lines. Give it names of columns and one line per scan.")
    header = [name.lower() for name in lines[0][1]]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: has the column {twice[0]} twice. Rename one.")
    if "picture" not in header:
        raise InputError(f"{path}: has the columns {', '.join(filter(None, header))}, but none named picture. Add it.")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, but the first line has {len(header)}. Correct it (text "
                "that holds the separator goes in double quotes)."
            )
        texts = ("" if cell.lower() in _NOTHING else cell for cell in cells)
        rows.append((line, {name: text for name, text in zip(header, texts, strict=True) if name}))
    return rows, [name for name in header if name]


def _scan_column(path: Path, columns: Sequence[str], scan_base: int | None) -> tuple[str, int]:
    found = [name for name in ("scan", *_BASES) if name in columns]
    if len(found) != 1:
        raise InputError(
            f"{path}: has {' and '.join(found) or 'no column of scans'}. Give it one column, scan_from_0 or "
            "scan_from_1 (rows of the matrix, counted from there)."
        )
    base = _BASES.get(found[0], scan_base)
    if base is None:
        raise InputError(
            f"{path}: the column scan does not say whether its first scan is 0 or 1. Name it scan_from_0 or "
            "scan_from_1, or give --scan-base."
        )
    if scan_base not in (None, base):
        raise InputError(
            f"{path}: the column {found[0]} and --scan-base {scan_base} contradict each other. Leave out --scan-base."
        )
    return found[0], base


def _picture(path: Path, line: int, text: str) -> str:
    # In one normal form, or the same file would be two pictures.
    name = PurePosixPath(unicodedata.normalize("NFC", text.replace("\\", "/")))
    if not text or not name.parts:
        raise InputError(f"{path}: line {line} names no picture. Fill it in.")
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or "\0" in text:
        raise InputError(
            f"{path}: line {line} names the picture {text!r}, which leads out of the folder of pictures. Name a file "
            "in it."
        )
    return name.as_posix()


def _captions(
    path: Path, columns: Sequence[str], pictures: Sequence[str], shown: Sequence[tuple[int, int, Mapping[str, str]]]
) -> tuple[tuple[str, ...], ...]:
    where = sorted(filter(_CAPTION.fullmatch, columns), key=lambda name: (len(name), name))
    found: list[dict[str, None]] = [{} for _ in pictures]
    for place, _, row in shown:
        for column in where:
            for text in row[column].split("|"):
                caption = " ".join(text.split())
                if caption and caption.lower() not in _NOTHING:
                    found[place][caption] = None
    without = [name for name, captions in zip(pictures, found, strict=True) if not captions]
    if without and len(without) < len(pictures):
        raise InputError(
            f"{path}: picture {without[0]} has no caption ({len(without)} of {len(pictures)} pictures lack one). Give "
            "all pictures captions, or none."
        )
    return tuple(tuple(captions) for captions in found)


def _split(
    path: Path, pictures: Sequence[str], shown: Sequence[tuple[int, int, Mapping[str, str]]]
) -> NDArray[np.bool_]:
    first: dict[int, tuple[int, str]] = {}
    for place, line, row in shown:
        before = first.setdefault(place, (line, row["split"]))
        if before[1] != row["split"]:
            raise InputError(
                f"{path}: picture {pictures[place]} is {before[1]} in line {before[0]} and {row['split']} in line "
                f"{line}. Keep every picture on one side, or what is tested was trained on."
            )
    return np.array([first[place][1] == "test" for place in range(len(pictures))], dtype=np.bool_)


def read_custom(
    table: CustomTable,
    scans: Path,
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
    that is zero in all scans of a session is taken for not measured there.

    Parameters
    ----------
    table : CustomTable
        From `read_table`.
    scans : pathlib.Path
        ``.npy``, ``.csv``, ``.tsv``, HDF5 or 4-D NIfTI; see `unibrain.scans.custom_scans.open_scans`.
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
    voxel_mask = None if mask is None else read_mask(mask)
    matrix = open_scans(scans, voxel_mask, dataset)
    if matrix.scans != table.rows:
        turned = " Rows are scans: is the matrix transposed?" if matrix.voxels == table.rows else ""
        raise InputError(
            f"{scans}: holds {matrix.scans} scans, but {table.path.name} lists {table.rows}.{turned} List every scan, "
            "with split unused for those to leave out."
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
            "source": "custom data",
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
    seen: dict[str, int] = {}
    for session in track(range(1, len(table.sessions) + 1), "reading scans", unit="session"):
        trials = np.flatnonzero(table.session == session)
        betas = matrix.read(table.scans[trials])
        for trial, scan in zip(trials, betas, strict=True):
            _check_scan(matrix.path, table, int(trial), scan, seen)
        yield session, betas


def _check_scan(path: Path, table: CustomTable, trial: int, scan: NDArray[np.float32], seen: dict[str, int]) -> None:
    """Refuse a scan with a hole or without a pattern, and one that is there twice for two pictures."""
    number, wrong = table.scans[trial], np.flatnonzero(~np.isfinite(scan))
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
    both = f"scans {table.scans[before]} and {number} (counted from 0) are identical"
    if table.stimulus_ids[before] != table.stimulus_ids[trial]:
        shown = " and ".join(table.pictures[table.stimulus_ids[place]] for place in (before, trial))
        raise InputError(f"{path}: {both}, though {shown} were shown. Export it again, or mark one unused.")
    _log.warning("%s: %s. They count as two repeats of %s.", path, both, table.pictures[table.stimulus_ids[trial]])

"""The table of trials: which picture was seen in which scan, with its captions, session and split."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import kind_of, text_rows

_BASES = {"scan_from_0": 0, "scan_from_1": 1}
_CAPTION = re.compile(r"captions?|caption_\d+")
_SPLITS = ("train", "test", "unused")
_NOTHING = ("nan", "<na>", "n/a", "null")
"""How other programs write an empty cell."""


@dataclass(frozen=True)
class CustomTable:
    """What was shown in every scan.

    Attributes
    ----------
    path : pathlib.Path
    rows : int
        Scans that the table lists, unused ones included: as many as the matrix has.
    scans : ndarray of shape (trials,), int64
        0-based row of the matrix of each trial that is used, ascending.
    stimulus_ids : ndarray of shape (trials,), int64
        0-based id of the picture of each trial: its place in `pictures`.
    session : ndarray of shape (trials,), int64
        1-based place of the trial's session in `sessions`.
    sessions : tuple of str
        Names of the sessions, in order of appearance; one empty name if the table has no sessions.
    pictures : tuple of str
        File names in the folder of pictures, sorted, each once.
    captions : tuple of tuple of str
        Of each picture; all of them empty if there are none.
    is_test : ndarray of shape (pictures,), bool
    split : str
        Where the split comes from, in words.
    ignored : tuple of str
        Columns that were not read.
    """

    path: Path
    rows: int
    scans: NDArray[np.int64]
    stimulus_ids: NDArray[np.int64]
    session: NDArray[np.int64]
    sessions: tuple[str, ...]
    pictures: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    is_test: NDArray[np.bool_]
    split: str
    ignored: tuple[str, ...]

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
        number = _scan(path, line, row[scan], base)
        if number in listed:
            raise InputError(
                f"{path}: lines {listed[number]} and {line} both name scan {row[scan]}. Give every scan one line."
            )
        listed[number] = line
        row["split"] = row.get("split", "").lower()
        if "split" in columns and row["split"] not in _SPLITS:
            raise InputError(f"{path}: line {line} has the split {row['split']!r}. Write train, test or unused.")
        if row["split"] != "unused":
            trials.append((number, line, _picture(path, line, row["picture"]), row))
    _check_scans(path, listed, base)
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
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, but the first line has {len(header)}. Correct it (text "
                "that holds the separator goes in double quotes)."
            )
    if "picture" not in header:
        raise InputError(f"{path}: has the columns {', '.join(filter(None, header))}, but none named picture. Add it.")
    rows = [
        (
            line,
            {name: "" if cell.lower() in _NOTHING else cell for name, cell in zip(header, cells, strict=True) if name},
        )
        for line, cells in lines[1:]
    ]
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


def _scan(path: Path, line: int, text: str, base: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < base:
        raise InputError(f"{path}: line {line} names scan {text!r}, no whole number of at least {base}. Correct it.")
    return int(text) - base


def _check_scans(path: Path, listed: Mapping[int, int], base: int) -> None:
    absent = next((row for row in range(len(listed)) if row not in listed), None)
    if absent is not None:
        raise InputError(
            f"{path}: lists {len(listed)} scans, and none of them is {absent + base}. List every row of the matrix "
            f"from {base} on, with split unused if it is to be left out."
        )


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

"""The table of trials: which picture was seen in which scan, with its captions, session and split."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import kind_of, text_rows

_BASES = {"scan_from_0": 0, "scan_from_1": 1}
_CAPTION = re.compile(r"captions?|caption_\d+")
_SPLITS = ("train", "test", "unused")


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
    ``split`` (``train``, ``test``, or ``unused`` for scans to leave out). Others are not read.

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
    split_known = "split" in columns
    trials = []
    listed: dict[int, int] = {}
    for line, cells in lines:

        def cell(name: str, cells: list[str] = cells) -> str:
            return cells[columns[name]] if name in columns else ""

        row = _scan(path, line, cell(scan), base)
        if row in listed:
            raise InputError(
                f"{path}: lines {listed[row]} and {line} both name scan {cell(scan)}, expected every scan once: "
                "correct the column of scans"
            )
        listed[row] = line
        split = cell("split").lower()
        if split_known and split not in _SPLITS:
            raise InputError(
                f"{path}: line {line} has the split {cell('split')!r}, expected train, test or unused: correct it"
            )
        if split != "unused":
            trials.append((row, line, _picture(path, line, cell("picture")), cell("session"), split, cells))
    _check_scans(path, listed, base)
    trials.sort()
    pictures = tuple(sorted({trial[2] for trial in trials}))
    place = {name: index for index, name in enumerate(pictures)}
    ids = np.array([place[trial[2]] for trial in trials], dtype=np.int64)
    captions = _captions(path, columns, pictures, [(place[trial[2]], trial[5]) for trial in trials])
    if split_known:
        is_test = _split(path, pictures, [(place[trial[2]], trial[1], trial[4]) for trial in trials])
        origin = "the table's column split"
    else:
        is_test = _draw(len(pictures), test_share, seed)
        origin = f"drawn by picture with seed {seed}: {is_test.sum()} of {len(pictures)} pictures held out"
    _check_counts(path, is_test)
    names = [trial[3] for trial in trials]
    if "session" in columns and not all(names):
        raise InputError(
            f"{path}: line {trials[names.index('')][1]} names no session, expected one in every line: fill it in"
        )
    sessions = tuple(dict.fromkeys(names))
    used = {scan, "picture", "session", "split", *filter(_CAPTION.fullmatch, columns)}
    return CustomTable(
        path=path,
        rows=len(listed),
        scans=np.array([trial[0] for trial in trials], dtype=np.int64),
        stimulus_ids=ids,
        session=np.array([sessions.index(name) + 1 for name in names], dtype=np.int64),
        sessions=sessions,
        pictures=pictures,
        captions=captions,
        is_test=is_test,
        split=origin,
        ignored=tuple(name for name in columns if name not in used),
    )


def _lines(path: Path) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    kind = kind_of(path, ("csv", "tsv"), "the table of trials")
    lines = list(text_rows(path, kind, "the table of trials"))
    if len(lines) < 2:
        raise InputError(f"{path}: found {len(lines)} lines, expected names of columns and one line per scan: fill it")
    header = [name.lower() for name in lines[0][1]]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: found the column {twice[0]} twice, expected every column once: rename one")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, expected {len(header)} as in the first line: correct it "
                "(put text that holds the separator in double quotes)"
            )
    columns = {name: index for index, name in enumerate(header) if name}
    if "picture" not in columns:
        raise InputError(f"{path}: found the columns {', '.join(columns)}, expected one named picture: add it")
    return lines[1:], columns


def _scan_column(path: Path, columns: Mapping[str, int], scan_base: int | None) -> tuple[str, int]:
    found = [name for name in ("scan", *_BASES) if name in columns]
    if len(found) != 1:
        raise InputError(
            f"{path}: found {' and '.join(found) or 'no column of scans'}, expected one column scan_from_0 or "
            "scan_from_1 (rows of the matrix, counted from there): name it so"
        )
    stated = _BASES.get(found[0])
    if stated is None and scan_base is None:
        raise InputError(
            f"{path}: the column scan does not say whether its first scan is 0 or 1, expected to know: name it "
            "scan_from_0 or scan_from_1, or give --scan-base"
        )
    if stated is not None and scan_base not in (None, stated):
        raise InputError(
            f"{path}: the column {found[0]} and --scan-base {scan_base} contradict each other: leave out --scan-base"
        )
    return found[0], int(stated if stated is not None else scan_base)  # type: ignore[arg-type]


def _scan(path: Path, line: int, text: str, base: int) -> int:
    if not re.fullmatch(r"\d{1,12}", text) or int(text) < base:
        raise InputError(
            f"{path}: line {line} names scan {text!r}, expected a whole number of at least {base}: correct it"
        )
    return int(text) - base


def _check_scans(path: Path, listed: Mapping[int, int], base: int) -> None:
    absent = next((row for row in range(len(listed)) if row not in listed), None)
    if absent is not None:
        raise InputError(
            f"{path}: found {len(listed)} scans and none of them is {absent + base}, expected every row of the matrix "
            f"from {base} on: list it, with split unused if it is to be left out"
        )


def _picture(path: Path, line: int, text: str) -> str:
    name = PurePosixPath(text.replace("\\", "/"))
    if not text or not name.parts:
        raise InputError(f"{path}: line {line} names no picture, expected a file in the folder of pictures: fill it in")
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or "\0" in text:
        raise InputError(
            f"{path}: line {line} names the picture {text!r}, which leads out of the folder of pictures, expected a "
            "file name inside it: correct it"
        )
    return name.as_posix()


def _captions(
    path: Path, columns: Mapping[str, int], pictures: Sequence[str], trials: Sequence[tuple[int, list[str]]]
) -> tuple[tuple[str, ...], ...]:
    order: Callable[[str], tuple[int, str]] = lambda name: (len(name), name)  # noqa: E731
    where = [columns[name] for name in sorted(filter(_CAPTION.fullmatch, columns), key=order)]
    found: list[dict[str, None]] = [{} for _ in pictures]
    for place, cells in trials:
        for column in where:
            for text in cells[column].split("|"):
                caption = " ".join(text.split())
                if caption:
                    found[place][caption] = None
    without = [name for name, captions in zip(pictures, found, strict=True) if not captions]
    if without and len(without) < len(pictures):
        raise InputError(
            f"{path}: picture {without[0]} has no caption ({len(without)} of {len(pictures)} pictures lack one), "
            "expected captions for all pictures or for none: add them"
        )
    return tuple(tuple(captions) for captions in found)


def _split(path: Path, pictures: Sequence[str], trials: Sequence[tuple[int, int, str]]) -> NDArray[np.bool_]:
    first: dict[int, tuple[int, str]] = {}
    for place, line, split in trials:
        before = first.setdefault(place, (line, split))
        if before[1] != split:
            raise InputError(
                f"{path}: picture {pictures[place]} is {before[1]} in line {before[0]} and {split} in line {line}, "
                "expected every picture on one side, or what is tested was trained on: correct the split"
            )
    return np.array([first[place][1] == "test" for place in range(len(pictures))], dtype=np.bool_)


def _draw(pictures: int, share: float, seed: int) -> NDArray[np.bool_]:
    is_test = np.zeros(pictures, dtype=np.bool_)
    held_out = max(2, round(share * pictures))
    is_test[np.random.default_rng(seed).permutation(pictures)[:held_out]] = True
    return is_test


def _check_counts(path: Path, is_test: NDArray[np.bool_]) -> None:
    test = int(is_test.sum())
    train = len(is_test) - test
    if train < 2 or test < 1:
        raise InputError(
            f"{path}: found {train} training pictures and {test} test pictures, expected at least two and one: "
            "add scans, or change the split"
        )

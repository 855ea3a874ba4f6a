"""What was shown in every scan of a laboratory's own: the table of trials, read from a file and checked."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import kind_of, text_rows
from unibrain.scans.published_split import PictureSplit

_BASES = {"scan_from_0": 0, "scan_from_1": 1}
_CAPTION = re.compile(r"captions?|caption_\d+")
_SPLITS = ("train", "test", "unused")
_NOTHING = ("nan", "<na>", "n/a", "null")
"""How other programs write an empty cell."""
_WRITTEN_BY_A_MACHINE = "ai"
"""In the column ``source`` of captions."""


@dataclass(frozen=True)
class CustomTable:
    """What was shown in every scan."""

    path: Path  # the file, or the folder of several
    listed: tuple[tuple[Path, int], ...]  # each table, and how many scans it lists, unused ones included
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
    def rows(self) -> int:
        """How many scans are listed: as many as there are."""
        return sum(number for _, number in self.listed)

    @property
    def has_captions(self) -> bool:
        """Whether there are captions (then every picture has some)."""
        return any(self.captions)


@dataclass(frozen=True)
class Trial:
    """One line of a table: the scan it is about (row of the matrix from 0), where it stands, its cells by column."""

    scan: int
    path: Path
    line: int
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}: line {self.line}"

    @property
    def side(self) -> str:
        """Its cell in the column of the split."""
        return self.cells.get("split", "").lower()


def read_table(
    path: Path,
    scan_base: int | None = None,
    test_share: float = 0.1,
    seed: int = 0,
    *,
    split: PictureSplit | None = None,
    captions: Path | None = None,
) -> CustomTable:
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
        Without any split: share of the pictures that is held out, above 0 and below 1; at least two.
    seed : int
        Of that draw.
    split : PictureSplit, optional
        Which pictures are training and which are test; scans of others are not used.
    captions : pathlib.Path, optional
        A table of captions, one a line, see `read_captions`.

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
    lines, columns = read_lines(path, "the table of trials")
    if "picture" not in columns:
        raise InputError(f"{path}: has the columns {', '.join(columns)}, but none named picture. Add it.")
    scan, base = _scan_column(path, columns, scan_base)
    numbers = number_scans(path, [(line, row[scan]) for line, row in lines], base)
    trials = [Trial(number, path, line, row) for number, (line, row) in zip(numbers, lines, strict=True)]
    columns.remove(scan)
    return build_table(path, ((path, len(trials)),), trials, columns, test_share, seed, split, captions)


def build_table(
    path: Path,
    listed: tuple[tuple[Path, int], ...],
    trials: Sequence[Trial],
    columns: Sequence[str],
    test_share: float = 0.1,
    seed: int = 0,
    split: PictureSplit | None = None,
    captions: Path | None = None,
) -> CustomTable:
    """Make the table of trials that were read from the files `listed`; `columns` are those that any of them has.

    What is read of a trial are its columns ``picture``, ``session``, ``split`` and those of captions. The rest is as in
    `read_table`.
    """
    wrong = next((trial for trial in trials if "split" in columns and trial.side not in _SPLITS), None)
    if wrong is not None:
        raise InputError(f"{wrong.where} has the split {wrong.side!r}. Write train, test or unused.")
    used = sorted((trial for trial in trials if trial.side != "unused"), key=lambda trial: trial.scan)
    shown = [(_picture(trial), trial) for trial in used]
    if split is not None:
        if "split" in columns:
            raise InputError(f"{path}: has a column split, and --split names another. Leave one of them out.")
        shown, origin = _published(path, shown, split)
    pictures = tuple(sorted({name for name, _ in shown}))
    place = {name: index for index, name in enumerate(pictures)}
    if split is not None:
        is_test = np.array([split.is_test[name] for name in pictures], dtype=np.bool_)
    elif "split" in columns:
        is_test = _split(pictures, shown)
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
    names = [trial.cells.get("session", "") for _, trial in shown]
    if "session" in columns and not all(names):
        raise InputError(f"{shown[names.index('')][1].where} names no session. Fill it in.")
    sessions = tuple(dict.fromkeys(names))
    read = {"picture", "session", "split", *filter(_CAPTION.fullmatch, columns)}
    return CustomTable(
        path=path,
        listed=listed,
        scans=np.array([trial.scan for _, trial in shown], dtype=np.int64),
        stimulus_ids=np.array([place[name] for name, _ in shown], dtype=np.int64),
        session=np.array([sessions.index(name) + 1 for name in names], dtype=np.int64),
        sessions=sessions,
        pictures=pictures,
        captions=_captions(path, columns, pictures, shown, captions),
        is_test=is_test,
        split=origin,
        ignored=tuple(name for name in columns if name not in read),
    )


def read_lines(path: Path, what: str) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Line number and cells by column of every line of a csv or tsv, and the columns with a name, in lower case.

    An empty cell is ``""``, however other programs write it.
    """
    kind = kind_of(path, ("csv", "tsv"), what)
    lines = list(text_rows(path, kind, what))
    if len(lines) < 2:
        raise InputError(f"{path}: has {len(lines)} lines. Give it names of columns and one line per entry.")
    header = [name.lower() for name in lines[0][1]]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: has the column {twice[0]} twice. Rename one.")
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


def number_scans(path: Path, texts: Sequence[tuple[int, str]], base: int) -> list[int]:
    """Numbers of scans, as lines name them, counted from 0; together they must name every scan once."""
    listed: dict[int, int] = {}
    for line, text in texts:
        if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < base:
            raise InputError(
                f"{path}: line {line} names scan {text!r}, no whole number of at least {base}. Correct it."
            )
        before = listed.setdefault(int(text) - base, line)
        if before != line:
            raise InputError(f"{path}: lines {before} and {line} both name scan {text}. Give every scan one line.")
    absent = next((row for row in range(len(listed)) if row not in listed), None)
    if absent is not None:
        raise InputError(
            f"{path}: lists {len(listed)} scans, and none of them is {absent + base}. List every row of the matrix "
            f"from {base} on, with split unused if it is to be left out."
        )
    return list(listed)


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


def _picture(trial: Trial) -> str:
    text = trial.cells["picture"]
    # In one normal form, or the same file would be two pictures.
    name = PurePosixPath(unicodedata.normalize("NFC", text.replace("\\", "/")))
    if not text or not name.parts:
        raise InputError(f"{trial.where} names no picture. Fill it in.")
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or "\0" in text:
        raise InputError(
            f"{trial.where} names the picture {text!r}, which leads out of the folder of pictures. Name a file in it."
        )
    return name.as_posix()


def _published(
    path: Path, shown: Sequence[tuple[str, Trial]], split: PictureSplit
) -> tuple[list[tuple[str, Trial]], str]:
    """The trials of pictures that a published split names, and what to say of it."""
    kept = [(name, trial) for name, trial in shown if name in split.is_test]
    if not kept:
        raise InputError(
            f"{path}: none of its {len(shown)} scans is of a picture in the split {split.origin}. Choose a split of "
            "this subject."
        )
    seen = {name for name, _ in kept}
    sides = [sum(side == test for side in split.is_test.values()) for test in (False, True)]
    here = [sum(split.is_test[name] == test for name in seen) for test in (False, True)]
    origin = (
        f"{split.origin}: {here[0]:,} of {sides[0]:,} training and {here[1]:,} of {sides[1]:,} test pictures have "
        f"scans; {len(shown) - len(kept):,} scans of other pictures are left out"
    )
    return kept, origin


def _captions(
    path: Path,
    columns: Sequence[str],
    pictures: Sequence[str],
    shown: Sequence[tuple[str, Trial]],
    file: Path | None,
) -> tuple[tuple[str, ...], ...]:
    where = sorted(filter(_CAPTION.fullmatch, columns), key=lambda name: (len(name), name))
    found: dict[str, dict[str, None]] = {name: {} for name in pictures}
    for name, trial in shown:
        for column in where:
            found[name] |= dict.fromkeys(_tidy(trial.cells.get(column, "")))
    for name, texts in ({} if file is None else read_captions(file)).items():
        if name in found:
            found[name] |= dict.fromkeys(texts)
    without = [name for name, captions in found.items() if not captions]
    if without and len(without) < len(pictures):
        raise InputError(
            f"{file or path}: picture {without[0]} has no caption ({len(without)} of {len(pictures)} pictures lack "
            "one). Give all pictures captions, or none."
        )
    return tuple(tuple(captions) for captions in found.values())


def _tidy(cell: str) -> list[str]:
    """The captions in a cell, which a bar separates."""
    captions = (" ".join(text.split()) for text in cell.split("|"))
    return [caption for caption in captions if caption and caption.lower() not in _NOTHING]


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read a table of captions, one a line: picture to captions.

    Columns: ``picture`` or ``image_name``, and ``caption``; where there is ``caption_idx``, captions are in its order.
    Lines whose ``source`` is ``ai`` are left out: a machine wrote them.
    """
    lines, columns = read_lines(path, "the table of captions")
    picture = next((name for name in ("picture", "image_name") if name in columns), None)
    if picture is None or "caption" not in columns:
        raise InputError(
            f"{path}: has the columns {', '.join(columns)}. Give it picture (or image_name) and caption, one caption a "
            "line."
        )
    found: dict[str, list[tuple[float, list[str]]]] = {}
    for line, row in lines:
        if row.get("source", "").lower() == _WRITTEN_BY_A_MACHINE:
            continue
        index = row.get("caption_idx", "") or "0"
        if not re.fullmatch(r"[0-9]{1,9}", index):
            raise InputError(f"{path}: line {line} has the caption_idx {index!r}, no whole number. Correct it.")
        name = unicodedata.normalize("NFC", row[picture].replace("\\", "/"))
        found.setdefault(name, []).append((int(index), _tidy(row["caption"].replace("|", " "))))
    return {
        name: [text for _, texts in sorted(entries, key=lambda entry: entry[0]) for text in texts]
        for name, entries in found.items()
    }


def _split(pictures: Sequence[str], shown: Sequence[tuple[str, Trial]]) -> NDArray[np.bool_]:
    first: dict[str, Trial] = {}
    for name, trial in shown:
        before = first.setdefault(name, trial)
        if before.side != trial.side:
            elsewhere = f" of {before.path.name}" if before.path != trial.path else ""
            raise InputError(
                f"{trial.path}: picture {name} is {before.side} in line {before.line}{elsewhere} and {trial.side} in "
                f"line {trial.line}. Keep every picture on one side, or what is tested was trained on."
            )
    return np.array([first[name].side == "test" for name in pictures], dtype=np.bool_)

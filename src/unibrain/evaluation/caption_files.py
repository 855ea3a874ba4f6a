"""Files of captions of any group: BrainHub's and COCO's json, tables, and plain text."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unibrain.errors import InputError

CaptionTable = dict[str | int, list[str]]

_HEADS = frozenset(["id", "image_id", "stimulus_id", "image"])
_FORMATS = "Give .json, .csv, .tsv, or .txt with one caption per line"


def read_captions(path: str | os.PathLike[str]) -> CaptionTable:
    """Read captions by image, decoded ones or references.

    Parameters
    ----------
    path : path-like
        ``.json``: a mapping of id to a caption or a list of captions (BrainHub's files), a list of objects with
        ``image_id`` and ``caption`` (COCO's results), or an object whose ``annotations`` are such a list (COCO's
        references). ``.csv`` or ``.tsv``: two columns, id and caption, with or without a heading; more rows of one id
        are more captions of that image. ``.txt``: one caption per line, of the images 0, 1, 2 and on. All in UTF-8.

    Returns
    -------
    dict of str or int to list of str
        Captions of each image in the order of the file, without blanks around them. Ids that are whole numbers are
        int, so that files of different kinds can be paired.

    Raises
    ------
    InputError
        If the file is none of these, is not in UTF-8, holds an empty caption or no caption at all, or, as a mapping,
        one id twice.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: it cannot be read ({error.strerror}). Name a file of captions.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: it is not in UTF-8 (byte {error.start}). Save it in UTF-8.") from error
    readers = {".json": _from_json, ".csv": _from_table, ".tsv": _from_table, ".txt": _from_lines}
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}: files of captions are not {file.suffix or 'without an ending'}. {_FORMATS}.")
    table: CaptionTable = {}
    for identity, caption in readers[file.suffix.lower()](file, text):
        if not isinstance(caption, str):
            raise InputError(f"{file}: the caption of image {identity} is {_short(caption)}. Give text.")
        if not caption.strip():
            raise InputError(f"{file}: image {identity} has an empty caption. Write one, or leave the image out.")
        table.setdefault(identity, []).append(caption.strip())
    if not table:
        raise InputError(f"{file}: it has no captions. {_FORMATS}.")
    return table


def _short(value: object) -> str:
    return f"{type(value).__name__} ({str(value)[:30]})"


def _identity(value: Any) -> str | int:
    text = str(value).strip()
    # "007" is a name: as a number it would become another one.
    return int(text) if text.isascii() and text.isdigit() and str(int(text[:19])) == text else text


def _from_json(file: Path, text: str) -> Iterator[tuple[str | int, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{file}: {key!r} stands there twice. Keep one of them.")
            found[key] = value
        return found

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: it is not valid json ({error}). Write it again.") from error
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if isinstance(content, dict):
        for key, value in content.items():
            captions = value if isinstance(value, list) else [value]
            if not captions:
                raise InputError(f"{file}: image {key} has no caption. Write one, or leave the image out.")
            yield from ((_identity(key), caption) for caption in captions)
    elif isinstance(content, list):
        for number, entry in enumerate(content):
            if not isinstance(entry, dict) or not {"image_id", "caption"} <= entry.keys():
                raise InputError(
                    f"{file}: entry {number} is {_short(entry)}. Give objects with image_id and caption, or a mapping "
                    "of id to caption."
                )
            yield _identity(entry["image_id"]), entry["caption"]
    else:
        raise InputError(f"{file}: it holds {_short(content)}. Give a mapping of id to caption.")


def _from_table(file: Path, text: str) -> Iterator[tuple[str | int, Any]]:
    between = "\t" if file.suffix.lower() == ".tsv" else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    try:
        for number, row in enumerate(filter(None, rows), 1):
            if len(row) != 2:
                raise InputError(
                    f"{file}: row {number} has {len(row)} columns. Give id and caption; a caption with commas stands "
                    "in double quotes."
                )
            if number > 1 or row[0].strip().lower() not in _HEADS:
                yield _identity(row[0]), row[1]
    except csv.Error as error:
        raise InputError(f"{file}: it is not a sound table ({error}). Save it again.") from error


def _from_lines(file: Path, text: str) -> Iterator[tuple[str | int, Any]]:
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    return iter(enumerate(lines))

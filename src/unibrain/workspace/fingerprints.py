"""Fingerprints of files and folders: what tells a stage that its inputs and outputs are still what they were."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain.workspace.files import is_partial

Fingerprint = dict[str, Any]
"""JSON-ready: ``{"files": {relative path: {"size", "mtime_ns", "sha256"}}}``; a file is a folder of one, ``""``."""

LARGE = 64 * 2**20
"""Bytes from which an unchanged size and time is taken for unchanged content, if it was hashed once before."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [("", path)]
    found = []
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not is_partial(name))
        found += [Path(folder, name) for name in names if not is_partial(name)]
    return sorted((file.relative_to(path).as_posix(), file) for file in found)


def fingerprint(path: Path, known: Fingerprint | None = None) -> Fingerprint | None:
    """Fingerprint a file, or all files below a folder, by content.

    Hashing runs at about 1 GB/s, so everything is hashed, every time; only a file of at least `LARGE` bytes whose size
    and time of change equal those in `known` keeps the hash that `known` has for it (latents of a full-size subject
    are several gigabytes, and each stage looks at them).

    Parameters
    ----------
    path : pathlib.Path
        A file or a folder.
    known : dict, optional
        An earlier fingerprint of the same path.

    Returns
    -------
    dict or None
        None if there is nothing at `path`.
    """
    if not path.exists():
        return None
    before: Mapping[str, Any] = (known or {}).get("files", {})
    files = {}
    for name, file in _files(path):
        status = file.stat()
        old = before.get(name, {})
        unchanged = status.st_size >= LARGE and old.get("size") == status.st_size
        unchanged = unchanged and old.get("mtime_ns") == status.st_mtime_ns and "sha256" in old
        files[name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": old["sha256"] if unchanged else _sha256(file),
        }
    return {"files": files}


def stat_fingerprint(path: Path) -> Fingerprint | None:
    """Fingerprint a file or folder by sizes and times of change only, without reading content.

    For archives outside the run folder: NSD's betas and pictures of one subject are more than 80 GB, which would take
    minutes to hash before each stage, and nobody edits them in place.

    Parameters
    ----------
    path : pathlib.Path
        A file or a folder.

    Returns
    -------
    dict or None
        None if there is nothing at `path`.
    """
    if not path.exists():
        return None
    files = {}
    for name, file in _files(path):
        status = file.stat()
        files[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return {"files": files}


def same(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether two fingerprints stand for the same content.

    Times of change are ignored where there are hashes, so that a run folder may be copied.
    """
    if one is None or other is None:
        return one is other

    def content(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        return (entry.get("size"), entry.get("sha256") or entry.get("mtime_ns"))

    first, second = one.get("files", {}), other.get("files", {})
    return first.keys() == second.keys() and all(content(first[name]) == content(second[name]) for name in first)

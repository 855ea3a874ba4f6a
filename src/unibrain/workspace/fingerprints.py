"""What files, values and code are made of: the only hashing in the package."""

import ast
import gc
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from unibrain.workspace.files import is_partial

LARGE = 64 * 2**20
"""Bytes from which a file outside a run folder is compared by size and time: NSD's archive has more than 80 GB."""


@dataclass(frozen=True)
class FileState:
    """One file as it was looked at; `sha256` is None where content was not read."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str | None = None

    def untouched(self, earlier: "FileState | None") -> bool:
        """Whether nothing that the file system notes of a file has changed since `earlier`."""
        return earlier is not None and replace(self, sha256=None) == replace(earlier, sha256=None)

    def content(self) -> tuple[int, str | int]:
        """What has to be equal for content to be equal: the hash, or the time where there is none."""
        return self.size, self.sha256 or self.mtime_ns


Fingerprint = dict[str, FileState]
"""Path below a folder to its file, in order; a file alone is a folder of one, ``""``."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """SHA-256 of values, 64 hexadecimal digits: text, bytes, NumPy arrays, and whatever JSON can hold."""
    whole = hashlib.sha256()
    for part in parts:
        if hasattr(part, "tobytes"):
            head, content = f"array {part.dtype.str} {part.shape}", part.ravel().view("u1").data
        elif isinstance(part, bytes):
            head, content = "bytes", part
        else:
            head, content = "value", json.dumps(part, sort_keys=True, separators=(",", ":")).encode()
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        whole.update(f"{head} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
        return
    entered = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()  # a symbolic link that leads back up
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not is_partial(name))
        for name in sorted(names):
            file = Path(folder, name)
            if not is_partial(name) and file.is_file():
                yield file.relative_to(path).as_posix(), file


def fingerprint(path: Path, known: Fingerprint | None = None, unread: int | None = None) -> Fingerprint | None:
    """Look at a file, or at all files below a folder; None if there is nothing.

    A file that the file system says was not touched since the fingerprint `known` keeps its hash from there. Without
    that, everything is read (at about 1 GB/s), so that bit rot is seen as well, but files of at least `unread` bytes.
    """
    if not path.exists():
        return None
    found: Fingerprint = {}
    for name, file in _files(path):
        status, old = file.stat(), (known or {}).get(name)
        state = FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if unread is None or state.size < unread:
            trusted = old.sha256 if old is not None and state.untouched(old) else None
            state = replace(state, sha256=trusted or sha256_of(file))
        found[name] = state
    return found


def same(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether two fingerprints stand for the same content, so that a run folder may be copied or moved."""
    if one is None or other is None:
        return one is other
    return {name: state.content() for name, state in one.items()} == {
        name: state.content() for name, state in other.items()
    }


def code_digest(*places: str) -> str:
    """SHA-256 of what packages or modules do, as paths below ``unibrain``: a comment or a docstring changes nothing.

    Data beside the code (templates, tables) count as they are; large ones, such as weights, have their own fingerprint.
    """
    home = Path(__file__).parents[1]
    return digest(*(_code_of(home / place) for place in sorted(places)))


@cache
def _code_of(place: Path) -> str:
    parts, collecting = [], gc.isenabled()
    gc.disable()  # half of the time would go into looking for rubbish in syntax trees
    try:
        for name, file in _files(place):
            if file.suffix == ".py":
                parts.append((name, digest(_syntax(ast.parse(file.read_bytes()), []))))
            elif "__pycache__" not in name and file.stat().st_size < 2**20:
                parts.append((name, sha256_of(file)))
    finally:
        if collecting:
            gc.enable()
    if not parts:
        raise FileNotFoundError(place)
    return digest(parts)


def _syntax(node: Any, found: list[str]) -> list[str]:
    """Flatten a syntax tree. Fields that are empty are left out: they come and go with Python's versions."""
    if isinstance(node, list):
        for entry in node:
            _syntax(entry, found)
    elif not isinstance(node, ast.AST):
        found.append(repr(node))
    elif not (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ):
        found.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if value is not None and value != [] and field != "kind":
                found.append(field)
                _syntax(value, found)
    return found

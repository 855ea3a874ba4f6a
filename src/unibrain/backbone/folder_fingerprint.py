"""What tells one backbone from another: a hash over everything in its folder that decides what it computes."""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from unibrain.errors import InputError
from unibrain.workspace.fingerprints import LARGE
from unibrain.workspace.progress import track

__all__ = ["PARTS", "VOCABULARIES", "VOCABULARY_FILES", "folder_fingerprint"]

PARTS = ("flows", "autokl", "optimus", "clip")
"""Names of the weight files, without their suffix."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "optimus": ("bert-vocab.txt", "gpt2-vocab.json", "gpt2-merges.txt"),
    "clip": ("clip-vocab.json", "clip-merges.txt"),
}
"""Vocabularies that a part needs."""

VOCABULARY_FILES = tuple(name for names in VOCABULARIES.values() for name in names)

_PIECE = 16 * 2**20


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over configuration, weights and vocabularies, by name and content.

    Weights of the official size take a while to read. Where the folder has a ``manifest.json``, the hash it has for a
    large file is taken, if the file has the size on record and was not changed after the manifest was written.

    Parameters
    ----------
    folder : Path
        Without ``optimus.safetensors``, Optimus' vocabularies are not looked at: such a backbone makes pictures.

    Returns
    -------
    str
        Hexadecimal.

    Raises
    ------
    InputError
        If one of the files is missing.
    """
    digest = hashlib.sha256()
    captions = (folder / "optimus.safetensors").is_file()
    names = ("config.json", *(f"{part}.safetensors" for part in PARTS), *VOCABULARY_FILES)
    for name in names:
        if not captions and (name in VOCABULARIES["optimus"] or name == "optimus.safetensors"):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected a complete backbone folder: get it again")
        digest.update(name.encode() + bytes.fromhex(_recorded(path) or _hashed(path)))
    return digest.hexdigest()


def _recorded(path: Path) -> str | None:
    """Hash of a large, unchanged file as the manifest beside it has it; None if it has none that can be trusted."""
    manifest, status = path.parent / "manifest.json", path.stat()
    try:
        entry = json.loads(manifest.read_text(encoding="utf-8"))["files"][path.name]
        unchanged = entry["size"] == status.st_size and status.st_mtime_ns <= manifest.stat().st_mtime_ns
        sha256 = str(entry["sha256"])
        bytes.fromhex(sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sha256 if unchanged and status.st_size >= LARGE and len(sha256) == 64 else None


def _hashed(path: Path) -> str:
    status = path.stat()
    if status.st_size < LARGE:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _hashed_once(path: Path, size: int, modified: int) -> str:
    """Hash a large file; the second time in this process, unchanged, it is known."""
    digest = hashlib.sha256()
    for piece in track(_pieces(path), f"check {path.name}", total=-(-size // _PIECE), unit="piece"):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece

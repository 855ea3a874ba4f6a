"""A backbone's folder: where it lies, which files it has, and what tells it from another. Brings in no PyTorch."""

import os
from pathlib import Path

from unibrain.errors import InputError
from unibrain.workspace.files import read_json
from unibrain.workspace.fingerprints import LARGE, digest, sha256_of
from unibrain.workspace.progress import say

PARTS = ("flows", "autokl", "optimus", "clip")
"""Names of the weight files, without their suffix."""

OPTIMUS_FILES = ("optimus.safetensors", "bert-vocab.txt", "gpt2-vocab.json", "gpt2-merges.txt")
"""What a backbone without captions lacks."""

VOCABULARY_FILES = (*OPTIMUS_FILES[1:], "clip-vocab.json", "clip-merges.txt")


def backbones_home() -> Path:
    """Where converted backbones are kept: ``backbones`` in ``UNIBRAIN_HOME``, by default in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UNIBRAIN_HOME") or Path(cache) / "unibrain") / "backbones"


def backbone_folder(name: str | Path) -> Path:
    """Where a backbone lies.

    ``"small"`` is in the package, ``"official"`` in `backbones_home`, and so is any other bare name that is found
    there; everything else is a folder's path.
    """
    if str(name) == "small":
        return Path(__file__).parent / "data" / "small"
    kept = backbones_home() / name
    bare = isinstance(name, str) and Path(name).name == name
    return kept if bare and (name == "official" or kept.is_dir()) else Path(name)


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over configuration, weights and vocabularies, by name and content.

    Weights of the official size take a while to read. Where the folder has a ``manifest.json``, the hash it has for a
    large file is taken, if the file has the size on record and was not changed after the manifest was written.
    """
    names = ["config.json", *(f"{part}.safetensors" for part in PARTS), *VOCABULARY_FILES]
    if not (folder / "optimus.safetensors").is_file():
        names = [name for name in names if name not in OPTIMUS_FILES]
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: there is no such file. Get the backbone again.")
    return digest([(name, _recorded(folder / name) or _hashed(folder / name)) for name in names])


def _recorded(path: Path) -> str | None:
    """Hash of a large, unchanged file as the manifest beside it has it; None if it has none that can be trusted."""
    manifest, status = path.parent / "manifest.json", path.stat()
    if status.st_size < LARGE or not manifest.is_file():
        return None
    try:
        entry = read_json(manifest)["files"][path.name]
        unchanged = entry["size"] == status.st_size and status.st_mtime_ns <= manifest.stat().st_mtime_ns
        sha256 = str(entry["sha256"])
        bytes.fromhex(sha256)
    except (InputError, ValueError, KeyError, TypeError):
        return None
    return sha256 if unchanged and len(sha256) == 64 else None


def _hashed(path: Path) -> str:
    size = path.stat().st_size
    if size >= LARGE:
        say(f"reading {path} ({size / 2**30:.1f} GiB) to know its content")
    return sha256_of(path)

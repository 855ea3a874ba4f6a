"""Finding the published files on disk, by name and, where a name says too little, by what is in them."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.into_home import Convert, convert_files, fetch_record
from unibrain.weights.manifest import ROLES, DtypeChoice, Role
from unibrain.weights.sources import (
    FLOWS_NAMES,
    PUBLISHED_SHA256,
    ROLE_NAMES,
    VOCABULARIES_OF_CAPTIONS,
    Precision,
)
from unibrain.workspace.run_folder import folder_lock

__all__ = ["Found", "find_files", "import_backbone"]

_BY_NAME: dict[str, Role] = {
    **{name: "flows" for names in FLOWS_NAMES.values() for name in names},
    "kl-f8.pth": "autokl",
    "optimus-vae.pth": "optimus",
    "vocab.txt": "bert-vocab",
    "bert-vocab.txt": "bert-vocab",
    "bert-base-cased-vocab.txt": "bert-vocab",
    "gpt2-vocab.json": "gpt2-vocab",
    "gpt2-merges.txt": "gpt2-merges",
    "clip-vocab.json": "clip-vocab",
    "clip-merges.txt": "clip-merges",
}
_CLIP_NAMES = ("model.safetensors", "pytorch_model.bin")
_MOST_FILES = 100_000
_HEADER_LIMIT = 100 * 2**20
_OLD_HEADER = 16 * 2**20  # where the format before PyTorch 1.6 has its keys
_REPEATED: dict[Role, tuple[bytes, ...]] = {
    "autokl": (b"vae.image.", b"autokl."),
    "optimus": (b"vae.text.", b"optimus."),
    "clip": (b"ctx.image.", b"ctx.text.", b"clip.model."),
}
"""Beginnings of keys by which the flows' file repeats another part."""


@dataclass(frozen=True)
class Found:
    """What is there for a conversion.

    Attributes
    ----------
    files : dict of str to Path
        By role. ``diffusers`` is a folder.
    notes : tuple of str
        What was left aside, one sentence each.
    """

    files: dict[Role, Path]
    notes: tuple[str, ...] = ()


def _is_diffusers(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() and (folder / "image_unet").is_dir()


def _keys(path: Path) -> bytes:
    """Read the part of a file of weights that has its keys in plain text; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                return file.read(length) if length < _HEADER_LIMIT else b""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
                return b"".join(archive.read(entry) for entry in pickles if entry.file_size < _HEADER_LIMIT)
        with path.open("rb") as file:
            return file.read(_OLD_HEADER)
    except (OSError, zipfile.BadZipFile):
        return b""


def _is_whole_clip(path: Path) -> bool:
    keys = _keys(path)
    return b"vision_model." in keys and b"text_model." in keys


def _json_vocabulary(path: Path) -> Role | None:
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(vocabulary, dict):
        return None
    if "<|startoftext|>" in vocabulary:
        return "clip-vocab"
    return "gpt2-vocab" if "<|endoftext|>" in vocabulary else None


def _merges(path: Path) -> Role | None:
    try:
        return "clip-merges" if "</w>" in path.read_text(encoding="utf-8") else "gpt2-merges"
    except (OSError, ValueError):
        return None


def _role(path: Path) -> Role | None:
    if path.name in _BY_NAME:
        return _BY_NAME[path.name]
    if path.name in _CLIP_NAMES:
        return "clip" if _is_whole_clip(path) else None
    if path.name == "vocab.json":
        return _json_vocabulary(path)
    return _merges(path) if path.name == "merges.txt" else None


def _candidates(paths: Sequence[Path]) -> dict[Role, list[Path]]:
    found: dict[Role, list[Path]] = {}
    seen = 0

    def note(role: Role | None, path: Path) -> None:
        if role is not None:
            found.setdefault(role, []).append(path)

    for root in paths:
        if root.is_file():
            role = _role(root)
            if role is None:
                raise InputError(
                    f"{root}: not one of the published names, so its role is not known: give it with its own option, "
                    "for example --flows FILE"
                )
            note(role, root)
            continue
        if not root.is_dir():
            raise InputError(f"{root}: no such file or folder, expected the published weights: check the path")
        for folder, subfolders, names in os.walk(root):
            # What the hub's cache keeps beside its snapshots has hashes for names.
            subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "blobs")
            if _is_diffusers(Path(folder)):
                note("diffusers", Path(folder))
            for name in sorted(names):
                note(_role(Path(folder, name)), Path(folder, name))
            seen += len(names)
            if seen > _MOST_FILES:
                raise InputError(
                    f"{root}: holds more than {_MOST_FILES:,} files, expected the folder with the published weights: "
                    "give a folder closer to them"
                )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one(role: Role, paths: list[Path], precision: Precision) -> Path:
    different = list({path.resolve(): path for path in paths}.values())
    if role == "flows":
        other: Precision = "fp32" if precision == "fp16" else "fp16"
        order = [*FLOWS_NAMES[precision], *FLOWS_NAMES[other]]
        best = min(order.index(path.name) for path in different)
        different = [path for path in different if path.name == order[best]]
    if role == "clip":
        different = [path for path in different if path.suffix == ".safetensors"] or different
    if len(different) > 1 and role in PUBLISHED_SHA256:
        different = [path for path in different if _sha256(path) == PUBLISHED_SHA256[role]][:1] or different
    if len(different) > 1 and role not in ("flows", "clip", "diffusers"):
        different = list({_sha256(path): path for path in different}.values())
    if len(different) > 1:
        raise InputError(
            f"{different[0]} and {different[1]}: both may be {ROLE_NAMES[role]}, expected one: say which with "
            f"--{role} PATH"
        )
    return different[0]


def _needed(files: Mapping[Role, Path], pictures_only: bool) -> list[Role]:
    whole = "diffusers" in files
    keys = _keys(files["flows"]) if "flows" in files else b""
    repeated = {role for role, marks in _REPEATED.items() if any(mark in keys for mark in marks)}
    needed: list[Role] = [] if whole else ["flows", "autokl", "clip", "clip-vocab", "clip-merges"]
    if not pictures_only:
        needed.append("optimus")
    if not pictures_only or {"optimus"} & {*files, *repeated}:
        needed += VOCABULARIES_OF_CAPTIONS
    return [role for role in needed if role not in repeated]


def find_files(
    paths: Sequence[Path],
    given: Mapping[Role, Path],
    *,
    precision: Precision = "fp16",
    pictures_only: bool = False,
) -> Found:
    """Find everything that a conversion needs.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched with all their subfolders: downloads, the hub's cache or a snapshot of it, a
        folder in diffusers' format.
    given : mapping of str to Path
        Files whose role is known; they are not looked for.
    precision : {"fp16", "fp32"}
        Which file of the flows to take where both are there.
    pictures_only : bool
        Do without Optimus, which only captions need.

    Returns
    -------
    Found

    Raises
    ------
    InputError
        If something is missing (all of it is named), or there are several different files for one role.
    """
    for role, path in given.items():
        if not path.exists():
            raise InputError(f"{path}: no such file, expected {ROLE_NAMES[role]}: check --{role}")
        if path.is_dir() != (role == "diffusers"):
            expected = "a folder" if role == "diffusers" else "a file"
            raise InputError(f"{path}: not {expected}, expected {ROLE_NAMES[role]}: check --{role}")
    notes: list[str] = []
    candidates = _candidates(paths)
    files: dict[Role, Path] = dict(given)
    for role, several in candidates.items():
        if role not in given and not (pictures_only and role == "optimus"):
            files[role] = _one(role, several, precision)
    if "diffusers" not in given and {"flows", "autokl", "clip"} <= {*files} and "diffusers" in files:
        notes.append(f"{files.pop('diffusers')}: left aside, because the original files are there")
    needed = _needed(files, pictures_only)
    missing = [role for role in needed if role not in files]
    if missing:
        where = ", ".join(map(str, paths)) or "the files that were given"
        named = "; ".join(f"{ROLE_NAMES[role]}: --{role}" for role in missing)
        without = " (--pictures-only does without captions)" if "optimus" in missing else ""
        raise InputError(
            f"{where}: {len(missing)} of {len(needed)} files are missing, expected also {named}: add their folder, or "
            f"give each with its option{without}"
        )
    return Found({role: files[role] for role in ROLES if role in files}, tuple(notes))


def import_backbone(
    found: Found,
    home: Path,
    name: str,
    dtype: DtypeChoice = "as-stored",
    *,
    replace: bool = False,
    convert: Convert = convert_files,
) -> Path:
    """Convert what was found into ``home/name``.

    Parameters
    ----------
    found : Found
    home : Path
        Where backbones are kept.
    name : str
    dtype : {"as-stored", "fp32", "bf16", "fp16"}
        Precision of the converted files.
    replace : bool
        Replace a backbone of this name that was made otherwise.
    convert : callable
        Replaces `unibrain.weights.convert.convert`.

    Returns
    -------
    Path
        The backbone's folder.

    Raises
    ------
    InputError
        If a file is not what it should be, or the disk is full. Nothing is left half-written.
    """
    home.mkdir(parents=True, exist_ok=True)
    with folder_lock(home):
        convert(found.files, home / name, dtype=dtype, origins={}, replace=replace)
        # It is no longer what a fetch has made, so the next fetch is not done already.
        fetch_record(home, name).unlink(missing_ok=True)
    return home / name

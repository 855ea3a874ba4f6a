"""Finding the published files on disk: by their names, and vocabularies and CLIP by what is in them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.conversion import convert
from unibrain.weights.manifest import DtypeChoice
from unibrain.weights.published import (
    CAPTION_VOCABULARIES,
    FLOWS_NAMES,
    ROLE_NAMES,
    ROLES,
    Precision,
    Role,
)
from unibrain.weights.reading import read_weights
from unibrain.workspace.files import sweep_partials
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.run_folder import folder_lock

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
_REPEATED: dict[Role, tuple[str, ...]] = {
    "autokl": ("vae.image.", "autokl."),
    "optimus": ("vae.text.", "optimus."),
    "clip": ("ctx.", "clip.model."),
}
"""Beginnings of keys by which the flows' file repeats another part."""


def _starts(path: Path, *starts: str) -> bool:
    """Whether a file of weights has keys with each of these beginnings."""
    try:
        keys = read_weights(path)
    except InputError:
        return False
    return all(any(key.startswith(start) for key in keys) for start in starts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError:
        return ""


def _role(path: Path) -> Role | None:
    if path.name in _CLIP_NAMES:
        # BERT and GPT-2 are published under the same names.
        return "clip" if _starts(path, "vision_model.", "text_model.") else None
    if path.name == "vocab.json":
        try:
            vocabulary = json.loads(_text(path))
        except (ValueError, RecursionError):
            return None
        return "clip-vocab" if "<|startoftext|>" in vocabulary else "gpt2-vocab"
    if path.name == "merges.txt":
        return "clip-merges" if "</w>" in _text(path) else "gpt2-merges"
    return _BY_NAME.get(path.name)


def _candidates(paths: Sequence[Path]) -> dict[Role, list[Path]]:
    found: dict[Role, list[Path]] = {}
    for root in paths:
        if root.is_file():
            role = _role(root)
            if role is None:
                raise InputError(f"{root}: its name is not a published one. Give it with its option, such as --flows.")
            found.setdefault(role, []).append(root)
        elif not root.is_dir():
            raise InputError(f"{root}: no such file or folder. Check the path.")
        for folder, subfolders, names in os.walk(root):
            # What the hub's cache keeps beside its snapshots has hashes for names.
            subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "blobs")
            if {"image_unet", "text_unet"} <= set(subfolders):
                found.setdefault("diffusers", []).append(Path(folder))
            for path in (Path(folder, name) for name in sorted(names)):
                if role := _role(path):
                    found.setdefault(role, []).append(path)
    return found


def _one(role: Role, paths: list[Path], precision: Precision) -> Path:
    different = list({path.resolve(): path for path in paths}.values())
    if role == "flows":
        order = [*FLOWS_NAMES[precision], *(name for names in FLOWS_NAMES.values() for name in names)]
        best = min(order.index(path.name) for path in different)
        different = [path for path in different if path.name == order[best]]
    if role == "clip":
        different = [path for path in different if path.suffix == ".safetensors"] or different
    if len(different) > 1 and role != "diffusers":
        different = list({sha256_of(path): path for path in different}.values())
    if len(different) > 1:
        raise InputError(
            f"{different[0]} and {different[1]}: both may be {ROLE_NAMES[role]}. Say which with --{role} PATH."
        )
    return different[0]


def find_files(
    paths: Sequence[Path],
    given: Mapping[Role, Path],
    *,
    precision: Precision = "fp16",
    pictures_only: bool = False,
) -> dict[Role, Path]:
    """Find everything that a conversion needs.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        Files, or folders that are searched with all their subfolders: downloads, the hub's cache or a snapshot of it, a
        folder in diffusers' format.
    given : mapping of str to pathlib.Path
        Files whose role is known; they are not looked for.
    precision : {"fp16", "fp32"}
        Which file of the flows to take where both are there.
    pictures_only : bool
        Do without Optimus, which only captions need.

    Returns
    -------
    dict of str to pathlib.Path
        By role. ``diffusers`` is a folder; where the original files are there too, it is left aside.

    Raises
    ------
    InputError
        If something is missing (all of it is named), or there are several different files for one role.
    """
    for role, path in given.items():
        if not (path.is_dir() if role == "diffusers" else path.is_file()):
            raise InputError(f"{path}: it is not {ROLE_NAMES[role]}. Check --{role}.")
    files = dict(given)
    tokenizers = [given["diffusers"] / "tokenizer"] if "diffusers" in given else []
    for role, several in _candidates([*paths, *(path for path in tokenizers if path.is_dir())]).items():
        if role not in given and not (pictures_only and role == "optimus"):
            files[role] = _one(role, several, precision)
    if "diffusers" not in given and {"flows", "autokl", "clip"} <= {*files}:
        files.pop("diffusers", None)
    repeated = {
        role
        for role, starts in _REPEATED.items()
        if "flows" in files and any(_starts(files["flows"], start) for start in starts)
    }
    needed: list[Role] = ["clip-vocab", "clip-merges"]
    if "diffusers" not in files:
        needed += ["flows", "autokl", "clip"]
    if not pictures_only:
        needed.append("optimus")
    if not pictures_only or "optimus" in {*files, *repeated}:
        needed += CAPTION_VOCABULARIES
    missing = [role for role in needed if role not in {*files, *repeated}]
    if missing:
        where = ", ".join(map(str, paths)) or "The files that were given"
        named = "; ".join(f"{ROLE_NAMES[role]}: --{role}" for role in missing)
        without = " (--pictures-only does without captions)" if "optimus" in missing else ""
        raise InputError(f"{where}: missing {named}. Add their folder, or give each with its option{without}.")
    return {role: files[role] for role in ROLES if role in files}


def import_backbone(
    files: Mapping[Role, Path], home: Path, name: str, dtype: DtypeChoice = "as-stored", *, replace: bool = False
) -> Path:
    """Convert what was found into ``home/name``; see `convert`."""
    home.mkdir(parents=True, exist_ok=True)
    with folder_lock(home):
        sweep_partials(home)
        convert(files, home / name, dtype=dtype, replace=replace)
    return home / name

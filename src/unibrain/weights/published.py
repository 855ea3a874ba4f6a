"""The published files: the name, repository and licence of each, and which files on disk they are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from unibrain.errors import InputError
from unibrain.workspace.fingerprints import sha256_of

# fmt: off
Role = Literal[
    "flows", "autokl", "optimus", "clip", "diffusers",
    "clip-vocab", "clip-merges", "bert-vocab", "gpt2-vocab", "gpt2-merges",
]
# fmt: on
"""What a published file is for; ``diffusers`` is a folder, everything else a file."""

ROLES: tuple[Role, ...] = get_args(Role)

Precision = Literal["fp16", "fp32"]
"""Which of the two published files of the flows is meant."""

DtypeChoice = Literal["as-stored", "fp32", "bf16", "fp16"]
"""The precision to write; ``as-stored`` keeps that of the sources."""

FLOWS_NAMES: dict[Precision, tuple[str, ...]] = {
    "fp16": ("vd-four-flow-v1-0-fp16.pth", "vd-four-flow-v1-0-fp16-deprecated.pth"),
    "fp32": ("vd-four-flow-v1-0.pth", "vd-four-flow-v1-0-deprecated.pth"),
}
"""Published names of the flows' file, best first; "deprecated" ones hold the same weights under older keys."""

ROLE_NAMES: dict[Role, str] = {
    "flows": "the four flows (vd-four-flow-v1-0-fp16.pth)",
    "autokl": "AutoKL, the autoencoder of pictures (kl-f8.pth)",
    "optimus": "Optimus, the autoencoder of captions (optimus-vae.pth)",
    "clip": "CLIP ViT-L/14 (model.safetensors of openai/clip-vit-large-patch14)",
    "diffusers": "the folder of Versatile Diffusion in diffusers' format (with image_unet and text_unet)",
    "clip-vocab": "CLIP's vocabulary (vocab.json of openai/clip-vit-large-patch14)",
    "clip-merges": "CLIP's merges (merges.txt of openai/clip-vit-large-patch14)",
    "bert-vocab": "the vocabulary of bert-base-cased (vocab.txt)",
    "gpt2-vocab": "GPT-2's vocabulary (vocab.json of gpt2)",
    "gpt2-merges": "GPT-2's merges (merges.txt of gpt2)",
}
"""Role to what it is called in messages."""

CLIP_VOCABULARY: tuple[Role, ...] = ("clip-vocab", "clip-merges")
CAPTION_VOCABULARIES: tuple[Role, ...] = ("bert-vocab", "gpt2-vocab", "gpt2-merges")
"""Vocabularies that only Optimus needs."""

VOCABULARY_FILES: dict[Role, str] = {
    "clip-vocab": "clip-vocab.json",
    "clip-merges": "clip-merges.txt",
    "bert-vocab": "bert-vocab.txt",
    "gpt2-vocab": "gpt2-vocab.json",
    "gpt2-merges": "gpt2-merges.txt",
}
"""Role of a vocabulary to its name in a backbone folder."""

PUBLISHED_SHA256: dict[Role, str] = {
    "clip": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    "clip-merges": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    "bert-vocab": "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02",
    "gpt2-vocab": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "gpt2-merges": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
"""Content that is known for certain. All other hashes come from the hub, among them those of the .pth files."""


_BY_NAME: dict[str, Role] = {
    **{name: "flows" for names in FLOWS_NAMES.values() for name in names},
    "kl-f8.pth": "autokl",
    "optimus-vae.pth": "optimus",
    **{name: role for role, name in VOCABULARY_FILES.items()},
    "vocab.txt": "bert-vocab",
    "bert-base-cased-vocab.txt": "bert-vocab",
}
_REPEATED: dict[Role, tuple[str, ...]] = {
    "autokl": ("vae.image.", "autokl."),
    "optimus": ("vae.text.", "optimus."),
    "clip": ("ctx.", "clip.model."),
}
"""Beginnings of keys by which the flows' file repeats another part."""


@dataclass(frozen=True)
class Source:
    """Files that come from one repository of the hub.

    `repositories` are tried in this order, `revision` is a commit, branch or tag, and `files` gives the names by which
    each file is published, best first.
    """

    title: str
    licence: str
    repositories: tuple[str, ...]
    revision: str
    files: dict[Role, tuple[str, ...]]


def official_sources(
    precision: Precision = "fp16",
    *,
    pictures_only: bool = False,
    repository: str | None = None,
    revision: str | None = None,
) -> tuple[Source, ...]:
    """List what the official backbone is made of.

    CLIP and the tokenizers are pinned to public commits. Versatile Diffusion's repositories are not: no public record
    of a commit that surely holds `pretrained_pth` was found. Without Optimus (`pictures_only`), its small vocabularies
    are fetched all the same: the flows' file may repeat Optimus.
    """
    weights: dict[Role, tuple[str, ...]] = {"flows": FLOWS_NAMES[precision], "autokl": ("kl-f8.pth",)}
    if not pictures_only:
        weights["optimus"] = ("optimus-vae.pth",)
    known = ("shi-labs/versatile-diffusion-model", "shi-labs/versatile-diffusion")
    return (
        Source(
            "Versatile Diffusion",
            "MIT",
            known if repository is None else (repository,),
            revision or "main",
            {role: tuple(f"pretrained_pth/{name}" for name in names) for role, names in weights.items()},
        ),
        Source(
            "CLIP ViT-L/14",
            "MIT (of OpenAI's CLIP; the model card names none)",
            ("openai/clip-vit-large-patch14",),
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            {"clip": ("model.safetensors",), "clip-vocab": ("vocab.json",), "clip-merges": ("merges.txt",)},
        ),
        Source(
            "tokenizer of BERT base, cased",
            "Apache-2.0",
            ("google-bert/bert-base-cased",),
            "cd5ef92a9fb2f889e972770a36d4ed042daf221e",
            {"bert-vocab": ("vocab.txt",)},
        ),
        Source(
            "tokenizer of GPT-2",
            "MIT",
            ("openai-community/gpt2",),
            "607a30d783dfa663caf39e06633721c8d4cfcd7e",
            {"gpt2-vocab": ("vocab.json",), "gpt2-merges": ("merges.txt",)},
        ),
    )


def _keys(path: Path) -> tuple[str, ...]:
    """Keys of a file of weights; none if it is something else."""
    from unibrain.weights.reading import read_weights  # brings in PyTorch

    try:
        return tuple(read_weights(path))
    except InputError:
        return ()


def _role(path: Path) -> Role | None:
    if path.name in ("model.safetensors", "pytorch_model.bin"):
        # BERT and GPT-2 are published under the same names.
        starts = {key.partition(".")[0] for key in _keys(path)}
        return "clip" if {"vision_model", "text_model"} <= starts else None
    if path.name in ("vocab.json", "merges.txt"):
        # So are the vocabularies of GPT-2 and CLIP; only CLIP's has marks for the ends of words.
        kind = "vocab" if path.name == "vocab.json" else "merges"
        return f"clip-{kind}" if b"</w>" in path.read_bytes() else f"gpt2-{kind}"  # type: ignore[return-value]
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
    """Find everything that a conversion needs, by role.

    `paths` are files, or folders that are searched with all their subfolders: downloads, the hub's cache or a snapshot
    of it, a folder in diffusers' format (left aside where the original files are there too). What is `given` is not
    looked for. `precision` chooses among files of the flows; `pictures_only` does without Optimus.
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
    keys = _keys(files["flows"]) if "flows" in files else ()
    there = {*files, *(role for role, starts in _REPEATED.items() if any(key.startswith(starts) for key in keys))}
    needed: list[Role] = [*CLIP_VOCABULARY]
    if "diffusers" not in files:
        needed += ["flows", "autokl", "clip"]
    if not pictures_only:
        needed.append("optimus")
    if not pictures_only or "optimus" in there:
        needed += CAPTION_VOCABULARIES
    if missing := [role for role in needed if role not in there]:
        where = ", ".join(map(str, paths)) or "The files that were given"
        named = "; ".join(f"{ROLE_NAMES[role]}: --{role}" for role in missing)
        without = " (--pictures-only does without captions)" if "optimus" in missing else ""
        raise InputError(f"{where}: missing {named}. Add their folder, or give each with its option{without}.")
    return {role: files[role] for role in ROLES if role in files}

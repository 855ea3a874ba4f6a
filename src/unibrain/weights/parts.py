"""Gathering the four parts, complete and of the right sizes, from whatever files were given."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.storage import PARTS
from unibrain.errors import InputError
from unibrain.weights.candidates import Candidate, in_diffusers_folder, in_flows_file, in_own_file
from unibrain.weights.expected import Expected
from unibrain.weights.layouts import Entries, Entry
from unibrain.weights.manifest import Role
from unibrain.weights.recognition import WANTED

__all__ = ["Found", "gather"]

_CLIP_LOGIT_SCALE = math.log(100)
"""As published. Contexts do not use it, and the CLIP folders of the diffusers format leave it out."""

_SINGLE_ROLES: tuple[Role, ...] = ("autokl", "optimus", "clip")
_ROLES: dict[str, Role] = {"flows": "flows", "autokl": "autokl", "optimus": "optimus", "clip": "clip"}


@dataclass(frozen=True)
class Found:
    """One part, complete and in our names.

    Attributes
    ----------
    source : str
        Where it came from.
    tensors : dict of str to Entry
        Exactly the keys of the configuration, with its shapes.
    missing, unexpected : tuple of str
        See `unibrain.weights.manifest.PartRecord`.
    ignored : int
    """

    source: str
    tensors: Entries
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored: int


def gather(
    files: Mapping[Role, Path], config: BackboneConfig, expected: Expected
) -> tuple[dict[str, Found], list[str]]:
    """Open the files and find the parts in them.

    A part's own file is preferred to the copy in a diffusers folder, and to a copy inside the flows' file. Only where
    the latter holds other values (beyond rounding) it counts, because the public code loads the flows' file last.

    Parameters
    ----------
    files : mapping of str to Path
        See `unibrain.weights.convert.convert`.
    config : BackboneConfig
    expected : Expected
        Of the same configuration.

    Returns
    -------
    parts : dict of str to Found
        In the order of `PARTS`; ``optimus`` only if it is there.
    notes : list of str
        What a reader should know.

    Raises
    ------
    InputError
        If a file is not what its role says, or a part is missing, incomplete, or of another size.
    """
    single: dict[str, Candidate] = {}
    copies: dict[str, Candidate] = {}
    if "flows" in files:
        copies = in_flows_file(files["flows"], config)
        single["flows"] = copies.pop("flows")
    for role in _SINGLE_ROLES:
        if role in files:
            single[role] = in_own_file(files[role], role, config)
    if "diffusers" in files:
        single.update(in_diffusers_folder(files["diffusers"], config, {*PARTS} - {*single}))

    parts: dict[str, Found] = {}
    notes: list[str] = []
    for part in PARTS:
        shapes = expected.shapes[part]
        if part in single:
            parts[part] = _complete(part, single[part], shapes, config)
            if part in copies:
                parts[part] = _decide(part, parts[part], copies[part], shapes, notes)
        elif part in copies:
            parts[part] = _complete(part, copies[part], shapes, config)
        elif part != "optimus":
            raise InputError(
                f"no {part} was given, and no other file repeats it, expected {WANTED[_ROLES[part]]}: give it too"
            )
    for part, found in parts.items():
        if found.unexpected:
            notes.append(
                f"{part}: {len(found.unexpected)} unexpected keys were left out, such as {found.unexpected[0]}"
            )
    return parts, notes


def _complete(part: str, candidate: Candidate, shapes: Mapping[str, tuple[int, ...]], config: BackboneConfig) -> Found:
    """Check keys, shapes and types of a part; fill in what follows from the rest."""
    found = _settle(part, candidate, shapes)
    lacking = [key for key in shapes if key not in found.tensors]
    if lacking:
        raise InputError(
            f"{candidate.path}: {part} lacks {len(lacking)} of its {len(shapes)} keys{_such_as(lacking)} (and has "
            f"{len(found.unexpected)} unexpected ones{_such_as(found.unexpected)}), expected all keys of configuration "
            f"{config.name!r}: get the published file again"
        )
    for key, shape in shapes.items():
        entry = found.tensors[key]
        if tuple(entry.tensor.shape) != shape:
            raise InputError(
                f"{entry.file}: {entry.key} has shape {tuple(entry.tensor.shape)}, expected {shape} by configuration "
                f"{config.name!r}: these are weights of another size, get the published file"
            )
        if not entry.tensor.is_floating_point():
            raise InputError(
                f"{entry.file}: {entry.key} has type {_type_name(entry)}, expected floating-point numbers: get the "
                "published file, not a quantised one"
            )
    return found


def _settle(part: str, candidate: Candidate, shapes: Mapping[str, tuple[int, ...]]) -> Found:
    tensors = {key: candidate.tensors[key] for key in shapes if key in candidate.tensors}
    missing = []
    if part == "optimus" and "gpt2.lm_head.weight" not in tensors and "gpt2.transformer.wte.weight" in tensors:
        missing.append("gpt2.lm_head.weight")
        tensors["gpt2.lm_head.weight"] = tensors["gpt2.transformer.wte.weight"]
    if part == "clip" and "logit_scale" not in tensors and tensors:
        missing.append("logit_scale")
        like = next(iter(tensors.values()))
        value = torch.tensor(_CLIP_LOGIT_SCALE).to(like.tensor.dtype)
        tensors["logit_scale"] = Entry(value, like.file, "logit_scale")
    unexpected = sorted(entry.key for key, entry in candidate.tensors.items() if key not in shapes)
    return Found(candidate.source, tensors, tuple(missing), tuple(unexpected), candidate.ignored)


def _such_as(keys: Sequence[str]) -> str:
    return f", such as {keys[0]}" if keys else ""


def _type_name(entry: Entry) -> str:
    return str(entry.tensor.dtype).removeprefix("torch.")


def _decide(part: str, own: Found, copy: Candidate, shapes: Mapping[str, tuple[int, ...]], notes: list[str]) -> Found:
    """Choose between a part's own file and the copy in the flows' file."""
    other = _settle(part, copy, shapes)
    if any(key not in other.tensors or tuple(other.tensors[key].tensor.shape) != shapes[key] for key in shapes):
        notes.append(f"{part}: {copy.source} is incomplete, {own.source} was taken")
        return own
    differing = [key for key in shapes if not _equal(own.tensors[key], other.tensors[key])]
    if differing:
        notes.append(
            f"{part}: {copy.source} and {own.source} hold other values ({len(differing)} of {len(shapes)} keys, such "
            f"as {differing[0]}); those of {copy.source} were taken, as the public code loads that file last"
        )
        return other
    key = max(shapes, key=lambda key: math.prod(shapes[key]))
    wider = other.tensors[key].tensor.dtype.itemsize > own.tensors[key].tensor.dtype.itemsize
    return other if wider else own


def _equal(one: Entry, other: Entry) -> bool:
    """Whether two tensors agree once both are rounded to the lower of their precisions."""
    narrow = min(one.tensor.dtype, other.tensor.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.tensor.to(narrow), other.tensor.to(narrow))

"""Published weights in, one backbone folder out: safetensors, vocabularies, a configuration and a manifest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import unibrain
from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.backbone.folder import PARTS
from unibrain.errors import InputError
from unibrain.weights.checks import Shapes, check_vocabularies, expected_shapes
from unibrain.weights.layouts import IGNORED, Place, modern_name, places
from unibrain.weights.manifest import (
    MANIFEST_FILE,
    DtypeChoice,
    FileRecord,
    Manifest,
    Origin,
    PartRecord,
    SourceFile,
    read_manifest,
)
from unibrain.weights.published import (
    CAPTION_VOCABULARIES,
    CLIP_VOCABULARY,
    ROLE_NAMES,
    ROLES,
    VOCABULARY_FILES,
    Role,
)
from unibrain.weights.reading import read_weights
from unibrain.workspace.disk import require_space
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import say, track

_DTYPES: dict[DtypeChoice, torch.dtype | None] = {
    "as-stored": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_STORABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_COMPONENTS = ("image_unet", "text_unet", "vae", "text_encoder", "image_encoder")
_COMPONENT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
_CLIP_LOGIT_SCALE = math.log(100)  # as published; contexts do not use it, and diffusers' folders leave it out
_CHUNK = 1 << 22  # numbers that are looked at, or rounded, at once; the largest matrices have 52 million
_SMALL_FILES = 1 << 21  # bytes for headers, configuration and manifest, generously


class Entry(NamedTuple):
    """A tensor (usually mapped from its file, not in memory), and where it came from."""

    tensor: Tensor
    file: Path
    key: str


@dataclass(frozen=True)
class Part:
    """One part as one source has it: our keys, and those of the source's own keys that it lacks."""

    source: str
    path: Path
    tensors: dict[str, Entry]
    lacking: tuple[str, ...]


def _component_files(folder: Path) -> dict[str, Path]:
    found = {}
    for component in _COMPONENTS:
        paths = [folder / component / name for name in _COMPONENT_FILES]
        if path := next((path for path in paths if path.is_file()), None):
            found[component] = path
    return found


def _opened(role: Role, path: Path) -> dict[str, Entry]:
    if role != "diffusers":
        return {key: Entry(value, path, key) for key, value in read_weights(path).items()}
    return {
        modern_name(f"{component}.{key}"): Entry(value, file, key)
        for component, file in _component_files(path).items()
        for key, value in read_weights(file).items()
    }


def _taken(part: str, place: Place, role: Role, path: Path, found: Mapping[str, Entry], shapes: Shapes) -> Part:
    names = {key: place.name(key) for key in shapes[part]}
    tensors = {key: found[name] for key, name in names.items() if name in found}
    if part == "clip" and tensors and "logit_scale" not in tensors:
        like = next(iter(tensors.values())).tensor.dtype
        tensors["logit_scale"] = Entry(torch.tensor(_CLIP_LOGIT_SCALE).to(like), path, "logit_scale")
    for key, entry in tensors.items():
        shape = shapes[part][key]
        # Attention's maps are 1 x 1 convolutions in some layouts.
        tensor = entry.tensor.flatten(1) if entry.tensor.shape == (*shape, 1, 1) else entry.tensor
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{entry.file}: {entry.key} has shape {tuple(tensor.shape)} instead of {shape}. These are weights of "
                "another size: get the published file."
            )
        if tensor.dtype not in _STORABLE:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{entry.file}: {entry.key} is {kind}, which is no weight. Get the published file.")
        tensors[key] = entry._replace(tensor=tensor)
    lacking = tuple(name for key, name in names.items() if key not in tensors)
    about = place.about if role == "diffusers" else f"{path.name}: {place.about}".removesuffix(": ")
    return Part(about, path, tensors, lacking)


def _layout(role: str, found: Mapping[str, Entry]) -> str:
    """Which of the layouts a file of this role has."""
    others = {"flows": ("deprecated", "model.diffusion_model.unet_"), "autokl": ("vae", "encoder.down_blocks.")}
    other, start = others.get(role, (role, ""))
    return other if any(key.startswith(start) for key in found) else role


def gather(files: Mapping[Role, Path], config: BackboneConfig, shapes: Shapes) -> tuple[dict[str, Part], list[str]]:
    """Open the files and find the four parts in them, complete and of the right sizes.

    A part's own file (or the diffusers folder) is preferred to a copy inside the flows' file. Only where that holds
    other values, or the same with more digits, it is taken: the public code loads the flows' file last.

    Returns
    -------
    parts : dict of str to Part
        In the order of `PARTS`; ``optimus`` only if it is there.
    notes : list of str
        What a reader should know.
    """
    known = places(config)
    own: dict[str, Part] = {}
    copies: dict[str, Part] = {}
    notes = []
    for role in ("flows", "autokl", "optimus", "clip", "diffusers"):
        if role not in files:
            continue
        found = _opened(role, files[role])
        layout = known[_layout(role, found)]
        for part, place in layout.items():
            if part in own and role == "diffusers":
                continue
            taken = _taken(part, place, role, files[role], found, shapes)
            if role == "flows" and part != "flows":
                copies[part] = taken
            elif taken.tensors or part in (role, "flows"):
                own[part] = taken
        used = {place.name(key) for part, place in layout.items() for key in shapes[part]}
        strangers = sorted(entry.key for key, entry in found.items() if key not in used and not IGNORED.search(key))
        if strangers:
            notes.append(f"{files[role].name}: {len(strangers)} keys were left out, such as {strangers[0]}")
    parts = {}
    for part in PARTS:
        if chosen := _chosen(part, own.get(part), copies.get(part), notes):
            parts[part] = chosen
    return parts, notes


def _chosen(part: str, own: Part | None, copy: Part | None, notes: list[str]) -> Part | None:
    if copy is not None and not copy.tensors:
        copy = None
    first = own or copy
    if first is None:
        if part == "optimus":
            return None
        raise InputError(f"Missing: {ROLE_NAMES[part]}. Give it too.")  # type: ignore[index]
    if first.lacking:
        raise InputError(
            f"{first.path}: it lacks {len(first.lacking):,} of the keys of {part}, such as {first.lacking[0]}. "
            f"Get {ROLE_NAMES[part]} again."  # type: ignore[index]
        )
    if own is None or copy is None:
        return first
    if copy.lacking:
        notes.append(f"{part}: {copy.source} is incomplete, {own.source} was taken")
        return own
    pairs = [(entry.tensor, copy.tensors[key].tensor) for key, entry in own.tensors.items()]
    differing = sum(not _equal(one, other) for one, other in pairs)
    if differing:
        notes.append(
            f"{part}: {copy.source} and {own.source} differ in {differing} of {len(pairs)} keys; {copy.source} was "
            "taken, as the public code loads that file last"
        )
        return copy
    one, other = max(pairs, key=lambda pair: pair[0].numel())
    return copy if other.dtype.itemsize > one.dtype.itemsize else own


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree once both are rounded to the lower of their precisions."""
    narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.to(narrow), other.to(narrow))


def _sources(files: Mapping[Role, Path], origins: Mapping[Role, Origin]) -> tuple[SourceFile, ...]:
    """Hash everything that is read, and compare it with what is known of its content."""
    listed: list[tuple[Role, str, Path]] = []
    for role in ROLES:
        if role == "diffusers" and role in files:
            components = _component_files(files[role]).items()
            listed += [(role, f"{component}/{path.name}", path) for component, path in components]
        elif role in files:
            listed.append((role, files[role].name, files[role]))
    sources = []
    for role, name, path in track(listed, "hashing the sources", unit="files"):
        origin, found = origins.get(role), sha256_of(path)
        if origin is not None and origin.sha256 not in (None, found):
            raise InputError(
                f"{path}: its SHA-256 is {found}, but {origin.sha256} as published by {origin.repository}. It is "
                "damaged or another file: delete it and run again."
            )
        sources.append(SourceFile(role=role, name=name, size=path.stat().st_size, sha256=found, origin=origin))
    return tuple(sources)


def _existing(target: Path) -> Manifest | None:
    manifest = read_manifest(target) if target.is_dir() else None
    if manifest is None and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: something else is there, which is never replaced. Choose another name.")
    return manifest


def convert(
    files: Mapping[Role, Path],
    target: Path,
    *,
    dtype: DtypeChoice = "as-stored",
    origins: Mapping[Role, Origin] | None = None,
    config: BackboneConfig = OFFICIAL,
    replace: bool = False,
) -> Manifest:
    """Turn published weights into a backbone folder.

    Sources are mapped, so that no part is in memory as a whole, and nothing in them is executed. A second call with the
    same sources writes nothing.

    Parameters
    ----------
    files : mapping of str to pathlib.Path
        What is what. ``flows`` and ``autokl`` and ``clip`` (each of the latter two only if the flows' file does not
        repeat it), or the ``diffusers`` folder; CLIP's vocabulary and merges; with ``optimus``, BERT's and GPT-2's
        vocabularies too. Without Optimus the backbone has no captions.
    target : pathlib.Path
        The backbone folder to write, whole or not at all.
    dtype : {"as-stored", "fp32", "bf16", "fp16"}
        Precision of the weights written.
    origins : mapping of str to Origin, optional
        Where the files came from, for the manifest, and what their content must be.
    config : BackboneConfig
        Sizes of the model; those of the published one by default.
    replace : bool
        Whether a backbone folder that was made from other sources may be replaced.

    Returns
    -------
    Manifest
        As written beside the weights.

    Raises
    ------
    InputError
        If a file is damaged, would execute code, or is not what its role says; a part is missing, incomplete, or of
        another size; the target exists and is something else; or there is not enough disk.
    """
    existing = _existing(target)
    shapes = expected_shapes(config)
    parts, notes = gather(files, config, shapes)
    if "optimus" in parts and "optimus" not in files and not set(CAPTION_VOCABULARIES) <= set(files):
        del parts["optimus"]
        notes.append("optimus: the flows' file repeats it, but its vocabularies were not given: no captions")
    vocabularies = _vocabularies(files, "optimus" in parts)
    check_vocabularies(vocabularies, config, shapes, parts)
    sources = _sources(files, origins or {})
    config_json = config.to_json()
    if existing is not None:
        same = existing.dtype == dtype and _contents(existing.sources) == _contents(sources)
        if same and _intact(target, existing) and (target / "config.json").read_text(encoding="utf-8") == config_json:
            return existing
        if not same and not replace:
            raise InputError(
                f"{target}: a backbone made from other files or to another precision is there. Add --replace, or "
                "choose another name."
            )
    chosen = _DTYPES[dtype]
    largest = max((_bytes(part, chosen) for part in parts.values()), default=0) if chosen is not None else 0
    needed = sum(_bytes(part, chosen) for part in parts.values()) + largest + _SMALL_FILES
    require_space(target, needed + sum(path.stat().st_size for path in vocabularies.values()))
    for note in notes:
        say(f"Note: {note}")
    records = {}
    with atomic_folder(target) as folder:
        for part in list(parts):
            # Taken out of the dictionary, so that its file is closed as soon as it is written.
            records[part] = _write(folder, part, parts.pop(part), chosen)
        for name, path in vocabularies.items():
            (folder / name).write_bytes(path.read_bytes())
        (folder / "config.json").write_text(config_json, encoding="utf-8")
        written = sorted(folder.iterdir())
        manifest = Manifest(
            unibrain=unibrain.__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            dtype=dtype,
            sources=sources,
            parts=records,
            files={path.name: FileRecord(size=path.stat().st_size, sha256=sha256_of(path)) for path in written},
            notes=tuple(notes),
        )
        (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _vocabularies(files: Mapping[Role, Path], captions: bool) -> dict[str, Path]:
    wanted = CLIP_VOCABULARY + (CAPTION_VOCABULARIES if captions else ())
    if lacking := [role for role in wanted if role not in files]:
        raise InputError(f"Missing: {ROLE_NAMES[lacking[0]]}. Give it too.")
    return {VOCABULARY_FILES[role]: files[role] for role in wanted}


def _contents(sources: tuple[SourceFile, ...]) -> list[tuple[str, str, str]]:
    return [(source.role, source.name, source.sha256) for source in sources]


def _intact(target: Path, manifest: Manifest) -> bool:
    paths = {target / name: record.size for name, record in manifest.files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _bytes(part: Part, dtype: torch.dtype | None) -> int:
    return sum(entry.tensor.numel() * (dtype or entry.tensor.dtype).itemsize for entry in part.tensors.values())


def _write(folder: Path, name: str, part: Part, dtype: torch.dtype | None) -> PartRecord:
    """Write one part with the library's own writer, which takes mapped tensors as they are."""
    from safetensors.torch import save_file

    path, scratch = folder / f"{name}.safetensors", folder / "scratch"
    counts = [entry.tensor.numel() for entry in part.tensors.values()]
    room: Sequence[Tensor | None] = [None] * len(counts)
    if dtype is not None:
        # Rounded numbers are mapped too: they lie in a file until they are written.
        room = torch.from_file(str(scratch), shared=True, size=sum(counts), dtype=dtype).split(counts)
    entries = zip(part.tensors.items(), room, strict=True)
    tensors = {
        key: _settled(entry, rounded)
        for (key, entry), rounded in track(entries, f"converting {name}", len(counts), "tensors")
    }
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    scratch.unlink(missing_ok=True)
    return PartRecord(
        source=part.source,
        dtype="+".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        keys=len(tensors),
        parameters=sum(counts),
    )


def _settled(entry: Entry, rounded: Tensor | None) -> Tensor:
    """Check that a tensor is finite, and round it into `rounded` if that is given."""
    flat = entry.tensor.reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if not bool(chunk.isfinite().all()):
            raise InputError(f"{entry.file}: {entry.key} holds NaN or infinity. Get the file again.")
        if rounded is not None and not bool(rounded[start : start + _CHUNK].copy_(chunk).isfinite().all()):
            raise InputError(
                f"{entry.file}: {entry.key} holds numbers too large for {str(rounded.dtype).removeprefix('torch.')}. "
                "Convert to bf16 or fp32."
            )
    return entry.tensor.contiguous() if rounded is None else rounded.view(entry.tensor.shape)

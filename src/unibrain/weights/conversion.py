"""Published weights in, one backbone folder out; and whether a folder still holds what a backbone needs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import unibrain
from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.backbone.folder import PARTS
from unibrain.backbone.loading import build_empty, check_weights, look_into
from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError
from unibrain.weights.layouts import IGNORED, Place, modern_name, places
from unibrain.weights.manifest import (
    MANIFEST_FILE,
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
    DtypeChoice,
    Role,
)
from unibrain.weights.reading import read_weights
from unibrain.workspace.files import atomic_folder, require_space, sweep_partials
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import say, track
from unibrain.workspace.run_folder import folder_lock

TIED = "gpt2.lm_head.weight"
"""GPT-2's output layer is its embedding, `gpt2.transformer.wte.weight`; it is written once, as that."""

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Part to key to shape."""

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


# What a complete backbone has.


def _networks(config: BackboneConfig) -> dict[str, Any]:
    try:
        return {part: build_empty(config, part) for part in PARTS}
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"Configuration {config.name!r}: no network can be built of these sizes ({error}). Take the config.json "
            "that belongs to the weights."
        ) from None


def _shapes(networks: Mapping[str, Any]) -> Shapes:
    return {
        part: {key: tuple(value.shape) for key, value in network.state_dict().items() if key != TIED}
        for part, network in networks.items()
    }


def expected_shapes(config: BackboneConfig) -> Shapes:
    """Shapes of all keys that a complete backbone has, tied ones once."""
    return _shapes(_networks(config))


def _check_vocabularies(
    paths: Mapping[str, Path], config: BackboneConfig, shapes: Shapes, parts: Collection[str]
) -> None:
    """Open the vocabularies (name in a backbone folder to file) and compare their sizes with the weights'."""
    clip = ClipTokens(paths["clip-vocab.json"], paths["clip-merges.txt"])
    clip.require_size(shapes["clip"]["text_model.embeddings.token_embedding.weight"][0])
    clip.require_end(config.clip.eos_token_id)
    if "optimus" in parts:
        bert = BertPieces(paths["bert-vocab.txt"])
        bert.require_size(shapes["optimus"]["bert.embeddings.word_embeddings.weight"][0])
        gpt2 = Gpt2Tokens(paths["gpt2-vocab.json"], paths["gpt2-merges.txt"])
        gpt2.require_size(shapes["optimus"]["gpt2.transformer.wte.weight"][0])


def verify(folder: Path) -> Manifest | None:
    """Hash every file of a backbone folder against its manifest, and compare keys and shapes with its configuration.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    Manifest or None
        None if the folder has no manifest (the packaged backbone, or one that was trained): then only keys, shapes and
        vocabularies were checked.

    Raises
    ------
    InputError
        Naming every file that is missing or was changed, or the first key that is wrong.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        wrong = [
            name
            for name, record in track(list(manifest.files.items()), "checking hashes", unit="files")
            if not _has_size(folder / name, record) or sha256_of(folder / name) != record.sha256
        ]
        if wrong:
            raise InputError(f"{folder}: missing or changed: {', '.join(wrong)}. Convert the weights again.")
    config = BackboneConfig.from_json(folder / "config.json")
    networks = _networks(config)
    parts = [part for part in PARTS if part != "optimus" or (folder / "optimus.safetensors").is_file()]
    for part in parts:
        path = folder / f"{part}.safetensors"
        check_weights(path, networks[part], look_into(path).shapes)
    vocabularies = {name: folder / name for name in VOCABULARY_FILES.values()}
    _check_vocabularies(vocabularies, config, _shapes(networks), parts)
    return manifest


def _has_size(path: Path, record: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == record.size


# The four parts in the published files.


def _component_files(folder: Path) -> dict[str, Path]:
    paths = [(component, folder / component / name) for component in _COMPONENTS for name in reversed(_COMPONENT_FILES)]
    return {component: path for component, path in paths if path.is_file()}


def _opened(role: Role, path: Path) -> dict[str, Entry]:
    files = _component_files(path) if role == "diffusers" else {"": path}
    return {
        modern_name(f"{component}.{key}") if component else key: Entry(value, file, key)
        for component, file in files.items()
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
    """Open the files and find the parts in them, complete and of the right sizes; with what a reader should know.

    A part's own file (or the diffusers folder) is preferred to a copy inside the flows' file. Only where that holds
    other values, or the same with more digits, it is taken: the public code loads the flows' file last.
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
        raise _missing(part)  # type: ignore[arg-type]
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


def _missing(role: Role) -> InputError:
    return InputError(f"Missing: {ROLE_NAMES[role]}. Give it too.")


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree once both are rounded to the lower of their precisions."""
    narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.to(narrow), other.to(narrow))


# The folder that is written.


def _sources(files: Mapping[Role, Path], origins: Mapping[Role, Origin]) -> tuple[SourceFile, ...]:
    """Hash everything that is read, and compare it with what is known of its content."""
    listed: list[tuple[Role, str, Path]]
    listed = [(role, files[role].name, files[role]) for role in ROLES if role in files and role != "diffusers"]
    if "diffusers" in files:
        components = _component_files(files["diffusers"]).items()
        listed += [("diffusers", f"{component}/{path.name}", path) for component, path in components]
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


def existing_backbone(target: Path) -> Manifest | None:
    """The manifest of what is to be replaced; None if there is nothing. Anything else than a backbone is refused."""
    manifest = read_manifest(target) if target.is_dir() else None
    if manifest is None and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(
            f"{target}: something else is there, which is never replaced. Move it, or choose another name."
        )
    return manifest


def another_backbone(target: Path) -> InputError:
    """What is said of a backbone that is not to be replaced."""
    return InputError(
        f"{target}: a backbone made from other files or to another precision is there. Add --replace to replace it."
    )


def convert(
    files: Mapping[Role, Path],
    target: Path,
    *,
    dtype: DtypeChoice = "as-stored",
    origins: Mapping[Role, Origin] | None = None,
    config: BackboneConfig = OFFICIAL,
    replace: bool = False,
) -> Manifest:
    """Turn published weights into a backbone folder, which is written whole or not at all.

    Needed are ``flows``, ``autokl`` and ``clip`` (each of the latter two only if the flows' file does not repeat it),
    or the ``diffusers`` folder, and CLIP's vocabulary and merges; with ``optimus``, BERT's and GPT-2's vocabularies
    too. Without Optimus the backbone has no captions. `origins` go into the manifest, and say what the files' content
    must be.

    Sources are mapped, so that no part is in memory as a whole, and nothing in them is executed. A second call with the
    same sources writes nothing; a backbone made from others is replaced only with `replace`.
    """
    existing = existing_backbone(target)
    shapes = expected_shapes(config)
    parts, notes = gather(files, config, shapes)
    if "optimus" in parts and "optimus" not in files and not set(CAPTION_VOCABULARIES) <= set(files):
        del parts["optimus"]
        notes.append("optimus: the flows' file repeats it, but its vocabularies were not given: no captions")
    vocabularies = _vocabularies(files, "optimus" in parts)
    _check_vocabularies(vocabularies, config, shapes, parts)
    sources = _sources(files, origins or {})
    config_json = config.to_json()
    if existing is not None:
        contents = [[(one.role, one.name, one.sha256) for one in several] for several in (existing.sources, sources)]
        same = existing.dtype == dtype and contents[0] == contents[1]
        intact = all(_has_size(target / name, record) for name, record in existing.files.items())
        if same and intact and (target / "config.json").read_text(encoding="utf-8") == config_json:
            return existing
        if not same and not replace:
            raise another_backbone(target)
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


def import_backbone(
    files: Mapping[Role, Path], home: Path, name: str, dtype: DtypeChoice = "as-stored", *, replace: bool = False
) -> Path:
    """Convert what was found into ``home/name``, while nobody else writes there; see `convert`."""
    home.mkdir(parents=True, exist_ok=True)
    with folder_lock(home):
        sweep_partials(home)
        convert(files, home / name, dtype=dtype, replace=replace)
    return home / name


def _vocabularies(files: Mapping[Role, Path], captions: bool) -> dict[str, Path]:
    wanted = CLIP_VOCABULARY + (CAPTION_VOCABULARIES if captions else ())
    if lacking := [role for role in wanted if role not in files]:
        raise _missing(lacking[0])
    return {VOCABULARY_FILES[role]: files[role] for role in wanted}


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

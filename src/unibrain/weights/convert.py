"""Published weights in, one backbone folder out: safetensors, vocabularies, a configuration and a manifest."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

import unibrain
from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.errors import InputError
from unibrain.weights.expected import expect
from unibrain.weights.manifest import (
    MANIFEST_FILE,
    DtypeChoice,
    FileRecord,
    Manifest,
    Origin,
    PartRecord,
    Role,
    SourceFile,
)
from unibrain.weights.parts import Found, gather
from unibrain.weights.source_files import Hashes, list_sources, same_sources
from unibrain.weights.stream import bytes_needed, stored_dtype, write_safetensors
from unibrain.weights.target import check_disk, existing_manifest, is_intact, sweep_abandoned
from unibrain.weights.vocabularies import CAPTION_ROLES, check_vocabularies, choose_vocabularies
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.progress import say

__all__ = ["convert"]

_DTYPES: dict[DtypeChoice, torch.dtype | None] = {
    "as-stored": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_NO_ORIGINS: Mapping[Role, Origin] = {}
_SMALL_FILES = 1 << 21  # bytes for headers, configuration and manifest, generously


def convert(
    files: Mapping[Role, Path],
    target: Path,
    *,
    dtype: DtypeChoice = "as-stored",
    origins: Mapping[Role, Origin] = _NO_ORIGINS,
    config: BackboneConfig = OFFICIAL,
    replace: bool = False,
) -> Manifest:
    """Turn published weights into a backbone folder.

    Sources are mapped and streamed tensor by tensor: no part is in memory as a whole, and nothing in them is executed.
    A second call with the same sources does nothing.

    Parameters
    ----------
    files : mapping of str to Path
        What is what. ``flows`` and ``autokl`` and ``clip`` (each of the latter two only if the flows' file does not
        repeat it), or the ``diffusers`` folder; CLIP's vocabulary and merges (the diffusers folder has them); with
        ``optimus``, BERT's and GPT-2's vocabularies too. Without Optimus the backbone has no captions.
    target : Path
        The backbone folder to write, whole or not at all.
    dtype : {"as-stored", "fp32", "bf16", "fp16"}
        Precision of the weights written.
    origins : mapping of str to Origin
        Where the files came from, for the manifest.
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
        If a file is missing, damaged, would execute code, or is not what its role says; a part is missing, incomplete,
        or of another size; the target exists and is something else; or there is not enough disk.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    files = {role: Path(path) for role, path in files.items()}
    target = Path(target)
    stamps = list_sources(files)
    hashes = Hashes()
    config_json = config.to_json().encode()
    config_hash = hashlib.sha256(config_json).hexdigest()
    existing = existing_manifest(target)
    if existing is not None:
        asked = existing.config == config_hash and existing.dtype == dtype
        if asked and same_sources(existing, stamps, hashes):
            if is_intact(target, existing):
                return existing
        elif not replace:
            raise InputError(
                f"{target}: already holds a backbone that was converted from other files or to another precision, "
                "expected a free place: ask for it to be replaced, or give another folder"
            )

    expected = expect(config)
    parts, notes = gather(files, config, expected)
    if "optimus" in parts and "optimus" not in files and not set(CAPTION_ROLES) <= set(files):
        del parts["optimus"]
        notes.append("optimus: the flows' file repeats it, but its vocabularies were not given: no captions")
    vocabularies = choose_vocabularies(files, "optimus" in parts)
    check_vocabularies(vocabularies, config, expected, parts)
    chosen = _DTYPES[dtype]
    needed = sum(bytes_needed(found.tensors, chosen) for found in parts.values())
    needed += sum(path.stat().st_size for path in vocabularies.values())
    check_disk(target, needed + _SMALL_FILES)
    sources = tuple(
        SourceFile(stamp.role, stamp.name, stamp.size, stamp.modified, hashes.of(stamp.path), origins.get(stamp.role))
        for stamp in stamps
    )
    for note in notes:
        say(f"Note: {note}")

    sweep_abandoned(target)
    records = {part: _record(found, chosen) for part, found in parts.items()}
    written: dict[str, FileRecord] = {}
    with atomic_folder(target) as folder:
        for part in records:
            # Taken out of the dictionary, so that its file is closed as soon as it is written.
            found = parts.pop(part)
            name = f"{part}.safetensors"
            written[name] = write_safetensors(folder / name, found.tensors, chosen, f"Writing {part}")
            del found
        for name, path in vocabularies.items():
            written[name] = _write(folder / name, path.read_bytes())
        written["config.json"] = _write(folder / "config.json", config_json)
        manifest = Manifest(
            unibrain=unibrain.__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config_hash,
            dtype=dtype,
            sources=sources,
            parts=records,
            files=written,
            notes=tuple(notes),
        )
        _write(folder / MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def _write(path: Path, content: bytes) -> FileRecord:
    path.write_bytes(content)
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


def _record(found: Found, dtype: torch.dtype | None) -> PartRecord:
    types = sorted({str(stored_dtype(entry.tensor, dtype)).removeprefix("torch.") for entry in found.tensors.values()})
    return PartRecord(
        source=found.source,
        dtype="+".join(types),
        keys=len(found.tensors),
        parameters=sum(entry.tensor.numel() for entry in found.tensors.values()),
        missing=found.missing,
        unexpected=found.unexpected,
        ignored=found.ignored,
    )

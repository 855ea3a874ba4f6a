"""What a converted backbone was made of: sources, parts, files, and which version of this package made it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from unibrain.errors import InputError
from unibrain.workspace.progress import track

__all__ = [
    "MANIFEST_FILE",
    "ROLES",
    "DtypeChoice",
    "FileRecord",
    "Manifest",
    "Origin",
    "PartRecord",
    "Role",
    "SourceFile",
    "sha256_of",
]

MANIFEST_FILE = "manifest.json"
"""Its name in a backbone folder."""

Role = Literal[
    "flows",
    "autokl",
    "optimus",
    "clip",
    "diffusers",
    "clip-vocab",
    "clip-merges",
    "bert-vocab",
    "gpt2-vocab",
    "gpt2-merges",
]
"""What a published file is for; ``diffusers`` is a folder, everything else a file."""

ROLES: tuple[Role, ...] = get_args(Role)

DtypeChoice = Literal["as-stored", "fp32", "bf16", "fp16"]
"""The precision to write; ``as-stored`` keeps that of the sources."""

_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Origin:
    """Where a source came from.

    Attributes
    ----------
    repository : str
        For example ``openai/clip-vit-large-patch14``.
    revision : str
        The commit.
    """

    repository: str
    revision: str


@dataclass(frozen=True)
class SourceFile:
    """One file that was read.

    Attributes
    ----------
    role : str
        One of `ROLES`.
    name : str
        Its name; below a diffusers folder with the subfolder.
    size : int
        Bytes.
    modified : int
        Time of the last change, nanoseconds since 1970.
    sha256 : str
    origin : Origin, optional
        If known.
    """

    role: str
    name: str
    size: int
    modified: int
    sha256: str
    origin: Origin | None = None


@dataclass(frozen=True)
class FileRecord:
    """One file that was written.

    Attributes
    ----------
    size : int
        Bytes.
    sha256 : str
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class PartRecord:
    """One part of the backbone.

    Attributes
    ----------
    source : str
        Role of the file it came from, and where in it.
    dtype : str
        As PyTorch names it; several are joined by ``+``.
    keys : int
        Tensors written.
    parameters : int
        Numbers written; tied weights count twice.
    missing : tuple of str
        Keys that the sources lack and that follow from others (a tied weight) or from the publication (CLIP's logit
        scale).
    unexpected : tuple of str
        Keys of the sources that belong to no part, and were left out.
    ignored : int
        Number of known keys that are no weights (masks, position ids, the noise schedule), and were left out.
    """

    source: str
    dtype: str
    keys: int
    parameters: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: int = 0


@dataclass(frozen=True)
class Manifest:
    """The contents of ``manifest.json``.

    Attributes
    ----------
    unibrain : str
        Version of this package that converted.
    date : str
        ISO 8601, UTC.
    config : str
        SHA-256 of the configuration that was written.
    dtype : str
        What was asked for, see `DtypeChoice`.
    sources : tuple of SourceFile
    parts : dict of str to PartRecord
    files : dict of str to FileRecord
        Every file of the folder but the manifest itself.
    notes : tuple of str
        What a reader should know about this conversion.
    """

    unibrain: str
    date: str
    config: str
    dtype: str
    sources: tuple[SourceFile, ...]
    parts: dict[str, PartRecord]
    files: dict[str, FileRecord]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a backbone folder.

        Raises
        ------
        InputError
            If it is not there or is no manifest.
        """
        path = folder / MANIFEST_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            files = {name: FileRecord(**entry) for name, entry in content.pop("files").items()}
            # Names from a file become paths later: only plain names are let in.
            if any(not _plain(name) for name in files):
                raise ValueError("a file name leads out of the folder")
            return cls(
                sources=tuple(_source(entry) for entry in content.pop("sources")),
                parts={name: _part(entry) for name, entry in content.pop("parts").items()},
                files=files,
                notes=tuple(content.pop("notes")),
                **content,
            )
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file, expected the manifest of a converted backbone: convert the weights again"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}: not a manifest ({type(error).__name__}: {error}), expected one as written with the weights: "
                "convert the weights again"
            ) from None


def _plain(name: str) -> bool:
    return Path(name).name == name and name not in ("", ".", "..")


def _source(entry: dict[str, Any]) -> SourceFile:
    origin = entry.pop("origin", None)
    return SourceFile(**entry, origin=None if origin is None else Origin(**origin))


def _part(entry: dict[str, Any]) -> PartRecord:
    missing, unexpected = (tuple(entry.pop(key)) for key in ("missing", "unexpected"))
    return PartRecord(missing=missing, unexpected=unexpected, **entry)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's contents, with a progress bar when it is large.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        Hexadecimal.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    chunks = _chunks(path)
    if size > 64 * _MEBIBYTE:
        chunks = track(chunks, f"Checking {path.name[:15]}", total=-(-size // _MEBIBYTE), unit="MiB")
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_MEBIBYTE):
            yield chunk

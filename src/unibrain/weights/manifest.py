"""What a converted backbone was made of, and which backbones are on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unibrain.errors import InputError
from unibrain.workspace.files import is_partial

MANIFEST_FILE = "manifest.json"
"""Its name in a backbone folder."""

_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Origin(_Record):
    """The repository and commit that a source came from; `sha256` is what the hub or the publication says of it."""

    repository: str
    revision: str
    sha256: str | None = None


class SourceFile(_Record):
    """One file that was read; below a diffusers folder its name has the subfolder."""

    role: str
    name: str
    size: int
    sha256: str
    origin: Origin | None = None


class FileRecord(_Record):
    """One file that was written."""

    size: int
    sha256: str


class PartRecord(_Record):
    """One part of the backbone: the file (and the place in it) that it came from, and how large it is."""

    source: str
    dtype: str
    keys: int
    parameters: int


class Manifest(_Record):
    """The contents of ``manifest.json``: `files` is every file of the folder but the manifest itself."""

    unibrain: str
    date: str
    dtype: str
    sources: tuple[SourceFile, ...]
    parts: dict[str, PartRecord]
    # Names from a file become paths: only plain names are let in.
    files: dict[_FileName, FileRecord]
    notes: tuple[str, ...] = ()


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a backbone folder; None if it has none."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: not a manifest of converted weights ({where}: {first['msg']}). Convert the weights again."
        ) from None


def kept_backbones(folders: Sequence[tuple[str, Path]], home: Path) -> list[tuple[str, Path, str]]:
    """What ``--backbone`` takes, the folder, and what is to be said about it: of `folders`, and all in `home`."""
    inside = sorted(home.iterdir()) if home.is_dir() else []
    named = [*folders, *((path.name, path) for path in inside if not is_partial(path))]
    return [(name, folder, _about(folder)) for name, folder in named if (folder / "config.json").is_file()]


def _about(folder: Path) -> str:
    try:
        manifest = read_manifest(folder)
    except InputError:
        return "its manifest is damaged: convert it again"
    if manifest is None:
        return "not converted from published weights (no manifest)"
    precisions = "/".join(sorted({part.dtype for part in manifest.parts.values()}))
    kinds = "pictures and captions" if "optimus" in manifest.parts else "pictures only"
    origins = sorted({source.origin.repository for source in manifest.sources if source.origin is not None})
    made = f"converted {manifest.date[:10]} by unibrain {manifest.unibrain}"
    return f"{precisions}; {kinds}; from {', '.join(origins) or 'files'}; {made}"

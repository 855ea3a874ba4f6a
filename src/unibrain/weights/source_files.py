"""The files that a conversion reads, and whether a folder was made from the very same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.diffusers_folder import check_folder, component_files
from unibrain.weights.manifest import ROLES, Manifest, Role, sha256_of

__all__ = ["Hashes", "Stamp", "list_sources", "same_sources"]

_COMPONENTS = {"flows": ("image_unet", "text_unet"), "autokl": ("vae",), "clip": ("text_encoder", "image_encoder")}


@dataclass(frozen=True)
class Stamp:
    """One source as the file system shows it.

    Attributes
    ----------
    role : str
    path : Path
    name : str
        As in the manifest.
    size : int
        Bytes.
    modified : int
        Nanoseconds since 1970.
    """

    role: Role
    path: Path
    name: str
    size: int
    modified: int


class Hashes:
    """SHA-256 of files, each computed once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Hexadecimal SHA-256 of a file."""
        if path not in self._known:
            self._known[path] = sha256_of(path)
        return self._known[path]


def list_sources(files: Mapping[Role, Path]) -> tuple[Stamp, ...]:
    """List every file that will be read, in a fixed order.

    Parameters
    ----------
    files : mapping of str to Path
        See `unibrain.weights.convert.convert`.

    Returns
    -------
    tuple of Stamp

    Raises
    ------
    InputError
        If a role is unknown or a file is not there, or none is given.
    """
    for role in files:
        if role not in ROLES:
            raise InputError(f"role {role!r} is not known, expected one of {', '.join(ROLES)}")
    if not files:
        raise InputError("no files were given, expected the published weights: give at least the flows")
    stamps = []
    for role in ROLES:
        if role in files and role != "diffusers":
            stamps.append(_stamp(role, files[role], files[role].name))
    if "diffusers" in files:
        folder = files["diffusers"]
        check_folder(folder)
        wanted = [name for part, names in _COMPONENTS.items() if part not in files for name in names]
        for component in wanted:
            for path in component_files(folder, component):
                stamps.append(_stamp("diffusers", path, f"{component}/{path.name}"))
    return tuple(stamps)


def _stamp(role: Role, path: Path, name: str) -> Stamp:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}, expected the file to use as {role}: check the path")
    status = path.stat()
    return Stamp(role, path, name, status.st_size, status.st_mtime_ns)


def same_sources(manifest: Manifest, stamps: Sequence[Stamp], hashes: Hashes) -> bool:
    """Whether a backbone was made from these files.

    A file of the same name, size and time of change is taken for the same; one that only has the same size is hashed.

    Parameters
    ----------
    manifest : Manifest
        Of the backbone.
    stamps : sequence of Stamp
    hashes : Hashes
        Receives what had to be computed.
    """
    known = {(source.role, source.name): source for source in manifest.sources}
    pairs = [(stamp, known.get((stamp.role, stamp.name))) for stamp in stamps]
    if len(known) != len(stamps) or any(source is None or source.size != stamp.size for stamp, source in pairs):
        return False
    return all(
        source is not None and (source.modified == stamp.modified or source.sha256 == hashes.of(stamp.path))
        for stamp, source in pairs
    )

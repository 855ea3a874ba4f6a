"""Which backbones are on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.manifest import MANIFEST_FILE, Manifest
from unibrain.workspace.files import is_partial

__all__ = ["Kept", "kept_backbones", "listing_table"]


@dataclass(frozen=True)
class Kept:
    """A backbone on disk.

    Attributes
    ----------
    name : str
        What ``--backbone`` takes.
    folder : Path
    size : int
        Bytes of its files.
    about : str
        Precision, what it lacks, where it came from; or what is wrong.
    """

    name: str
    folder: Path
    size: int
    about: str


def _about(folder: Path) -> str:
    if not (folder / MANIFEST_FILE).is_file():
        return "not converted from published weights (no manifest)"
    try:
        manifest = Manifest.read(folder)
    except InputError:
        return "its manifest is damaged: convert it again"
    precisions = sorted({part.dtype for part in manifest.parts.values()})
    origins = sorted({source.origin.repository for source in manifest.sources if source.origin is not None})
    words = ["/".join(precisions), "pictures and captions" if "optimus" in manifest.parts else "pictures only"]
    words.append("from " + ", ".join(origins) if origins else "from files")
    return f"{'; '.join(words)}; converted {manifest.date[:10]} by unibrain {manifest.unibrain}"


def kept_backbones(folders: Sequence[tuple[str, Path]], home: Path) -> list[Kept]:
    """Look at the named folders, and at every backbone in `home`.

    Parameters
    ----------
    folders : sequence of (str, Path)
        Backbones that are elsewhere, by name.
    home : Path
        Where converted backbones are kept; it need not exist.

    Returns
    -------
    list of Kept
        Those that are there.
    """
    inside = sorted(home.iterdir()) if home.is_dir() else []
    named = [*folders, *((path.name, path) for path in inside if not is_partial(path))]
    return [
        Kept(name, folder, sum(file.stat().st_size for file in folder.iterdir() if file.is_file()), _about(folder))
        for name, folder in named
        if (folder / "config.json").is_file()
    ]


def listing_table(kept: Sequence[Kept]) -> str:
    """Lay the backbones out, one line each and one for its folder."""
    width = max((len(one.name) for one in kept), default=0)
    lines = []
    for one in kept:
        lines.append(f"{one.name:<{width}}  {one.size / 1e9:6.2f} GB  {one.about}")
        lines.append(f"{'':<{width}}  {one.folder}")
    return "\n".join(lines)

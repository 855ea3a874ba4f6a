"""The folder that a conversion writes to: what is there, whether it may be replaced, and whether it will fit."""

import shutil
import time
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.manifest import MANIFEST_FILE, Manifest
from unibrain.workspace.files import is_partial

__all__ = ["check_disk", "existing_manifest", "is_intact", "sweep_abandoned"]

_ABANDONED = 3600  # seconds without a write, after which an unfinished folder has no writer any more


def existing_manifest(target: Path) -> Manifest | None:
    """Read the manifest of what is at the target.

    Returns
    -------
    Manifest or None
        None if the place is free.

    Raises
    ------
    InputError
        If something else is there, which a conversion never replaces.
    """
    if target.is_dir() and (target / MANIFEST_FILE).is_file():
        return Manifest.read(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        found = "a folder without manifest.json" if target.is_dir() else "a file"
        raise InputError(
            f"{target}: is {found}, expected a free place or a converted backbone: give another folder or remove it"
        )
    return None


def is_intact(target: Path, manifest: Manifest) -> bool:
    """Whether every file of the manifest is there with its size; contents are not read."""
    paths = {target / name: record.size for name, record in manifest.files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def check_disk(target: Path, needed: int) -> None:
    """Compare what will be written with what is free.

    Parameters
    ----------
    target : Path
    needed : int
        Bytes.

    Raises
    ------
    InputError
        If it will not fit.
    """
    place = target.absolute()
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{target}: {free / 1e9:.2f} GB are free there, expected {needed / 1e9:.2f} GB for the converted weights: "
            "free some space, or choose another folder"
        )


def sweep_abandoned(target: Path) -> list[Path]:
    """Remove what killed conversions to the same target left beside it.

    Returns
    -------
    list of Path
        What was removed: unfinished folders in which nobody has written for an hour.
    """
    removed = []
    for path in target.parent.glob(f".{target.name}.*") if target.parent.is_dir() else ():
        if is_partial(path) and path.is_dir():
            latest = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
            if time.time() - latest > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed

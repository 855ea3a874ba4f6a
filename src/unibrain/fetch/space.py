"""Whether there is room on the disk."""

import shutil
from pathlib import Path

from unibrain.errors import InputError
from unibrain.fetch.shown import readable_bytes

__all__ = ["check_space", "free_bytes"]


def free_bytes(folder: Path) -> int:
    """Bytes free for `folder`, which need not be there yet."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises
    ------
    InputError
        If there is less room than `needed` bytes.
    """
    free = free_bytes(folder)
    if free < needed:
        raise InputError(
            f"{folder}: found {readable_bytes(free)} free on the disk, expected {readable_bytes(needed)}: free some "
            "space, choose another folder with --to, or fetch less"
        )

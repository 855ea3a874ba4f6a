"""How much space a disk has, in words and as a check before something large is written."""

import shutil
from pathlib import Path

from unibrain.errors import InputError


def readable_bytes(count: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> readable_bytes(39_556_875_000), readable_bytes(512)
    ('39.6 GB', '512 B')
    """
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def existing_folder(path: Path) -> Path:
    """The nearest folder above `path` (or it itself) that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def free_bytes(path: Path) -> int:
    """Bytes free on the disk of `path`, which need not be there yet."""
    return shutil.disk_usage(existing_folder(path)).free


def require_space(path: Path, needed: int, remedy: str = "Free some space, or choose another folder.") -> None:
    """Refuse to begin what cannot be finished."""
    free = free_bytes(path)
    if free < needed:
        raise InputError(f"{path}: {readable_bytes(needed)} are needed, but {readable_bytes(free)} free. {remedy}")

"""Files and folders that appear whole or not at all, also after a power cut: written beside, then renamed.

And the space on a disk, in words and as a check before something large is written.
"""

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unibrain.errors import DamagedFileError, InputError

_PARTIAL = re.compile(r"^\..+\.\d+-[0-9a-f]{8}\.partial(\.|$)")


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because writers such as numpy, nibabel and Pillow choose their format by it.
    suffix = "".join(path.suffixes[-2:])
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial{suffix}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # h5py and safetensors pass the system's words on, but not its number.
    return isinstance(error, Exception) and any(
        words in str(error) for words in ("No space left on device", "Disk quota exceeded")
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders; a full disk is told here at the latest.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _settle(path: Path) -> None:
    """Give what was written the usual mode, and bring it to the disk: a rename may get there before the content."""
    # There is no way to ask for the umask but to set it; the strict one in between harms nobody.
    umask = os.umask(0o077)
    os.umask(umask)
    if path.is_file():
        path.chmod(0o666 & ~umask)  # some writers, safetensors among them, make files that only their owner can read
        _sync(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o666 & ~umask)
                _sync(file)
        _sync(Path(folder))


@contextmanager
def _cleaned(temporary: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            _remove(temporary)
        if _disk_is_full(error) and not isinstance(error, InputError):
            raise InputError(
                f"{path}: no space left on the disk. What was there before is unchanged; free some space and run again."
            ) from error
        raise


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; rename it to the target when the block ends without an error.

    The content reaches the disk before the name does, and the name before this returns: after a power cut there is the
    old file or the new one, whole.

    Parameters
    ----------
    path : path-like
        The file to write. Its folder is made if it is not there.

    Yields
    ------
    pathlib.Path
        Where to write. It has the target's suffix.

    Raises
    ------
    InputError
        If the disk is full. The target is as it was before.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    temporary = _beside(target)
    with _cleaned(temporary, target):
        yield temporary
        _settle(temporary)
        temporary.replace(target)
        _sync(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside the target; swap it in for the target when the block ends without an error.

    What the target held is replaced as a whole. If the disk is full, it is as it was, and `InputError` says so.
    """
    target = Path(path)
    temporary = _beside(target)
    temporary.mkdir(parents=True)
    with _cleaned(temporary, target):
        yield temporary
        _settle(temporary)
        old = _beside(target)
        try:
            if target.exists():
                target.replace(old)
            temporary.replace(target)
        except BaseException:
            # Two renames are not one: if only the first was done, what was there comes back.
            if old.exists() and not target.exists():
                old.replace(target)
            raise
        _sync(target.parent)
        _remove(old)


def is_partial(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is named as an unfinished write of this module."""
    return _PARTIAL.match(Path(path).name) is not None


def sweep_partials(folder: str | os.PathLike[str], leave: Collection[str] = ()) -> list[Path]:
    """Remove what killed writers left in `folder` and below it, and return it; nobody may be writing there.

    Folders whose names are in `leave` are not looked into.
    """
    left = []
    for place, subfolders, names in os.walk(folder):
        left += [Path(place, name) for name in (*subfolders, *names) if is_partial(name)]
        subfolders[:] = [name for name in subfolders if not is_partial(name) and name not in leave]
    for path in left:
        _remove(path)
    return left


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` to `path` as UTF-8, atomically (see `atomic_path`)."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` to `path` as indented JSON, atomically; NaN and infinity are refused with `ValueError`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file that this package wrote.

    Raises
    ------
    DamagedFileError
        If it is no JSON, or nested beyond any use. Whether it holds what it should is the caller's question.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:160]
        raise DamagedFileError(
            Path(path), f"{path}: this is no whole JSON file ({reason}). Run the stage that wrote it again."
        ) from None


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

"""A lock on a folder: one run at a time, and none left behind by a run that died."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unibrain.errors import InputError

__all__ = ["folder_lock"]


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(about['pid'])} on {about['host']}, `{about['command']}`"
    except (ValueError, KeyError, TypeError):
        return "its process could not be read"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for the length of a block.

    The operating system holds the lock for as long as the process lives, so a run that was killed leaves none; the file
    `.lock` only says who holds it.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder.

    Raises
    ------
    InputError
        If another run holds the lock, or the file system knows no locks.
    """
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another run is working in this folder ({_holder(descriptor)}), expected one at a time: "
                "wait until it ends, or choose another folder"
            ) from None
        except OSError as error:
            raise InputError(
                f"{path}: the file system cannot lock files ({error.strerror}), expected one that can: "
                "choose a folder on a local disk"
            ) from error
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        about = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": command}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, about, 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)

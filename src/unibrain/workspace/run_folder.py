"""`RunFolder`: where one run keeps its files."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unibrain.errors import InputError
from unibrain.workspace.files import sweep_partials

ARTEFACTS = {
    "nsd": ("nsd", "simulate"),
    "subject": ("subject.npz", "prepare"),
    "split": ("split.json", "prepare"),
    "stimuli": ("stimuli", "prepare"),
    "latents": ("latents", "extract"),
    "decoder": ("decoder", "fit"),
    "predicted": ("predicted", "reconstruct"),
    "decoded": ("decoded", "reconstruct"),
    "scores": ("scores.json", "evaluate"),
    "report": ("report.html", "report"),
    "audit": ("audit.json", "audit"),
}
"""Artefact to its path in the run folder and the stage that writes it."""

_OURS = {".lock", ".stages", ".cache", "settings.toml"}


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


class RunFolder:
    """The named artefacts of one run, and its lock.

    Parameters
    ----------
    root : path-like
        The folder. It is made when it is first locked.

    Attributes
    ----------
    root : pathlib.Path
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._depth = 0

    def __repr__(self) -> str:
        return f"RunFolder({str(self.root)!r})"

    def artefact(self, name: str) -> Path:
        """Path of an artefact, one of `ARTEFACTS`."""
        return self.root / ARTEFACTS[name][0]

    @property
    def settings(self) -> Path:
        """The settings file, ``settings.toml``."""
        return self.root / "settings.toml"

    def record(self, stage: str) -> Path:
        """What `stage` did last: ``.stages/<stage>.json``."""
        return self.root / ".stages" / f"{stage}.json"

    def cache(self, stage: str) -> Path:
        """Where `stage` keeps what lets it resume in the middle; removed when it has ended."""
        return self.root / ".cache" / stage

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Work in this folder alone; a block inside a block is part of the outer one.

        What a killed run left half-written is removed first.

        Raises
        ------
        InputError
            If another run works there, if the path is a file, or if the folder holds other things than a run.
        """
        if self._depth == 0:
            self._make()
            with folder_lock(self.root):
                sweep_partials(self.root)
                (self.root / ".stages").mkdir(exist_ok=True)
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0
        else:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def _make(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file, expected a folder for the run: choose another path")
        self.root.mkdir(parents=True, exist_ok=True)
        if (self.root / ".stages").is_dir():
            return
        # Stages replace whole folders: in a folder that is not ours, someone's own nsd/ would be lost.
        foreign = sorted(entry.name for entry in self.root.iterdir() if entry.name not in _OURS)
        if foreign:
            raise InputError(
                f"{self.root} holds other files ({foreign[0]}), expected an empty folder or that of an earlier run: "
                "choose another path"
            )

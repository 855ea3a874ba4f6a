"""`RunFolder`: where one run keeps its files, and its lock."""

import errno
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
    "nsd": "nsd",
    "subject": "subject.npz",
    "split": "split.json",
    "stimuli": "stimuli",
    "latents": "latents",
    "decoder": "decoder",
    "predicted": "predicted",
    "decoded": "decoded",
    "controls": "controls",
    "scores": "scores.json",
    "report": "report.html",
    "audit": "audit.json",
}
"""Artefact to its path in the run folder."""

JOBS = "jobs.json"
"""File, somewhere in the cache of a run, that names the jobs of a cluster that work for it."""

_OURS = {".lock", ".lock-held", ".stages", ".cache", "settings.toml"}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def holder(folder: Path) -> str:
    """Who says to hold the lock of a folder, such as ``"process 7 on host"``; empty for nobody, or one killed here."""
    try:
        about = json.loads((folder / ".lock").read_bytes())
        if about["host"] == socket.gethostname() and not _lives(int(about["pid"])):
            return ""
        return f"process {int(about['pid'])} on {about['host']}, `{about['command']}`"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    try:
        process, host = (folder / ".lock-held").read_text(encoding="utf-8").split("\n")[:2]
        return f"process {int(process)} on {host}"
    except (OSError, ValueError):
        return ""


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder for the length of a block, or refuse if another run holds it.

    The operating system holds it for as long as the process lives, so that a run that was killed leaves none; the file
    `.lock` says who holds it. Where the file system has no such locks (Lustre and NFS, as they may be set up), a file
    `.lock-held` stands for it, which a run that was killed on another machine leaves.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    lock: FileLock | SoftFileLock = FileLock(folder / ".lock", fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(folder / ".lock-held")
            lock.acquire(timeout=0)
    except Timeout:
        who = holder(folder) or "its process could not be read"
        raise InputError(
            f"{folder}: another run is working in this folder ({who}). Wait until it ends, or choose another folder."
        ) from None
    try:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        about = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
        (folder / ".lock").write_text(json.dumps(about))
        try:
            yield
        finally:
            (folder / ".lock").write_text("")
    finally:
        lock.release()


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

    @property
    def begun(self) -> bool:
        """Whether some stage has run here."""
        return (self.root / ".stages").is_dir()

    def artefact(self, name: str) -> Path:
        """Path of an artefact, one of `ARTEFACTS`."""
        return self.root / ARTEFACTS[name]

    @property
    def settings(self) -> Path:
        """The settings file, ``settings.toml``."""
        return self.root / "settings.toml"

    @property
    def experiments(self) -> Path:
        """The folder of what experiments found, one folder for each."""
        return self.root / "experiments"

    def record(self, stage: str) -> Path:
        """What `stage` did last: ``.stages/<stage>.json``."""
        return self.root / ".stages" / f"{stage}.json"

    def cache(self, stage: str) -> Path:
        """Where `stage` keeps what lets it resume in the middle; removed when it has ended."""
        return self.root / ".cache" / stage

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Work in this folder alone; a block inside a block is part of the outer one.

        What a killed run left half-written is removed first. A folder that is made for this, and in which nothing was
        done when an error ends the block, is removed again.

        Raises
        ------
        InputError
            If another run works there, if the path is a file, or if the folder holds other things than a run.
        """
        if self._depth:
            yield
            return
        new = self._make()
        try:
            with folder_lock(self.root):
                # Jobs of a cluster outlive the client that submitted them, and may be writing results there.
                at_work = any((self.root / ".cache").glob(f"**/{JOBS}"))
                sweep_partials(self.root, leave=(".cache",) if at_work else ())
                (self.root / ".stages").mkdir(exist_ok=True)
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0
        except InputError:
            if new:
                self._unmake()
            raise

    def _make(self) -> bool:
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file. Choose another path for the folder of the run.")
        new = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        if not self.begun:
            # Stages replace whole folders: in a folder that is not ours, someone's own nsd/ would be lost.
            foreign = sorted(entry.name for entry in self.root.iterdir() if entry.name not in _OURS)
            if foreign:
                raise InputError(f"{self.root} holds other files ({foreign[0]}). Choose an empty folder, or a new one.")
        return new

    def _unmake(self) -> None:
        if {entry.name for entry in self.root.iterdir()} <= _OURS - {".cache"}:
            for path in (*(self.root / ".stages").iterdir(), self.settings, self.root / ".lock"):
                path.unlink(missing_ok=True)
            (self.root / ".stages").rmdir()
            self.root.rmdir()

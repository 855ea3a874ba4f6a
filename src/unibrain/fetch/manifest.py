"""What was fetched into a folder: from where, how large, how it was checked, and when."""

import json
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unibrain.fetch.bucket import RemoteFile
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import say

__all__ = ["MANIFEST_FILE", "FetchManifest", "FetchRecord"]

MANIFEST_FILE = "fetch-manifest.json"
"""Name of the manifest in the folder that was fetched into."""


@dataclass(frozen=True)
class FetchRecord:
    """One file.

    Attributes
    ----------
    url : str
    size : int
        Bytes.
    etag : str
        Entity tag of the server.
    verified : str
        How it was checked.
    date : str
        When, ISO 8601, UTC.
    modified_ns : int
        Time of the file's last change on this disk: a changed file is checked anew.
    """

    url: str
    size: int
    etag: str
    verified: str
    date: str
    modified_ns: int


class FetchManifest:
    """The manifest of one folder, written anew after every file; safe in several threads.

    Parameters
    ----------
    root : pathlib.Path
        A manifest that cannot be read counts as empty, with a message: files are then checked again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / MANIFEST_FILE
        self._lock = threading.Lock()
        self._records: dict[str, FetchRecord] = {}
        if self.path.is_file():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self._records = {str(name): FetchRecord(**entry) for name, entry in content["files"].items()}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                say(f"{self.path} cannot be read; the files that are there are checked again")

    def record(self, path: Path, remote: RemoteFile, verified: str) -> None:
        """Note a file that is whole.

        Parameters
        ----------
        path : pathlib.Path
            In the manifest's folder.
        remote : RemoteFile
        verified : str
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = FetchRecord(remote.url, remote.size, remote.etag, verified, now, path.stat().st_mtime_ns)
        with self._lock:
            self._records[self._name(path)] = entry
            files = {name: asdict(self._records[name]) for name in sorted(self._records)}
            content: dict[str, Any] = {"about": "Files fetched by `unibrain nsd`.", "files": files}
            write_json(self.path, content)

    def knows(self, path: Path, remote: RemoteFile) -> bool:
        """Whether a file was fetched and checked, and is unchanged here and on the server."""
        entry = self.entry(path)
        if entry is None or not path.is_file():
            return False
        stat = path.stat()
        same_here = (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.modified_ns)
        return same_here and (entry.size, entry.etag) == (remote.size, remote.etag)

    def entry(self, path: Path) -> FetchRecord | None:
        """What is noted about a file."""
        return self._records.get(self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

"""One progress bar in bytes for files that are downloaded in several threads."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Bytes", "byte_bar"]


class Bytes:
    """Counts bytes and files; to be used in a `byte_bar`."""

    def __init__(self, bar: Any, files: int) -> None:
        self._bar = bar
        self._files = files
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that came, or take back (a negative number) those that have to come again."""
        with self._lock:
            self._bar.update(count)

    def file_done(self) -> None:
        """Count a file that is whole."""
        with self._lock:
            self._done += 1
            self._bar.set_postfix_str(f"{self._done}/{self._files} files", refresh=False)


@contextmanager
def byte_bar(description: str, total: int, files: int) -> Iterator[Bytes]:
    """Draw a bar on standard error.

    Parameters
    ----------
    description : str
    total : int
        Bytes.
    files : int

    Yields
    ------
    Bytes
    """
    from tqdm import tqdm

    with tqdm(
        desc=f"{description:<24}",
        total=total,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.5,
    ) as bar:
        yield Bytes(bar, files)

"""Getting one file: continued where it was cut, also by a later command, and checked before it gets its name."""

import errno
import hashlib
import re
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain.errors import InputError
from unibrain.fetch.bucket import RemoteFile, head
from unibrain.fetch.etag import DamagedError, verify
from unibrain.fetch.web import RemoteError, Web

if TYPE_CHECKING:
    from requests import Response

__all__ = ["download", "kept_bytes", "partial_path"]

_PLAIN_ETAG = re.compile(r"[0-9A-Za-z-]{1,80}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_FULL = (errno.ENOSPC, errno.EDQUOT)
# So much must come between two cuts for the first not to count any more.
_PROGRESS = 2**23
_CHANGES = 2


class _ChangedError(Exception):
    """The file on the server is no longer the one that was asked for."""


def partial_path(target: Path, etag: str) -> Path:
    """Where the beginning of a file is kept: beside it, under a name that ends when the file on the server changes."""
    tag = etag if _PLAIN_ETAG.fullmatch(etag) else hashlib.sha256(etag.encode()).hexdigest()
    return target.with_name(f"{target.name}.{tag}.partial")


def kept_bytes(target: Path, remote: RemoteFile) -> int:
    """How much of a file an earlier download left."""
    partial = partial_path(target, remote.etag)
    return min(partial.stat().st_size, remote.size) if partial.is_file() else 0


def download(
    web: Web, remote: RemoteFile, target: Path, add: Callable[[int], None] = lambda count: None
) -> tuple[RemoteFile, str]:
    """Download a file, check it, and only then give it its name.

    Parameters
    ----------
    web : Web
    remote : RemoteFile
        As it was listed.
    target : pathlib.Path
        Replaced if it is there.
    add : callable
        Told how many bytes came; a negative number takes back what has to come again.

    Returns
    -------
    remote : RemoteFile
        As it is now: another one than was asked for if it has changed in between.
    verified : str
        See `unibrain.fetch.etag.verify`.

    Raises
    ------
    RemoteError
        If the server refuses, or the connection was cut too often; what came is kept.
    DamagedError
        If what came is not what the server says it is; it is removed.
    InputError
        If the disk is full (what came is kept), or the file changes all the time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_CHANGES):
        partial = partial_path(target, remote.etag)
        try:
            _collect(web, remote, partial, add)
        except _ChangedError:
            add(-kept_bytes(target, remote))
            partial.unlink(missing_ok=True)
            remote = head(web, remote.url)
            continue
        try:
            verified = verify(web, partial, remote)
        except DamagedError:
            partial.unlink()
            raise
        partial.replace(target)
        for other in target.parent.glob(f"{_literal(target.name)}.*.partial"):
            other.unlink()
        return remote, verified
    raise InputError(
        f"{remote.url}: changed on the server again while it was downloaded, expected a file that stays: "
        "run the same command again later"
    )


def _literal(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _collect(web: Web, remote: RemoteFile, partial: Path, add: Callable[[int], None]) -> None:
    """Append to `partial` until it is as long as the file."""
    failures, since = 0, 0
    with partial.open("ab", buffering=0) as file:
        while (have := file.tell()) != remote.size:
            if have > remote.size:
                file.truncate(0)
                file.seek(0)
                continue
            try:
                _append(web, remote, file, add)
                if file.tell() == remote.size:
                    return
                cut = RemoteError(
                    f"{remote.url}: the connection ended at {file.tell():,} of {remote.size:,} bytes: check the "
                    "network and run the same command again, it continues where it was",
                    temporary=True,
                )
            except RemoteError as error:
                if error.status in (412, 416):
                    raise _ChangedError from error
                if not error.temporary:
                    raise
                cut = error
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise InputError(
                    f"{partial}: no space left on the disk, what came of {remote.size:,} bytes is kept: "
                    "free some space and run the same command again, it continues where it was"
                ) from error
            since += max(0, file.tell() - have)
            failures, since = (1, 0) if since >= _PROGRESS else (failures + 1, since)
            if failures >= web.tries:
                raise RemoteError(f"{cut} ({failures} tries)", cut.status, temporary=True) from cut
            web.wait(failures)


def _append(web: Web, remote: RemoteFile, file: FileIO, add: Callable[[int], None]) -> None:
    have = file.tell()
    headers = {"If-Match": f'"{remote.etag}"'}
    if have:
        headers["Range"] = f"bytes={have}-"
    with web.ask("GET", remote.url, headers) as response:
        start = _start(response, remote, have)
        if start != have:
            # The server does not know ranges and sends the whole file.
            file.truncate(0)
            file.seek(0)
            add(-have)
        for block in web.blocks(response):
            if file.tell() + len(block) > remote.size:
                raise _ChangedError
            _write(file, block)
            add(len(block))


def _write(file: FileIO, block: bytes) -> None:
    # Unbuffered: a full disk shows here and not when the file is closed; such a file may take a part of a block.
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _start(response: "Response", remote: RemoteFile, have: int) -> int:
    """From which byte on the server sends, after checks that it sends the right file."""
    etag = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    if etag and etag != remote.etag:
        raise _ChangedError
    if response.status_code == 206:
        stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != have:
            raise RemoteError(
                f"{remote.url}: found an answer for other bytes than those from {have:,} on, expected these: "
                "check whether a proxy stands between"
            )
        total = stated[3]
    else:
        total, have = response.headers.get("Content-Length", "*"), 0
    if total.isdigit() and int(total) != remote.size:
        raise _ChangedError
    return have

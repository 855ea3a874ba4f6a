"""Getting one file into the hub's cache: continued where it was cut, also by another process, checked by its hash.

The hub's own library continues a cut download only within one process; it throws away what an ended process had, which
is gigabytes here. So the bytes are collected here, by the library's own transfer function, in the cache's folder of
contents; the library then finds the content in place and only links it into its snapshot. This goes over plain HTTP,
which the hub serves for everything, also for what it keeps in its newer store (Xet).
"""

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unibrain.errors import InputError
from unibrain.weights.hub import Hub, RemoteFile, is_temporary, status_of

__all__ = ["check_content", "content_hash", "download"]

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def content_hash(path: Path, like: str) -> str | None:
    """Hash a file in the way that an entity tag of the hub does.

    Parameters
    ----------
    path : Path
    like : str
        An entity tag: 64 digits are the SHA-256 of the content (large files), 40 digits git's SHA-1 of it.

    Returns
    -------
    str or None
        None if the tag is of neither form.
    """
    if _SHA256.fullmatch(like):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if _SHA1.fullmatch(like):
        # Git hashes "blob", the length and a zero byte before the content; some mirrors hash the content alone.
        git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        plain = hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(2**20):
                git.update(block)
                plain.update(block)
        return like if plain.hexdigest() == like else git.hexdigest()
    return None


def check_content(path: Path, sha256: str | None) -> None:
    """Check a file of the cache against its published hash and against the hash that the cache files it under.

    Raises
    ------
    InputError
        If the content is another one.
    """
    for expected in dict.fromkeys((sha256, path.resolve().name)):
        found = None if expected is None else content_hash(path, expected)
        if found not in (None, expected):
            raise InputError(
                f"{path.resolve()}: its content has the hash {found}, expected {expected}, so it is damaged or another "
                "file: delete it and run again"
            )


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    partial.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{partial}: another process is downloading this file, expected one at a time: wait until it ends"
            ) from None
        except OSError:
            # Some cluster file systems know no locks; two fetches at once are then the user's to avoid.
            pass
        yield
    finally:
        os.close(descriptor)


def _damaged(hub: Hub, about: str, found: str, expected: str) -> InputError:
    return InputError(
        f"{about}: the hub at {hub.address} sent {found}, expected {expected}: run again; if it stays so, try another "
        "HF_ENDPOINT or --repository"
    )


def _append(hub: Hub, url: str, partial: Path, size: int, name: str) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not marked so

    # Compressed answers cannot be continued at a byte of the file.
    headers = {**build_hf_headers(token=hub.token), "Accept-Encoding": "identity"}
    with partial.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=partial.stat().st_size,
            headers=headers,
            expected_size=size,
            displayed_filename=name,
        )


def _collect(hub: Hub, url: str, partial: Path, size: int, about: str) -> None:
    failures = restarts = 0
    while (before := partial.stat().st_size) != size:
        if before > size:
            os.truncate(partial, 0)
            continue
        try:
            _append(hub, url, partial, size, Path(about).name)
        except Exception as error:
            have = partial.stat().st_size
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{partial}: no space left on the disk, {have:,} of {size:,} bytes are kept: free some space, or "
                    "set HF_HOME to a larger disk, and run again"
                ) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            if is_temporary(error):
                failures = 1 if have > before else failures + 1
                if failures >= hub.tries:
                    raise hub.explained(error, f"{about} ({have:,} of {size:,} bytes are kept)") from error
                time.sleep(hub.pause * 2 ** (failures - 1))
            elif status_of(error) in (None, 416) and isinstance(error, OSError):
                # The server ended the file at another length, or it has nothing from here on. What is here may be of
                # another file; beginning again once settles whose fault it is.
                restarts += 1
                os.truncate(partial, 0)
                if restarts > 1:
                    raise _damaged(hub, about, f"{have:,} bytes", f"{size:,}") from error
            else:
                raise hub.explained(error, about) from error


def download(hub: Hub, repository: str, commit: str, file: RemoteFile, sha256: str | None = None) -> Path:
    """Get one file, unless the cache has it.

    Parameters
    ----------
    hub : Hub
    repository, commit : str
    file : RemoteFile
        As listed for this commit.
    sha256 : str, optional
        What its content must be, where that is known from elsewhere.

    Returns
    -------
    Path
        In the cache.

    Raises
    ------
    InputError
        If the hub refuses or cannot be reached, the disk is full, or what came is of another length or content. What
        came is kept if it can be continued, and thrown away if it is wrong.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    held = hub.cached(repository, file.path, commit)
    if held is not None:
        return held
    about = f"{repository}/{file.path}"
    url = hf_hub_url(repository, file.path, revision=commit, endpoint=hub.endpoint)
    metadata = hub.patiently(lambda: get_hf_file_metadata(url, token=hub.token, endpoint=hub.endpoint), about)
    if metadata.etag is None or not re.fullmatch(r"[\w.-]+", metadata.etag):
        raise InputError(
            f"{about}: the hub at {hub.address} names no usable entity tag ({metadata.etag!r}), expected a hash: check "
            "HF_ENDPOINT"
        )
    size = file.size
    if metadata.size is not None and metadata.size != size:
        raise _damaged(hub, about, f"a file of {metadata.size:,} bytes", f"{size:,} as listed")
    blobs = hub.cache_folder / f"models--{repository.replace('/', '--')}" / "blobs"
    content = blobs / metadata.etag
    if not content.exists():
        partial = blobs / f"{metadata.etag}.incomplete"
        with _alone(partial):
            _collect(hub, url, partial, size, about)
            for expected in dict.fromkeys((sha256, file.sha256, metadata.etag)):
                found = None if expected is None else content_hash(partial, expected)
                if found not in (None, expected):
                    os.truncate(partial, 0)
                    raise _damaged(hub, about, f"content with the hash {found}", str(expected))
            partial.replace(content)
    return Path(
        hub.patiently(
            lambda: hf_hub_download(
                repository,
                file.path,
                revision=commit,
                cache_dir=hub.cache_folder,
                endpoint=hub.endpoint,
                token=hub.token,
            ),
            about,
        )
    )

"""A public S3 bucket: what it holds, and getting files out of it, without credentials."""

import errno
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedWriter
from pathlib import Path

from unibrain.errors import InputError

_BLOCK = 2**13
_TRIES = 5  # in a row, without a byte in between
_ETAG = re.compile(r"[0-9a-f]{32}(?:-([1-9][0-9]{0,4}))?")


class StoppedError(Exception):
    """The download was stopped because another one failed, or the user stopped the command."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in a bucket. Its entity tag is the MD5 of the content, or made of the MD5s of the parts it came in."""

    key: str
    size: int
    etag: str


def partial_path(target: Path, etag: str) -> Path:
    """Where the beginning of a file is kept: beside it, under a name that ends when the file in the bucket changes."""
    return target.with_name(f"{target.name}.{re.sub('[^0-9A-Za-z-]', '', etag)[:80]}.partial")


def kept_bytes(target: Path, remote: RemoteFile) -> int:
    """How much of a file an earlier download left."""
    partial = partial_path(target, remote.etag)
    return min(partial.stat().st_size, remote.size) if partial.is_file() else 0


def entity_tag(path: Path, part_size: int | None) -> str:
    """Compute S3's entity tag of a file that was uploaded at once (None), or in parts of so many bytes.

    The tag of one that was uploaded in N parts is the MD5 of the parts' MD5s, followed by ``-N``.
    """
    md5 = partial(hashlib.md5, usedforsecurity=False)
    with path.open("rb") as file:
        if part_size is None:
            return hashlib.file_digest(file, md5).hexdigest()
        parts: list[bytes] = []
        for start in range(0, path.stat().st_size or 1, part_size):
            part = md5()
            while block := file.read(min(2**20, start + part_size - file.tell())):
                part.update(block)
            parts.append(part.digest())
    return f"{md5(b''.join(parts)).hexdigest()}-{len(parts)}"


class Bucket:
    """A bucket that anybody may read, at Amazon or another `endpoint` (a mirror); proxies are the environment's."""

    def __init__(self, name: str, region: str, endpoint: str | None = None) -> None:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        self.name = name
        self.address = f"{(endpoint or f'https://s3.{region}.amazonaws.com').rstrip('/')}/{name}"
        config = Config(
            signature_version=UNSIGNED,
            connect_timeout=20,
            read_timeout=20,
            max_pool_connections=32,
            retries={"mode": "standard", "total_max_attempts": 4},
        )
        with self._asking(self.address):
            self._client = boto3.session.Session().client(
                "s3", region_name=region, endpoint_url=endpoint, config=config
            )

    def url(self, key: str) -> str:
        """Where a file is, for people."""
        return f"{self.address}/{key}"

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn what boto3 raises into one sentence; keep the block to its calls."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            yield
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            answer = f"{status} {error.response['Error'].get('Code', '')}".strip()
            if status == 412:
                todo = "It has changed since it was listed: run the same command again"
            elif status < 500:
                todo = "Check the address, and whether a proxy stands between"
            else:
                todo = "Run the same command again later, it continues where it was"
            raise InputError(f"{what}: the server answered {answer}. {todo}.") from error
        except (BotoCoreError, ResponseParserError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{what}: no usable answer ({reason}). Check the network, the proxy and the address, then run again."
            ) from error

    def list(self, folder: str) -> tuple[dict[str, RemoteFile], list[str]]:
        """List a folder: its files by key, and the names of its subfolders. Both are empty if it is not there."""
        files, folders = {}, set()
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=f"{folder}/", Delimiter="/"
        )
        with self._asking(self.url(folder)):
            for page in pages:
                if "Name" not in page:
                    raise InputError(
                        f"{self.url(folder)}: the answer is no list of files. Check the address, and the proxy."
                    )
                for entry in page.get("Contents", ()):
                    # Consoles make empty objects with a slash at the end to stand for a folder.
                    if not entry["Key"].endswith("/"):
                        files[entry["Key"]] = RemoteFile(entry["Key"], entry["Size"], entry["ETag"].strip('"'))
                folders |= {entry["Prefix"].rstrip("/").rpartition("/")[2] for entry in page.get("CommonPrefixes", ())}
        return files, sorted(folders)

    def head(self, key: str) -> RemoteFile:
        """Look up one file."""
        with self._asking(self.url(key)):
            answer = self._client.head_object(Bucket=self.name, Key=key)
        return RemoteFile(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def download(
        self,
        remote: RemoteFile,
        target: Path,
        count: Callable[[int], None] = lambda count: None,
        stop: threading.Event | None = None,
    ) -> str:
        """Get one file, continuing what an earlier download left, and give it its name only when it is right.

        `count` is told how many bytes came. What came stays as ``NAME.ETAG.partial`` beside the target if the
        connection is cut too often, the disk is full or `stop` is set; the next download continues or removes it.
        Returns how it was checked, see `verify`.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        beginning = partial_path(target, remote.etag)
        for other in target.parent.iterdir():
            if other != beginning and other.name.startswith(f"{target.name}.") and other.name.endswith(".partial"):
                other.unlink()
        with beginning.open("ab") as file:
            if file.tell() > remote.size:
                file.truncate(file.seek(0))
            self._append(remote, file, count, stop or threading.Event())
        if (verified := self.verify(remote, beginning)) is None:
            beginning.unlink()
            raise InputError(
                f"{target}: what came is not {self.url(remote.key)} by its size or entity tag {remote.etag}. Run the "
                "same command again; if it stays so, what the server holds is damaged."
            )
        beginning.replace(target)
        return verified

    def _append(
        self, remote: RemoteFile, file: BufferedWriter, count: Callable[[int], None], stop: threading.Event
    ) -> None:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        failures = 0
        while (have := file.tell()) < remote.size:
            try:
                with self._asking(self.url(remote.key)):
                    body = self._client.get_object(
                        Bucket=self.name, Key=remote.key, IfMatch=f'"{remote.etag}"', Range=f"bytes={have}-"
                    )["Body"]
                try:
                    for block in body.iter_chunks(_BLOCK):
                        if stop.is_set():
                            raise StoppedError
                        file.write(block)
                        count(len(block))
                finally:
                    body.close()
            except (HTTPClientError, IncompleteReadError) as error:
                failures = 1 if file.tell() > have else failures + 1
                if failures >= _TRIES:
                    raise InputError(
                        f"{self.url(remote.key)}: the connection was cut {failures} times at {have:,} of "
                        f"{remote.size:,} bytes. Run the same command again, it continues where it was."
                    ) from error
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise InputError(
                    f"{file.name}: the disk is full, what came is kept. Free some space and run the same command again."
                ) from error

    def verify(self, remote: RemoteFile, path: Path) -> str | None:
        """Compare a file with its size and entity tag: how that was done, or None if it is another file."""
        if path.stat().st_size != remote.size:
            return None
        if not (tag := _ETAG.fullmatch(remote.etag)):
            return "size only"
        part_size = None
        if tag[1] and (part_size := self._part_size(remote, int(tag[1]))) is None:
            return "size only"
        return "size and MD5" if entity_tag(path, part_size) == remote.etag else None

    def _part_size(self, remote: RemoteFile, parts: int) -> int | None:
        """Bytes of each part but the last, as the server tells them; None unless these are all equal."""
        with self._asking(self.url(remote.key)):
            first, last = (
                self._client.head_object(Bucket=self.name, Key=remote.key, PartNumber=number) for number in (1, parts)
            )
        size = int(first["ContentLength"])
        told = first.get("PartsCount") == parts and (parts - 1) * size + last["ContentLength"] == remote.size
        return max(size, 1) if told else None

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bucket import S3, Between

from unibrain.fetch.bucket import NSD_BUCKET, RemoteFile, head
from unibrain.fetch.etag import DamagedError, md5_of_parts, verify
from unibrain.fetch.web import Web

KEY = "parts/thing.bin"
FIVE = 5 * 2**20


@pytest.fixture
def in_parts(s3: S3) -> Iterator[S3]:
    yield s3
    s3.delete(KEY)


def upload(s3: S3, path: Path, *sizes: int) -> None:
    content = os.urandom(sum(sizes))
    path.write_bytes(content)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    s3.put_parts(KEY, [content[end - size : end] for size, end in zip(sizes, ends, strict=True)])


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def test_our_tag_is_what_s3_computes(in_parts: S3, web: Web, tmp_path: Path) -> None:
    path = tmp_path / "a"
    upload(in_parts, path, FIVE, FIVE, 1234)
    remote = head(web, in_parts.url(KEY))
    assert remote.etag.endswith("-3")
    assert md5_of_parts(path, FIVE) == remote.etag
    assert md5_of_parts(path, None) == hashlib.md5(path.read_bytes()).hexdigest()


def test_parts_of_an_odd_size_are_asked_for(in_parts: S3, web: Web, tmp_path: Path) -> None:
    path = tmp_path / "a"
    upload(in_parts, path, FIVE + 77, 99)
    remote = head(web, in_parts.url(KEY))
    assert verify(web, path, remote) == "size and MD5 of parts of 5,242,957 bytes"
    spoil(path)
    with pytest.raises(DamagedError, match=r"of its parts after the download, expected [0-9a-f]{32}-2"):
        verify(web, path, remote)


def test_common_part_sizes_are_tried_where_a_server_does_not_tell(
    in_parts: S3, between: Between, web: Web, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    upload(in_parts, path, FIVE, 10)
    known = head(web, in_parts.url(KEY))
    between.status["thing.bin"] = [501, 501]
    remote = RemoteFile(f"{between.endpoint}/{NSD_BUCKET}/{KEY}", known.size, known.etag)
    assert verify(web, path, remote) == "size and MD5 of parts of 5,242,880 bytes"


def test_unequal_parts_are_checked_by_size_only(in_parts: S3, web: Web, tmp_path: Path) -> None:
    path = tmp_path / "a"
    upload(in_parts, path, FIVE, FIVE + 10, 7)
    remote = head(web, in_parts.url(KEY))
    assert verify(web, path, remote) == "size only"


@pytest.mark.parametrize("size", [0, 1000])
def test_one_part_is_the_whole_file(size: int, web: Web, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(size))
    inner = hashlib.md5(path.read_bytes()).digest()
    remote = RemoteFile("http://127.0.0.1:9/a", size, f"{hashlib.md5(inner).hexdigest()}-1")
    assert verify(web, path, remote).startswith("size and MD5 of parts")
    with pytest.raises(DamagedError):
        verify(web, path, RemoteFile("http://127.0.0.1:9/a", size, f"{'0' * 32}-1"))


def test_size_and_tags_of_another_kind(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert verify(web, path, RemoteFile("http://127.0.0.1:9/a", 3, "W/odd")) == "size only"
    assert verify(web, path, RemoteFile("http://127.0.0.1:9/a", 3, hashlib.md5(b"abc").hexdigest())) == "size and MD5"
    with pytest.raises(DamagedError, match="found 3 bytes after the download, expected 4"):
        verify(web, path, RemoteFile("http://127.0.0.1:9/a", 4, "W/odd"))

"""One bucket: lists, downloads that are cut or stopped, and the check of what came."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_bucket import NSD_BUCKET, S3, Between

from unibrain.errors import InputError
from unibrain.nsd_download.bucket import Bucket, RemoteFile, entity_tag, kept_bytes, partial_path
from unibrain.nsd_download.fetch import in_threads

CONTENT = os.urandom(300_000)
KEY = "some/where/thing.bin"
REMOTE = RemoteFile(KEY, len(CONTENT), hashlib.md5(CONTENT).hexdigest())
FIVE = 5 * 2**20


@pytest.fixture
def stored(s3: S3) -> Iterator[S3]:
    s3.put(KEY, CONTENT)
    yield s3
    s3.delete(KEY)


@pytest.fixture
def bucket(stored: S3, between: Between) -> Bucket:
    return Bucket(NSD_BUCKET, "us-east-2", between.endpoint)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_more_files_than_a_page(bucket: Bucket, stored: S3, between: Between) -> None:
    between.keys_per_page = 3
    for number in range(8):
        stored.put(f"many/{number}", b"x")
    stored.put("many/", b"")
    stored.put("many/below/file", b"x")
    files, folders = bucket.list("many")
    assert sorted(files) == [f"many/{number}" for number in range(8)]
    assert folders == ["below"]
    assert len(between.asked) > 2
    assert bucket.list("nothing") == ({}, [])


def test_a_cut_connection_is_continued_at_the_byte(bucket: Bucket, between: Between, tmp_path: Path) -> None:
    between.cut["thing.bin"] = [100_000, 50_000]
    counted: list[int] = []
    assert bucket.download(REMOTE, tmp_path / "a", counted.append) == "size and MD5"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked.range for asked in between.downloads()] == ["bytes=0-", "bytes=100000-", "bytes=150000-"]
    assert {asked.if_match for asked in between.downloads()} == {f'"{REMOTE.etag}"'}
    assert sum(counted) == len(CONTENT)
    assert left(tmp_path) == ["a"]


def test_what_came_stays_and_is_continued_by_a_later_download(bucket: Bucket, between: Between, tmp_path: Path) -> None:
    between.cut["thing.bin"] = [3000, *[0] * 20]
    with pytest.raises(InputError, match=r"thing\.bin: .*3,000 of 300,000 bytes"):
        bucket.download(REMOTE, tmp_path / "a")
    assert partial_path(tmp_path / "a", REMOTE.etag).read_bytes() == CONTENT[:3000]
    between.cut.clear()
    assert kept_bytes(tmp_path / "a", REMOTE) == 3000
    bucket.download(REMOTE, tmp_path / "a")
    assert between.downloads()[-1].range == "bytes=3000-"
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("before", [CONTENT, CONTENT + b"more"])
def test_a_beginning_that_is_whole_or_too_long(before: bytes, bucket: Bucket, between: Between, tmp_path: Path) -> None:
    partial_path(tmp_path / "a", REMOTE.etag).write_bytes(before)
    bucket.download(REMOTE, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(between.downloads()) == (len(before) > len(CONTENT))


def test_a_file_that_changed_leaves_no_old_beginning(bucket: Bucket, stored: S3, tmp_path: Path) -> None:
    partial_path(tmp_path / "a", REMOTE.etag).write_bytes(CONTENT[:1000])
    stored.put(KEY, b"quite another content")
    with pytest.raises(InputError, match=r"thing\.bin: .*412.*changed"):
        bucket.download(REMOTE, tmp_path / "a")
    bucket.download(bucket.head(KEY), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"quite another content"
    assert left(tmp_path) == ["a"]


def test_damaged_content_is_thrown_away(bucket: Bucket, between: Between, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"what was there before")
    between.spoil = lambda name, body: bytes([body[0] ^ 1]) + body[1:]  # random bytes may begin with any letter
    with pytest.raises(InputError, match=REMOTE.etag):
        bucket.download(REMOTE, tmp_path / "a")
    assert left(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"what was there before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(bucket: Bucket, tmp_path: Path) -> None:
    partial_path(tmp_path / "a", REMOTE.etag).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"a\.[0-9a-f]{32}\.partial: the disk is full"):
        bucket.download(REMOTE, tmp_path / "a")


def test_other_errors_of_the_system_pass_as_they_are(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(count: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        bucket.download(REMOTE, tmp_path / "a", refused)


def test_an_odd_entity_tag_makes_no_odd_path(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "a", "../../etc/x").parent == tmp_path


@pytest.mark.parametrize(
    ("status", "named"), [([403] * 9, "403"), ([404] * 9, "404"), ([503] * 9, "503.*continues"), ([503, 500], None)]
)
def test_refused_missing_and_busy(
    status: list[int], named: str | None, bucket: Bucket, between: Between, tmp_path: Path
) -> None:
    between.status["thing.bin"] = status
    if named is None:
        bucket.download(REMOTE, tmp_path / "a")
        return
    with pytest.raises(InputError, match=rf"/{KEY}: .*{named}"):
        bucket.download(REMOTE, tmp_path / "a")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "somewhere"])
def test_no_connection_and_no_address(endpoint: str) -> None:
    with pytest.raises(InputError, match=endpoint):
        Bucket(NSD_BUCKET, "us-east-2", endpoint).list("a")


def test_a_web_page_instead_of_a_list(bucket: Bucket, between: Between) -> None:
    between.page = b"<html>please log in</html>"
    with pytest.raises(InputError, match=f"{between.endpoint}/{NSD_BUCKET}/a: "):
        bucket.list("a")


def test_archives_of_coco_come_over_https() -> None:
    """A bucket with dots in its name has no certificate of its own: it is asked for by path."""
    asked: list[str] = []

    def note(request: Any, **more: Any) -> None:
        asked.append(request.url)
        raise ConnectionResetError

    bucket = Bucket("images.cocodataset.org", "us-east-1")
    bucket._client.meta.events.register("before-send.s3", note)
    with pytest.raises(ConnectionResetError):
        bucket.head("annotations/x.zip")
    assert asked == ["https://s3.amazonaws.com/images.cocodataset.org/annotations/x.zip"]


@pytest.mark.parametrize(
    ("sizes", "verified"),
    [((FIVE, FIVE, 1234), "size and MD5"), ((FIVE + 77, 99), "size and MD5"), ((FIVE, FIVE + 10, 7), "size only")],
)
def test_files_that_were_uploaded_in_parts(
    sizes: tuple[int, ...], verified: str, stored: S3, bucket: Bucket, tmp_path: Path
) -> None:
    """Against S3's own tag, with parts of a size that only the server knows; unequal parts cannot be checked."""
    content = os.urandom(sum(sizes))
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    stored.put_parts(KEY, [content[end - size : end] for size, end in zip(sizes, ends, strict=True)])
    remote, path = bucket.head(KEY), tmp_path / "a"
    assert bucket.download(remote, path) == verified
    assert path.read_bytes() == content
    assert (entity_tag(path, sizes[0]) == remote.etag) == (verified == "size and MD5")
    assert entity_tag(path, None) == hashlib.md5(content).hexdigest()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert bucket.verify(remote, path) == (None if verified == "size and MD5" else verified)


def test_a_tag_of_another_kind_and_another_size(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert bucket.verify(RemoteFile(KEY, 3, "W/odd"), path) == "size only"
    assert bucket.verify(RemoteFile(KEY, 4, "W/odd"), path) is None


def test_the_first_failure_stops_the_others(bucket: Bucket, between: Between, tmp_path: Path) -> None:
    between.cut["thing.bin"] = [100_000]
    came = threading.Event()

    def get(count: Callable[[int], None], stop: threading.Event) -> None:
        def counted(number: int) -> None:
            came.set()
            assert stop.wait(10)

        bucket.download(REMOTE, tmp_path / "a", counted, stop)

    def fail(count: Callable[[int], None], stop: threading.Event) -> None:
        assert came.wait(10)
        raise InputError("this one failed")

    ran: list[int] = []
    with pytest.raises(InputError, match="this one failed"):
        in_threads([get, fail, lambda count, stop: ran.append(1)], len(CONTENT), "fetching", 2)
    assert not ran
    assert 0 < kept_bytes(tmp_path / "a", REMOTE) < len(CONTENT)

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bucket import S3, Between

from unibrain.errors import InputError
from unibrain.fetch import download as module
from unibrain.fetch.bucket import NSD_BUCKET, RemoteFile, head
from unibrain.fetch.download import download, kept_bytes, partial_path
from unibrain.fetch.etag import DamagedError
from unibrain.fetch.parallel import run_parallel
from unibrain.fetch.web import CancelledError, RemoteError, Web

CONTENT = os.urandom(300_000)
KEY = "some/where/thing.bin"


@pytest.fixture
def stored(s3: S3) -> Iterator[S3]:
    s3.put(KEY, CONTENT)
    yield s3
    s3.delete(KEY)


@pytest.fixture
def remote(stored: S3, between: Between) -> RemoteFile:
    return RemoteFile(f"{between.endpoint}/{NSD_BUCKET}/{KEY}", len(CONTENT), hashlib.md5(CONTENT).hexdigest())


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_cut_connection_is_continued_at_the_byte(
    remote: RemoteFile, between: Between, web: Web, tmp_path: Path
) -> None:
    between.cut["thing.bin"] = [100_000, 50_000]
    counted: list[int] = []
    assert download(web, remote, tmp_path / "a", counted.append) == (remote, "size and MD5")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked.range for asked in between.downloads()] == [None, "bytes=100000-", "bytes=150000-"]
    assert {asked.if_match for asked in between.downloads()} == {f'"{remote.etag}"'}
    assert sum(counted) == len(CONTENT)
    assert left(tmp_path) == ["a"]


def test_a_connection_that_is_cut_again_and_again_ends_in_a_sentence_and_keeps_what_came(
    remote: RemoteFile, between: Between, web: Web, tmp_path: Path
) -> None:
    between.cut["thing.bin"] = [1000] * 20
    with pytest.raises(RemoteError, match=r"the connection .* it continues where it was \(3 tries\)"):
        download(web, remote, tmp_path / "a")
    assert len(between.downloads()) == web.tries
    assert partial_path(tmp_path / "a", remote.etag).read_bytes() == CONTENT[:3000]
    assert not (tmp_path / "a").exists()
    between.cut.clear()
    assert kept_bytes(tmp_path / "a", remote) == 3000
    download(web, remote, tmp_path / "a")
    assert between.downloads()[-1].range == "bytes=3000-"
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_cuts_far_apart_do_not_add_up(
    remote: RemoteFile, between: Between, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROGRESS", 20_000)
    between.cut["thing.bin"] = [20_000] * 10
    download(web, remote, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_partial_that_is_whole_or_too_long(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    partial_path(tmp_path / "a", remote.etag).write_bytes(CONTENT)
    download(web, remote, tmp_path / "a")
    assert not between.downloads()
    partial_path(tmp_path / "b", remote.etag).write_bytes(CONTENT + b"more")
    download(web, remote, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_again(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    between.drop = frozenset({"Range"})
    between.cut["thing.bin"] = [100_000]
    counted: list[int] = []
    download(web, remote, tmp_path / "a", counted.append)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)


@pytest.mark.parametrize("ignored", [frozenset(), frozenset({"If-Match"})])
def test_a_file_that_changed_is_begun_again(
    ignored: frozenset[str], stored: S3, remote: RemoteFile, between: Between, web: Web, tmp_path: Path
) -> None:
    between.drop = ignored
    old = partial_path(tmp_path / "a", remote.etag)
    old.write_bytes(CONTENT[:1000])
    stored.put(KEY, b"quite another content")
    counted = [1000]
    now, verified = download(web, remote, tmp_path / "a", counted.append)
    assert (tmp_path / "a").read_bytes() == b"quite another content"
    assert now.etag == hashlib.md5(b"quite another content").hexdigest()
    assert verified == "size and MD5"
    assert left(tmp_path) == ["a"]
    assert sum(counted) == len(b"quite another content")


def test_a_file_that_changes_all_the_time(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    between.status["thing.bin"] = [412]
    between.spoil = lambda name, body: body[:-1]
    with pytest.raises(InputError, match="changed on the server again"):
        download(web, remote, tmp_path / "a")
    assert left(tmp_path) == []


def test_damaged_content_is_thrown_away(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"what was there before")
    between.spoil = lambda name, body: b"x" + body[1:]
    with pytest.raises(DamagedError, match=f"expected {remote.etag}"):
        download(web, remote, tmp_path / "a")
    assert left(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"what was there before"


def test_403_and_404(stored: S3, between: Between, web: Web, tmp_path: Path) -> None:
    stored.put(KEY, CONTENT, acl="private")
    url = f"{between.endpoint}/{NSD_BUCKET}/some/where"
    with pytest.raises(RemoteError, match=r"thing.bin: the server refused access \(403\), expected a public file"):
        download(web, RemoteFile(f"{url}/thing.bin", 5, "e"), tmp_path / "a")
    with pytest.raises(RemoteError, match=r"nothing.bin: found no such file there \(404 NoSuchKey\)"):
        download(web, RemoteFile(f"{url}/nothing.bin", 5, "e"), tmp_path / "a")
    assert len(between.downloads()) == 2
    with pytest.raises(RemoteError, match="404"):
        head(web, f"{url}/nothing.bin")


def test_a_busy_server_is_asked_again(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    between.status["thing.bin"] = [503, 500]
    download(web, remote, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    between.status["thing.bin"] = [503] * 9
    with pytest.raises(RemoteError, match="busy or broken"):
        download(web, remote, tmp_path / "b")
    assert len(between.status["thing.bin"]) == 9 - web.tries


def test_a_full_disk_keeps_what_came(
    remote: RemoteFile, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = module._write
    room = [100_000]

    def write(file: module.FileIO, block: bytes) -> None:
        if room[0] < len(block):
            written(file, block[: room[0]])
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(block)
        written(file, block)

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(InputError, match="no space left on the disk, what came of 300,000 bytes is kept"):
        download(web, remote, tmp_path / "a")
    monkeypatch.undo()
    assert kept_bytes(tmp_path / "a", remote) == 100_000
    download(web, remote, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_from_the_start(remote: RemoteFile, web: Web, tmp_path: Path) -> None:
    partial_path(tmp_path / "a", remote.etag).symlink_to("/dev/full")
    with pytest.raises(InputError, match="no space left on the disk"):
        download(web, remote, tmp_path / "a")


def test_an_empty_file(stored: S3, web: Web, tmp_path: Path) -> None:
    stored.put(KEY, b"")
    remote = head(web, stored.url(KEY))
    download(web, remote, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b""


def test_an_odd_entity_tag_makes_no_odd_path(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "a", "../../etc/x").parent == tmp_path


def test_stopping_wakes_a_download_that_waits_for_bytes(
    remote: RemoteFile, between: Between, web: Web, tmp_path: Path
) -> None:
    between.hang = threading.Event()
    came = threading.Event()
    raised: list[BaseException] = []

    def get() -> None:
        try:
            download(web, remote, tmp_path / "a", lambda count: came.set())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    assert came.wait(10)
    web.cancel()
    thread.join(5)
    between.hang.set()
    assert not thread.is_alive()
    assert isinstance(raised[0], CancelledError)
    assert 0 < kept_bytes(tmp_path / "a", remote) < len(CONTENT)
    with pytest.raises(CancelledError):
        web.check()


def test_the_first_failure_stops_the_others(remote: RemoteFile, between: Between, web: Web, tmp_path: Path) -> None:
    between.hang = threading.Event()
    came = threading.Event()

    def get() -> None:
        download(web, remote, tmp_path / "a", lambda count: came.set())

    def fail() -> None:
        assert came.wait(10)
        raise InputError("this one failed")

    ran: list[int] = []
    jobs = [get, fail, lambda: ran.append(1)]
    with pytest.raises(InputError, match="this one failed"):
        run_parallel(web, jobs, 2)
    between.hang.set()
    assert not ran
    assert kept_bytes(tmp_path / "a", remote) > 0

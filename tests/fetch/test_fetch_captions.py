import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_bucket import S3, Between

from unibrain.errors import InputError
from unibrain.fetch import archive as module
from unibrain.fetch import fetch_captions
from unibrain.fetch.archive import MEMBERS
from unibrain.fetch.bucket import NSD_BUCKET
from unibrain.fetch.manifest import MANIFEST_FILE
from unibrain.fetch.web import Web
from unibrain.scans.nsd_layout import NsdLayout

KEY = "annotations/annotations_trainval2017.zip"
TRAIN, VAL = MEMBERS["train2017"], MEMBERS["val2017"]


def captions(split: str) -> bytes:
    return json.dumps({"annotations": [{"image_id": 7, "id": 1, "caption": f"a bear of {split}"}]}).encode()


def packed(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return buffer.getvalue()


GOOD = [("annotations/instances_val2017.json", b"{}"), *((name, captions(split)) for split, name in MEMBERS.items())]


@pytest.fixture
def url(s3: S3, between: Between) -> Iterator[str]:
    s3.put(KEY, packed(GOOD))
    yield f"{between.endpoint}/{NSD_BUCKET}/{KEY}"
    s3.delete(KEY)


def stray(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file() and path.name not in (MANIFEST_FILE, ".lock")]


def test_captions_lie_where_the_reader_looks_and_nothing_else(
    url: str, between: Between, web: Web, tmp_path: Path
) -> None:
    between.cut["annotations_trainval2017.zip"] = [100]
    lines: list[str] = []
    digest = hashlib.sha256(packed(GOOD)).hexdigest()
    fetched = fetch_captions(tmp_path, url=url, sha256=digest, show=lines.append, web=web)
    assert fetched.published
    for split in MEMBERS:
        assert NsdLayout(tmp_path).captions(split).read_bytes() == captions(split)
    assert sorted(stray(tmp_path)) == ["captions_train2017.json", "captions_val2017.json"]
    assert "CC BY 4.0" in lines[0]
    noted = json.loads((tmp_path / MANIFEST_FILE).read_text())["files"]
    assert {entry["verified"] for entry in noted.values()} == {f"CRC, from an archive with the SHA-256 {digest}"}
    assert [asked.range for asked in between.downloads()] == [None, "bytes=100-"]


def test_what_is_there_is_not_fetched_again_unless_asked(url: str, between: Between, web: Web, tmp_path: Path) -> None:
    fetch_captions(tmp_path, url=url, web=web, show=str)
    between.asked.clear()
    assert fetch_captions(tmp_path, url=url, web=web, show=str).state == "was there"
    assert not between.asked
    assert fetch_captions(tmp_path, url=url, web=web, show=str, replace=True).state == "fetched"


def test_another_archive_at_cocos_own_address_is_refused(
    url: str, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unibrain.fetch import captions as room

    monkeypatch.setattr(room, "COCO_URL", url)
    with pytest.raises(InputError, match=r"found an archive with the SHA-256 .* expected 113a836d"):
        fetch_captions(tmp_path, url=url, web=web, show=str)
    assert stray(tmp_path) == []


def test_a_local_archive_needs_no_network_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "downloads.zip"
    path.write_bytes(packed(GOOD))
    fetched = fetch_captions(tmp_path / "nsd", archive=path, url="http://127.0.0.1:9/", show=str)
    assert path.is_file()
    assert not fetched.published
    assert len(stray(tmp_path / "nsd")) == 2


def overwritten(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def encrypted(content: bytes) -> bytes:
    """Set the flag of encryption in every entry of the central directory and every local header."""
    changed = bytearray(content)
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            changed[start + offset] |= 1
    return bytes(changed)


def wrong_crc(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        crc = struct.pack("<L", opened.getinfo(VAL).CRC)
    return overwritten(content, crc, bytes(4))


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "path out of the folder": (
        lambda: packed([(f"../{TRAIN}", captions("t")), (f"/{VAL}", captions("v"))]),
        "found 0 files named annotations/captions_train2017.json",
    ),
    "only one of the two": (lambda: packed([(TRAIN, captions("t"))]), "found 0 files named annotations/captions_val"),
    "one name twice": (lambda: packed([*GOOD, (VAL, captions("another"))]), "found 2 files named"),
    "larger than it may be": (lambda: packed([(TRAIN, bytes(10_000)), GOOD[2]]), "10,000 bytes in annotations/cap"),
    "wrong checksum": (lambda: wrong_crc(packed(GOOD)), "Bad CRC-32"),
    "encrypted": (lambda: encrypted(packed(GOOD)), "encrypted"),
    "cut short": (lambda: packed(GOOD)[:-30], "cannot be read"),
    "no archive": (lambda: b"<html>", "cannot be read"),
    "no captions in it": (lambda: packed([(TRAIN, b'{"annotations": []}'), GOOD[2]]), "found no list of captions"),
    "another table": (
        lambda: packed([(TRAIN, b'{"annotations": [{"image_id": 1}]}'), GOOD[2]]),
        "found no list of captions",
    ),
    "nested deep": (lambda: packed([(TRAIN, b"[" * 4000), GOOD[2]]), "found no list of captions"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_wrong_archive_changes_nothing(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 9000)
    make, said = ATTACKS[attack]
    path = tmp_path / "in" / "annotations.zip"
    path.parent.mkdir()
    path.write_bytes(make())
    with pytest.raises(InputError, match=said) as raised:
        fetch_captions(tmp_path / "nsd", archive=path, show=str)
    assert "\n" not in str(raised.value)
    assert stray(tmp_path / "nsd") == []
    assert [entry.name for entry in tmp_path.iterdir()] in (["in", "nsd"], ["nsd", "in"])


def test_a_size_that_the_archive_understates_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "annotations.zip"
    path.write_bytes(packed([(TRAIN, bytes(50_000)), GOOD[2]]))
    monkeypatch.setattr(module, "_LARGEST", 9000)
    monkeypatch.setattr(module, "_member", lambda archive, opened, name: opened.getinfo(name))
    with pytest.raises(InputError, match="more than 9,000 bytes"):
        fetch_captions(tmp_path / "nsd", archive=path, show=str)


def test_what_was_not_there_or_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no such file, expected annotations_trainval2017.zip"):
        fetch_captions(tmp_path, archive=tmp_path / "none.zip", show=str)
    with pytest.raises(InputError, match="starts with https://"):
        fetch_captions(tmp_path, url="file:///etc/passwd", show=str)
    (tmp_path / "SIMULATED.json").write_text("{}")
    with pytest.raises(InputError, match="simulated"):
        fetch_captions(tmp_path, show=str)

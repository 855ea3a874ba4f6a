"""COCO's captions: where they lie, and archives that are damaged or evil."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_bucket import S3, Between

from unibrain.cli.main import main
from unibrain.errors import InputError
from unibrain.nsd_download import captions as module
from unibrain.nsd_download import fetch_captions
from unibrain.nsd_download.bucket import Bucket
from unibrain.nsd_download.captions import COCO_KEY, COCO_SHA256, MEMBERS
from unibrain.nsd_download.fetch import MANIFEST_FILE
from unibrain.scans.nsd_layout import NsdLayout

BUCKET = "images.cocodataset.org"
TRAIN, VAL = MEMBERS["train2017"], MEMBERS["val2017"]


def captions(split: str) -> bytes:
    return json.dumps({"annotations": [{"image_id": 7, "id": 1, "caption": f"a bear of {split}"}]}).encode()


def packed(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


GOOD = [("annotations/instances_val2017.json", b"{}"), *((name, captions(split)) for split, name in MEMBERS.items())]
DIGEST = hashlib.sha256(packed(GOOD)).hexdigest()


@pytest.fixture
def coco(s3: S3, between: Between, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """COCO's bucket, with a small archive for the published one."""
    monkeypatch.setattr(module, "Bucket", partial(Bucket, endpoint=between.endpoint))
    monkeypatch.setattr(module, "COCO_SHA256", DIGEST)
    s3.client.create_bucket(Bucket=BUCKET, ACL="public-read")
    s3.put(COCO_KEY, packed(GOOD), bucket=BUCKET)
    yield between
    s3.client.delete_object(Bucket=BUCKET, Key=COCO_KEY)
    s3.client.delete_bucket(Bucket=BUCKET)


def stray(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file() and path.name not in (MANIFEST_FILE, ".lock")]


def test_captions_lie_where_the_reader_looks_and_nothing_else(coco: Between, tmp_path: Path) -> None:
    coco.cut["annotations_trainval2017.zip"] = [100]
    lines: list[str] = []
    fetched = fetch_captions(tmp_path, show=lines.append)
    assert (fetched.state, fetched.published) == ("fetched", True)
    for split in MEMBERS:
        assert NsdLayout(tmp_path).captions(split).read_bytes() == captions(split)
    assert sorted(stray(tmp_path)) == ["captions_train2017.json", "captions_val2017.json"]
    assert "CC BY 4.0" in lines[0]
    noted = json.loads((tmp_path / MANIFEST_FILE).read_text())["files"]
    assert {entry["verified"] for entry in noted.values()} == {f"CRC, from an archive with the SHA-256 {DIGEST}"}
    assert [asked.range for asked in coco.downloads() if asked.method == "GET"] == ["bytes=0-", "bytes=100-"]
    coco.asked.clear()
    again = fetch_captions(tmp_path, show=str)
    assert again.state == "was there"
    assert not coco.asked
    assert fetch_captions(tmp_path, show=str, replace=True).state == "fetched"


def test_another_archive_than_the_published_one_is_refused(
    coco: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COCO_SHA256", COCO_SHA256)
    with pytest.raises(InputError, match=f"{DIGEST} instead of {COCO_SHA256}"):
        fetch_captions(tmp_path, show=str)
    assert stray(tmp_path) == []


def test_a_local_archive_needs_no_network_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "downloads.zip"
    path.write_bytes(packed(GOOD))
    fetched = fetch_captions(tmp_path / "nsd", archive=path, show=str)
    assert path.is_file()
    assert not fetched.published
    assert len(stray(tmp_path / "nsd")) == 2


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
        return content.replace(struct.pack("<L", opened.getinfo(VAL).CRC), bytes(4))


def understated(content: bytes) -> bytes:
    """The central directory says that the first captions are small."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return content.replace(struct.pack("<L", opened.getinfo(TRAIN).file_size), struct.pack("<L", 100))


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "path out of the folder": (lambda: packed([(f"../{TRAIN}", captions("t")), (f"/{VAL}", captions("v"))]), TRAIN),
    "only one of the two": (lambda: packed([(TRAIN, captions("t"))]), VAL),
    "one name twice": (lambda: packed([*GOOD, (VAL, captions("another"))]), f"2 of its 4 files are named {VAL}"),
    "larger than it may be": (lambda: packed([(TRAIN, bytes(10_000)), GOOD[2]]), f"{TRAIN} has more than 9,000 bytes"),
    "size understated": (lambda: understated(packed([(TRAIN, bytes(50_000)), GOOD[2]])), "CRC"),
    "wrong checksum": (lambda: wrong_crc(packed(GOOD)), "CRC"),
    "encrypted": (lambda: encrypted(packed(GOOD)), "encrypted"),
    "cut short": (lambda: packed(GOOD)[:-30], "zip"),
    "no archive": (lambda: b"<html>", "zip"),
    "no captions in it": (lambda: packed([(TRAIN, b'{"annotations": []}'), GOOD[2]]), TRAIN),
    "another table": (lambda: packed([(TRAIN, b'{"annotations": [{"image_id": 1}]}'), GOOD[2]]), TRAIN),
    "nested deep": (lambda: packed([(TRAIN, b"[" * 4000), GOOD[2]]), TRAIN),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_wrong_archive_changes_nothing(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 9000)
    make, named = ATTACKS[attack]
    path = tmp_path / "in" / "annotations.zip"
    path.parent.mkdir()
    path.write_bytes(make())
    with pytest.raises(InputError, match=f"{path}: .*{named}") as raised:
        fetch_captions(tmp_path / "nsd", archive=path, show=str)
    assert "\n" not in str(raised.value)
    assert stray(tmp_path / "nsd") == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "nsd"]


def test_places_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nsd", "fetch-captions", "--out", str(tmp_path / "nsd"), "--zip", str(tmp_path / "none.zip")]) == 2
    assert f"{tmp_path / 'none.zip'}: " in capsys.readouterr().err
    (tmp_path / "SIMULATED.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}: simulated"):
        fetch_captions(tmp_path, show=str)

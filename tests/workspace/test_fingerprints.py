import hashlib
import os
import shutil
from pathlib import Path

import pytest

from unibrain.workspace import fingerprints as module
from unibrain.workspace.fingerprints import fingerprint, same, stat_fingerprint


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "nsd"
    (root / "b").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b" / "c.txt").write_text("c")
    return root


def test_hash_is_sha256_of_the_content(tree: Path) -> None:
    found = fingerprint(tree)
    assert found is not None
    assert {name: entry["sha256"] for name, entry in found["files"].items()} == {
        "a.txt": hashlib.sha256(b"a").hexdigest(),
        "b/c.txt": hashlib.sha256(b"c").hexdigest(),
    }


def test_a_copy_is_the_same_whatever_its_times(tree: Path) -> None:
    copy = tree.with_name("copy")
    shutil.copytree(tree, copy)
    os.utime(copy / "a.txt", ns=(1, 1))
    assert same(fingerprint(tree), fingerprint(copy))


def test_every_change_of_content_is_seen_even_with_size_and_time_kept(tree: Path) -> None:
    before, status = fingerprint(tree), (tree / "a.txt").stat()
    (tree / "a.txt").write_text("z")
    os.utime(tree / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not same(before, fingerprint(tree, before))


@pytest.mark.parametrize("change", ["new", "gone", "renamed"])
def test_files_that_come_go_or_move_are_seen(tree: Path, change: str) -> None:
    before = fingerprint(tree)
    if change == "new":
        (tree / "d.txt").write_text("d")
    elif change == "gone":
        (tree / "a.txt").unlink()
    else:
        (tree / "a.txt").rename(tree / "e.txt")
    assert not same(before, fingerprint(tree))


def test_unfinished_writes_do_not_count(tree: Path) -> None:
    before = fingerprint(tree)
    (tree / ".a.txt.12-0123abcd.partial.txt").write_text("half")
    assert same(before, fingerprint(tree))


def test_missing_is_none_and_only_none_equals_it(tree: Path, tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "absent") is None
    assert stat_fingerprint(tmp_path / "absent") is None
    assert same(None, None)
    assert not same(None, fingerprint(tree))
    assert not same(fingerprint(tree), None)


def test_large_files_are_hashed_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1)
    before = fingerprint(tree)
    hashed = []
    real = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda path: hashed.append(path.name) or real(path))
    assert same(before, fingerprint(tree, before))
    assert hashed == []
    os.utime(tree / "a.txt", ns=(1, 1))
    assert same(before, fingerprint(tree, before))
    assert hashed == ["a.txt"]


def test_archives_are_compared_by_size_and_time_without_reading(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_sha256", lambda path: pytest.fail("content was read"))
    before = stat_fingerprint(tree)
    assert same(before, stat_fingerprint(tree))
    os.utime(tree / "a.txt", ns=(1, 1))
    assert not same(before, stat_fingerprint(tree))

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from unibrain.workspace import fingerprints as module
from unibrain.workspace.fingerprints import code_digest, digest, fingerprint, same


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "nsd"
    (root / "b").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b" / "c.txt").write_text("c")
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is read."""
    names, real = [], module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda path: names.append(path.name) or real(path))
    return names


def test_hash_is_sha256_of_the_content(tree: Path) -> None:
    found = fingerprint(tree)
    assert found is not None
    assert {name: state.sha256 for name, state in found.items()} == {
        "a.txt": hashlib.sha256(b"a").hexdigest(),
        "b/c.txt": hashlib.sha256(b"c").hexdigest(),
    }


def test_a_copy_is_the_same_whatever_its_times(tree: Path) -> None:
    copy = tree.with_name("copy")
    shutil.copytree(tree, copy)
    os.utime(copy / "a.txt", ns=(1, 1))
    assert same(fingerprint(tree), fingerprint(copy))
    assert same(fingerprint(tree), fingerprint(copy, fingerprint(tree)))


def test_bit_rot_is_seen_by_reading_whatever_the_size(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1)
    before, status = fingerprint(tree), (tree / "a.txt").stat()
    (tree / "a.txt").write_text("z")
    os.utime(tree / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not same(before, fingerprint(tree))
    # A time that was set back does not hide it from a quick look either.
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


def test_unfinished_writes_and_circles_of_links_do_not_count(tree: Path) -> None:
    before = fingerprint(tree)
    (tree / ".a.txt.12-0123abcd.partial.txt").write_text("half")
    (tree / "b" / "up").symlink_to("..")
    (tree / "loop").symlink_to("loop")
    assert same(before, fingerprint(tree))


def test_missing_is_none_and_only_none_equals_it(tree: Path, tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "absent") is None
    assert same(None, None)
    assert not same(None, fingerprint(tree))
    assert not same(fingerprint(tree), None)


def test_a_quick_look_reads_only_what_was_touched(tree: Path, read: list[str]) -> None:
    before = fingerprint(tree)
    read.clear()
    assert same(before, fingerprint(tree, before))
    assert read == []
    (tree / "a.txt").touch()
    assert same(before, fingerprint(tree, before))
    assert read == ["a.txt"]


def test_large_files_of_an_archive_are_never_read_and_compared_by_time(tree: Path, read: list[str]) -> None:
    (tree / "large").write_bytes(bytes(100))
    before = fingerprint(tree, unread=100)
    assert read == ["a.txt", "c.txt"]
    assert same(before, fingerprint(tree, unread=100))
    os.utime(tree / "large", ns=(1, 1))
    assert not same(before, fingerprint(tree, unread=100))


def test_digests_keep_values_apart() -> None:
    ones = np.ones((2, 3), dtype=np.float32)
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        (["ab", "c"],),
        (b"ab", "c"),
        (1,),
        ("1",),
        (None,),
        (ones,),
        (ones.reshape(3, 2),),
        (ones.astype(np.float64),),
        (ones.tobytes(),),
    ]
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(ones.T) == digest(np.ascontiguousarray(ones.T))


CODE = '"""What it does."""\n\ndef f(x: int) -> int:\n    """Add."""\n    return x + 1  # one\n'


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (("# one", "# a comment"), False),
        (("Add.", "Add one."), False),
        (("What it does.", ""), False),
        (("\n    return", "\n\n    return"), False),
        (("x + 1", "x + 2"), True),
        (("return x", "return -x"), True),
        (("x: int", "x: float"), True),
    ],
)
def test_code_counts_without_its_comments_and_docstrings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], matters: bool
) -> None:
    home = tmp_path / "unibrain"
    (home / "demo").mkdir(parents=True)
    (home / "workspace").mkdir()
    monkeypatch.setattr(module, "__file__", str(home / "workspace" / "fingerprints.py"))
    module._code_of.cache_clear()
    digests = []
    for text in (CODE, CODE.replace(*change)):
        (home / "demo" / "scene.py").write_text(text)
        digests.append(code_digest("demo"))
        module._code_of.cache_clear()
    assert (digests[0] != digests[1]) == matters
    (home / "demo" / "table.csv").write_text("1")
    assert code_digest("demo") not in digests
    with pytest.raises(FileNotFoundError):
        code_digest("absent")
    module._code_of.cache_clear()

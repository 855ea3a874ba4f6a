"""Only real damage is called damage: what the system refuses and bugs of our own pass as they are."""

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.scans import foreign
from unibrain.scans.foreign import whole_file


def cut_short(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(4000))[:1000])
    gzip.open(path).read()


def no_npz(path: Path) -> None:
    path.write_bytes(b"PK\3\4 not quite")
    np.load(path)


def failing(error: BaseException) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        raise error

    return read


@pytest.mark.parametrize("read", [cut_short, no_npz, failing(zlib.error("bad")), failing(KeyError("betas"))])
def test_damage_names_the_file(read: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.x.*truncated"), whole_file(tmp_path / "scan.x", "test"):
        read(tmp_path / "scan.x")


def test_a_file_that_claims_a_huge_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.x: .*memory"), whole_file(tmp_path / "scan.x", "test"):
        raise MemoryError


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "scan.x"),
        ModuleNotFoundError("No module named 'nibabel'"),
        OSError(5, "Input/output error"),
    ],
)
def test_what_is_no_damage_passes(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, whole_file(tmp_path / "scan.x", "test"):
        raise error
    assert caught.value is error


def test_a_bug_of_our_own_passes(tmp_path: Path) -> None:
    ours = {"__name__": foreign.__name__}
    exec("def read():\n    None.betas", ours)
    with pytest.raises(AttributeError), whole_file(tmp_path / "scan.x", "test"):
        ours["read"]()

"""Taking COCO's captions out of its archive of annotations, trusting nothing that the archive says about itself."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from unibrain.errors import InputError
from unibrain.workspace.files import atomic_path

__all__ = ["MEMBERS", "extract_captions", "sha256_of"]

MEMBERS: Mapping[str, str] = {
    "train2017": "annotations/captions_train2017.json",
    "val2017": "annotations/captions_val2017.json",
}
"""COCO split to the file in the archive that holds its captions."""

_LARGEST = 2**29
"""The larger of the two has 92 MB."""
_MOST_MEMBERS = 1000
_BLOCK = 2**20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract_captions(archive: Path, targets: Mapping[str, Path]) -> None:
    """Extract the two files of captions, checked by name, size, CRC and content.

    Only the two members of exactly these names are read; paths in the archive are never used as paths on the disk.

    Parameters
    ----------
    archive : pathlib.Path
        ``annotations_trainval2017.zip``.
    targets : mapping of str to pathlib.Path
        COCO split to where its captions are to be.

    Raises
    ------
    InputError
        If it is no such archive, or damaged. Nothing is changed then.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {split: _member(archive, opened, MEMBERS[split]) for split in targets}
            # Both get their names only when both are right.
            with ExitStack() as stack:
                for split, target in targets.items():
                    temporary = stack.enter_context(atomic_path(target))
                    with opened.open(members[split]) as source, temporary.open("wb") as sink:
                        _copy(archive, source, sink, MEMBERS[split])
                    _check_captions(archive, temporary, MEMBERS[split])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{archive}: found an archive that cannot be read ({reason}), expected annotations_trainval2017.zip as "
            "COCO publishes it: download it again"
        ) from error


def _member(archive: Path, opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entries = opened.infolist()
    found = [entry for entry in entries if entry.filename == name]
    if len(found) != 1 or len(entries) > _MOST_MEMBERS:
        raise InputError(
            f"{archive}: found {len(found)} files named {name} among {len(entries)}, expected one: "
            "give annotations_trainval2017.zip as COCO publishes it"
        )
    entry = found[0]
    if entry.file_size > _LARGEST:
        raise _too_large(archive, name, f"{entry.file_size:,}")
    return entry


def _too_large(archive: Path, name: str, found: str) -> InputError:
    return InputError(
        f"{archive}: found {found} bytes in {name}, expected at most {_LARGEST:,}: "
        "give annotations_trainval2017.zip as COCO publishes it"
    )


def _copy(archive: Path, source: IO[bytes], sink: IO[bytes], name: str) -> None:
    # Reading to the end is what checks the CRC; the length that the archive states is not trusted.
    count = 0
    while block := source.read(_BLOCK):
        count += len(block)
        if count > _LARGEST:
            raise _too_large(archive, name, f"more than {_LARGEST:,}")
        sink.write(block)


def _check_captions(archive: Path, path: Path, name: str) -> None:
    try:
        annotations = json.loads(path.read_bytes())["annotations"]
        right = bool(annotations) and all(
            isinstance(one["image_id"], int) and isinstance(one["caption"], str) for one in annotations
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise InputError(
            f"{archive}: found no list of captions with their images in {name}, expected COCO's: "
            "give annotations_trainval2017.zip as COCO publishes it"
        )

"""Fetching COCO's captions to where NSD's reader looks for them, trusting nothing that their archive says of itself."""

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from unibrain.errors import InputError
from unibrain.nsd_download.bucket import Bucket, RemoteFile, kept_bytes
from unibrain.nsd_download.fetch import FetchManifest, check_root, in_threads
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.workspace.files import atomic_path, readable_bytes, require_space
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import folder_lock

COCO_KEY = "annotations/annotations_trainval2017.zip"
"""The archive of annotations in COCO's bucket."""
COCO_SHA256 = "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"
"""SHA-256 of the published archive (252,907,541 bytes)."""
COCO_LICENCE = (
    "COCO's annotations (captions) are published by the COCO Consortium under CC BY 4.0; cocodataset.org has its terms "
    "of use, and how to cite it."
)
MEMBERS: Mapping[str, str] = {
    "train2017": "annotations/captions_train2017.json",
    "val2017": "annotations/captions_val2017.json",
}
"""COCO split to the file in the archive that holds its captions."""

_LARGEST = 2**29  # bytes; the larger of the two has 92 MB
_EXTRACTED_BYTES = 100_000_000


@dataclass(frozen=True)
class CaptionsFetched:
    """The two files of captions, and whether they are from the published archive (not known of what was there)."""

    files: tuple[Path, ...]
    state: Literal["fetched", "was there"]
    published: bool


def fetch_captions(
    root: Path,
    *,
    archive: Path | None = None,
    replace: bool = False,
    show: Callable[[str], None] = say,
) -> CaptionsFetched:
    """Download COCO's annotations, and extract the captions into NSD's tree.

    Parameters
    ----------
    root : pathlib.Path
        The folder of NSD's tree.
    archive : pathlib.Path, optional
        ``annotations_trainval2017.zip`` on this disk; nothing is downloaded then. It may be another one than COCO's:
        its captions are checked by name, CRC and content.
    replace : bool
        Extract even if both files are there.
    show : callable
        Is given what will be downloaded, and under which licence.

    Returns
    -------
    CaptionsFetched

    Raises
    ------
    InputError
        If the archive cannot be had, the disk is full, or it is not COCO's.
    """
    check_root(root)
    layout = NsdLayout(root)
    targets = {split: layout.captions(split) for split in MEMBERS}
    if not replace and all(target.is_file() for target in targets.values()):
        return CaptionsFetched(tuple(targets.values()), "was there", False)
    if archive is not None and not archive.is_file():
        raise InputError(f"{archive}: no such file. Check --zip.")
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root):
        if archive is not None:
            require_space(root, _EXTRACTED_BYTES)
            show(f"{archive}\n{COCO_LICENCE}")
            got, url, etag = archive, str(archive), ""
        else:
            bucket = Bucket("images.cocodataset.org", "us-east-1")
            remote = bucket.head(COCO_KEY)
            got, url, etag = targets["train2017"].with_name(Path(COCO_KEY).name), bucket.url(COCO_KEY), remote.etag
            left = remote.size - kept_bytes(got, remote)
            show(f"{url}: {readable_bytes(left)} to download\n{COCO_LICENCE}")
            require_space(root, left + _EXTRACTED_BYTES)
            # In a thread, so that Ctrl-C need not wait for the next bytes.
            in_threads([partial(bucket.download, remote, got)], left, "fetching captions", 1)
        found = sha256_of(got)
        if archive is None and found != COCO_SHA256:
            got.unlink()
            raise InputError(
                f"{url}: an archive with the SHA-256 {found} instead of {COCO_SHA256}, so it was thrown away. Run "
                "again, or get it elsewhere and give it with --zip."
            )
        extract_captions(got, targets)
        manifest = FetchManifest(root)
        for split, target in targets.items():
            origin = RemoteFile(MEMBERS[split], target.stat().st_size, etag)
            manifest.record(target, url, origin, f"CRC, from an archive with the SHA-256 {found}")
        if archive is None:
            got.unlink()
        return CaptionsFetched(tuple(targets.values()), "fetched", found == COCO_SHA256)


def extract_captions(archive: Path, targets: Mapping[str, Path]) -> None:
    """Extract the two files of captions, checked by name, size, CRC and content.

    Only the two members of exactly these names are read; paths in the archive are never used as paths on the disk.
    """
    try:
        # Both get their names only when both are right.
        with zipfile.ZipFile(archive) as opened, ExitStack() as stack:
            for split, target in targets.items():
                temporary = stack.enter_context(atomic_path(target))
                temporary.write_bytes(_content(archive, opened, MEMBERS[split]))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _wrong(archive, " ".join(str(error).split())[:160] or type(error).__name__) from error


def _wrong(archive: Path, what: str) -> InputError:
    return InputError(f"{archive}: {what}. Give annotations_trainval2017.zip as COCO publishes it.")


def _content(archive: Path, opened: zipfile.ZipFile, name: str) -> bytes:
    entries = opened.infolist()
    found = [entry for entry in entries if entry.filename == name]
    if len(found) != 1:
        raise _wrong(archive, f"{len(found)} of its {len(entries):,} files are named {name}")
    # Reading to the end is what checks the CRC; the length that the archive states is not trusted.
    with opened.open(found[0]) as source:
        content = source.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise _wrong(archive, f"{name} has more than {_LARGEST:,} bytes")
    try:
        annotations = json.loads(content)["annotations"]
        right = annotations and all(type(one["image_id"]) is int and type(one["caption"]) is str for one in annotations)
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise _wrong(archive, f"{name} is no list of captions with their images")
    return content

"""Fetching COCO's captions to where NSD's reader looks for them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unibrain.errors import InputError
from unibrain.fetch.archive import MEMBERS, extract_captions, sha256_of
from unibrain.fetch.bucket import RemoteFile, head
from unibrain.fetch.download import download, kept_bytes
from unibrain.fetch.fetch import check_root
from unibrain.fetch.manifest import FetchManifest
from unibrain.fetch.parallel import run_parallel
from unibrain.fetch.progress import byte_bar
from unibrain.fetch.shown import readable_bytes
from unibrain.fetch.space import check_space
from unibrain.fetch.terms import COCO_LICENCE
from unibrain.fetch.web import Web
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import folder_lock

__all__ = ["COCO_SHA256", "COCO_URL", "CaptionsFetched", "fetch_captions"]

COCO_URL = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
"""Where COCO publishes its annotations; this server has no certificate, so the archive is checked by its hash."""
COCO_SHA256 = "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"
"""SHA-256 of the published archive (252,907,541 bytes)."""

_EXTRACTED_BYTES = 100_000_000


@dataclass(frozen=True)
class CaptionsFetched:
    """What a fetch of captions has come to.

    Attributes
    ----------
    files : tuple of pathlib.Path
        The two files of captions.
    state : {"fetched", "was there"}
    published : bool
        Whether they are from the archive with the published hash; not known (False) of what was there.
    """

    files: tuple[Path, ...]
    state: Literal["fetched", "was there"]
    published: bool


def fetch_captions(
    root: Path,
    *,
    archive: Path | None = None,
    url: str = COCO_URL,
    sha256: str | None = COCO_SHA256,
    replace: bool = False,
    show: Callable[[str], None] = say,
    web: Web | None = None,
) -> CaptionsFetched:
    """Download COCO's annotations, and extract the captions into NSD's tree.

    Parameters
    ----------
    root : pathlib.Path
        The folder of NSD's tree.
    archive : pathlib.Path, optional
        ``annotations_trainval2017.zip`` on this disk; nothing is downloaded then.
    url : str
        Where to download it.
    sha256 : str or None
        What the archive from COCO's own address must hash to; another address or a file on disk may hold another
        archive, whose captions are then checked by name, CRC and content alone.
    replace : bool
        Extract even if both files are there.
    show : callable
        Is given what will be downloaded, and under which licence.
    web : Web, optional
        How often to try, and how long to wait.

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
        raise InputError(f"{archive}: found no such file, expected annotations_trainval2017.zip: check the path")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"the address is {url!r}, expected one that starts with https:// or http://: check --url")
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root):
        if archive is not None:
            remote, got = RemoteFile(str(archive), archive.stat().st_size, ""), archive
            check_space(root, _EXTRACTED_BYTES)
            show(f"{archive}\n{COCO_LICENCE}")
        else:
            got = layout.captions("train2017").parent / "annotations_trainval2017.zip"
            remote = _download(web or Web(), url, got, root, show)
        digest = sha256_of(got)
        if archive is None and url == COCO_URL and sha256 not in (None, digest):
            got.unlink()
            raise InputError(
                f"{url}: found an archive with the SHA-256 {digest}, expected {sha256}: it was thrown away, run again; "
                "if it stays so, get the archive in another way and give it with --zip"
            )
        extract_captions(got, targets)
        manifest = FetchManifest(root)
        for split, target in targets.items():
            origin = RemoteFile(f"{remote.url}#{MEMBERS[split]}", target.stat().st_size, remote.etag)
            manifest.record(target, origin, f"CRC, from an archive with the SHA-256 {digest}")
        if archive is None:
            got.unlink()
        return CaptionsFetched(tuple(targets.values()), "fetched", digest == sha256)


def _download(web: Web, url: str, target: Path, root: Path, show: Callable[[str], None]) -> RemoteFile:
    remote = head(web, url)
    show(f"{url}: {readable_bytes(remote.size)} to download\n{COCO_LICENCE}")
    kept = kept_bytes(target, remote)
    check_space(root, remote.size - kept + _EXTRACTED_BYTES)
    with byte_bar("fetching captions", remote.size, 1) as bar:

        def get() -> None:
            bar.add(kept)
            download(web, remote, target, bar.add)
            bar.file_done()

        # In a thread, so that Ctrl-C need not wait for the next bytes.
        run_parallel(web, [get], 1)
    return remote

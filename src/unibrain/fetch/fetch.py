"""Fetching one subject of NSD: plan, ask, download what is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from unibrain.errors import InputError
from unibrain.fetch.bucket import Bucket
from unibrain.fetch.download import download, kept_bytes
from unibrain.fetch.etag import DamagedError, verify
from unibrain.fetch.manifest import FetchManifest
from unibrain.fetch.parallel import run_parallel
from unibrain.fetch.plan import Choice, Plan, PlannedFile, make_plan
from unibrain.fetch.progress import Bytes, byte_bar
from unibrain.fetch.shown import plan_text
from unibrain.fetch.space import check_space, free_bytes
from unibrain.fetch.web import Web
from unibrain.scans.nsd_layout import SIMULATED_MARKER
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import folder_lock

__all__ = ["NsdFetched", "check_root", "fetch_nsd"]

_SMALL = 2**26


@dataclass(frozen=True)
class NsdFetched:
    """What a fetch has come to.

    Attributes
    ----------
    plan : Plan
    downloaded : int
        Number of files.
    size_only : tuple of str
        Files of the plan whose content could not be checked, only their size.
    state : {"complete", "dry run", "declined"}
    """

    plan: Plan
    downloaded: int
    size_only: tuple[str, ...]
    state: Literal["complete", "dry run", "declined"]


def check_root(root: Path) -> None:
    """Refuse to mix real files into a simulated tree.

    Raises
    ------
    InputError
        If `root` is no folder, or holds simulated data.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: found a file, expected a folder or a new name: choose another one with --to")
    if (root / SIMULATED_MARKER).exists():
        raise InputError(f"{root}: found simulated data, expected a folder without: choose another one with --to")


def fetch_nsd(
    choice: Choice,
    root: Path,
    *,
    agree: Callable[[str], bool],
    show: Callable[[str], None] = say,
    dry_run: bool = False,
    jobs: int = 4,
    endpoint: str | None = None,
    web: Web | None = None,
) -> NsdFetched:
    """Download what a protocol needs of one subject, in NSD's own layout.

    A fetch that was stopped is continued by the same call; files that are there and unchanged are not asked for again.
    What was fetched is noted in ``fetch-manifest.json`` in `root`.

    Parameters
    ----------
    choice : Choice
    root : pathlib.Path
        The folder for ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    agree : callable
        Is given the list of what will be downloaded, with its size, and says whether the user agrees to NSD's terms.
        Not called if nothing is missing, nor in a dry run.
    show : callable
        Is given the list where `agree` is not.
    dry_run : bool
        Only list; nothing is written.
    jobs : int
        Files at a time.
    endpoint : str, optional
        Another S3 server (a mirror).
    web : Web, optional
        How often to try, and how long to wait.

    Returns
    -------
    NsdFetched

    Raises
    ------
    InputError
        If the bucket lacks something, refuses or cannot be reached, the connection is cut too often, a disk is full, or
        what came is damaged. What came is kept, save what is damaged.
    """
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}, expected 1 or more: give the number of files at a time")
    check_root(root)
    web = web or Web()
    bucket = Bucket(web, endpoint)
    plan = make_plan(bucket, choice, root)
    if dry_run:
        show(_text(plan, bucket, _missing(plan, FetchManifest(root), by_size=True), every_file=True))
        return NsdFetched(plan, 0, (), "dry run")
    if not _missing(plan, FetchManifest(root)):
        return NsdFetched(plan, 0, _size_only(plan, FetchManifest(root)), "complete")
    # What was put here in another way is looked at first, so that the list tells the truth.
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root):
        manifest = FetchManifest(root)
        _adopt(web, plan, manifest, jobs)
        missing = _missing(plan, manifest)
        if missing:
            kept = sum(kept_bytes(file.path, file.remote) for file in missing)
            check_space(root, sum(file.remote.size for file in missing) - kept)
            if not agree(_text(plan, bucket, missing)):
                return NsdFetched(plan, 0, (), "declined")
            _download(web, plan, missing, manifest, jobs)
        return NsdFetched(plan, len(missing), _size_only(plan, manifest), "complete")


def _text(plan: Plan, bucket: Bucket, missing: list[PlannedFile], *, every_file: bool = False) -> str:
    root = plan.layout.root
    kept = sum(kept_bytes(file.path, file.remote) for file in missing)
    return plan_text(plan, bucket.address, missing, kept, free_bytes(root), every_file=every_file)


def _missing(plan: Plan, manifest: FetchManifest, *, by_size: bool = False) -> list[PlannedFile]:
    return [
        file for file in plan.files if not manifest.knows(file.path, file.remote) and not (by_size and _same_size(file))
    ]


def _same_size(file: PlannedFile) -> bool:
    return file.path.is_file() and file.path.stat().st_size == file.remote.size


def _size_only(plan: Plan, manifest: FetchManifest) -> tuple[str, ...]:
    entries = ((file.path.name, manifest.entry(file.path)) for file in plan.files)
    return tuple(name for name, entry in entries if entry is not None and entry.verified == "size only")


def _adopt(web: Web, plan: Plan, manifest: FetchManifest, jobs: int) -> None:
    """Check files that are there but not in the manifest, such as those of another download."""
    unknown = [file for file in _missing(plan, manifest) if _same_size(file)]

    def check(file: PlannedFile, bar: Bytes) -> None:
        try:
            manifest.record(file.path, file.remote, verify(web, file.path, file.remote))
        except DamagedError:
            say(f"{file.path}: differs from the bucket's, it will be replaced")
        web.check()
        bar.add(file.remote.size)
        bar.file_done()

    if unknown:
        with byte_bar("checking what is there", sum(file.remote.size for file in unknown), len(unknown)) as bar:
            run_parallel(web, [partial(check, file, bar) for file in unknown], jobs)


def _download(web: Web, plan: Plan, missing: list[PlannedFile], manifest: FetchManifest, jobs: int) -> None:
    def get(file: PlannedFile, bar: Bytes) -> None:
        bar.add(kept_bytes(file.path, file.remote))
        remote, verified = download(web, file.remote, file.path, bar.add)
        manifest.record(file.path, remote, verified)
        bar.file_done()

    # What is small shows quickly whether all is well; of the rest the longest begins first.
    order = sorted(missing, key=lambda file: (file.remote.size > _SMALL, -file.remote.size))
    with byte_bar(f"fetching {plan.layout.name}", sum(file.remote.size for file in missing), len(missing)) as bar:
        run_parallel(web, [partial(get, file, bar) for file in order], jobs)

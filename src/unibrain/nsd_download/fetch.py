"""Fetching one subject of NSD: plan, ask, download what is missing, check it."""

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unibrain.errors import InputError
from unibrain.nsd_download.bucket import Bucket, DamagedDownloadError, RemoteFile, StoppedError, kept_bytes
from unibrain.nsd_download.plan import Choice, NeededFile, Plan, make_plan
from unibrain.scans.nsd_layout import SIMULATED_MARKER
from unibrain.workspace.disk import free_bytes, readable_bytes, require_space
from unibrain.workspace.files import write_json
from unibrain.workspace.progress import progress_bar, say
from unibrain.workspace.run_folder import folder_lock

NSD_TERMS = (
    "The Natural Scenes Dataset asks everyone who uses it to agree to its Terms and Conditions and to fill in its Data "
    "Access form. Both are on naturalscenesdataset.org: read them there, and fill in the form, before you download."
)
"""What NSD asks of its users. Its terms are on its site; they are not repeated here."""

MANIFEST_FILE = "fetch-manifest.json"
"""Name of the list of what was fetched, in the folder that was fetched into."""

_SMALL = 2**26

Job = Callable[[Callable[[int], None], threading.Event], object]
"""A download: given a function that counts bytes, and the event that tells it to stop."""


@dataclass(frozen=True)
class NsdFetched:
    """What a fetch has come to: how many files came, and those of which only the size could be checked."""

    plan: Plan
    downloaded: int
    size_only: tuple[str, ...]
    state: Literal["complete", "dry run", "declined"]


class FetchManifest:
    """What was fetched into a folder: from where, how large, how it was checked, and when."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / MANIFEST_FILE
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        try:
            files = json.loads(self.path.read_text(encoding="utf-8"))["files"]
            self._files = {str(name): dict(entry) for name, entry in files.items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            say(f"{self.path} cannot be read; the files that are there are checked again")

    def record(self, path: Path, url: str, remote: RemoteFile, verified: str) -> None:
        """Note a file that is whole."""
        entry = {
            "url": url,
            **asdict(remote),
            "verified": verified,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "modified_ns": path.stat().st_mtime_ns,
        }
        with self._lock:
            self._files[path.relative_to(self.root).as_posix()] = entry
            files = {name: self._files[name] for name in sorted(self._files)}
            write_json(self.path, {"about": "Files fetched by `unibrain nsd`.", "files": files})

    def verified(self, path: Path, remote: RemoteFile) -> str | None:
        """How a file was checked; None unless it was fetched, and is unchanged here and in the bucket."""
        entry = self._files.get(path.relative_to(self.root).as_posix())
        if entry is None or not path.is_file():
            return None
        noted = (entry.get("size"), entry.get("modified_ns"), entry.get("etag"))
        unchanged = noted == (path.stat().st_size, path.stat().st_mtime_ns, remote.etag) and noted[0] == remote.size
        return str(entry.get("verified")) if unchanged else None


def check_root(root: Path) -> None:
    """Refuse to mix real files into a simulated tree."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: this is a file. Choose a folder with --out.")
    if (root / SIMULATED_MARKER).exists():
        raise InputError(f"{root}: simulated data are there. Choose another folder with --out.")


def fetch_nsd(
    choice: Choice,
    root: Path,
    *,
    agree: Callable[[str], bool],
    show: Callable[[str], None] = say,
    dry_run: bool = False,
    jobs: int = 4,
    endpoint: str | None = None,
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
        Is given the list in a dry run.
    dry_run : bool
        Only list; nothing is written.
    jobs : int
        Files at a time.
    endpoint : str, optional
        Another S3 server (a mirror).

    Returns
    -------
    NsdFetched

    Raises
    ------
    InputError
        If the bucket lacks something, refuses or cannot be reached, the connection is cut too often, a disk is full, or
        what came is damaged. What came is kept, save what is damaged.
    """
    check_root(root)
    bucket = Bucket("natural-scenes-dataset", "us-east-2", endpoint)
    plan = make_plan(bucket, choice, root)
    if dry_run:
        show(_text(plan, bucket, _missing(plan, FetchManifest(root))))
        return NsdFetched(plan, 0, (), "dry run")
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root):
        manifest = FetchManifest(root)
        missing, downloaded = _missing(plan, manifest), 0
        if missing:
            require_space(root, _to_come(missing), "Free some space, choose another folder with --out, or fetch less.")
            if not agree(_text(plan, bucket, missing)):
                return NsdFetched(plan, 0, (), "declined")
            downloaded = _download(bucket, plan, missing, manifest, jobs)
        size_only = [file.path.name for file in plan.files if manifest.verified(file.path, file.remote) == "size only"]
        return NsdFetched(plan, downloaded, tuple(size_only), "complete")


def _missing(plan: Plan, manifest: FetchManifest) -> list[NeededFile]:
    return [file for file in plan.files if manifest.verified(file.path, file.remote) is None]


def _is_there(file: NeededFile) -> bool:
    """Whether a file of this size is there, as from another download; its content is checked when its turn comes."""
    return file.path.is_file() and file.path.stat().st_size == file.remote.size


def _to_come(files: Iterable[NeededFile]) -> int:
    return sum(file.remote.size - kept_bytes(file.path, file.remote) for file in files if not _is_there(file))


def _text(plan: Plan, bucket: Bucket, missing: list[NeededFile]) -> str:
    root = plan.layout.root
    whole = sum(file.remote.size for file in plan.files)
    return (
        f"{plan.text()}\nfrom {bucket.address}\ninto {root.absolute()}\n"
        f"{len(plan.files)} files, {readable_bytes(whole)} ({whole:,} bytes), of which "
        f"{readable_bytes(_to_come(missing))} to download; {readable_bytes(free_bytes(root))} free on the disk"
    )


def _download(bucket: Bucket, plan: Plan, missing: list[NeededFile], manifest: FetchManifest, jobs: int) -> int:
    """Get files, and return how many came; those that are there already and right stay."""
    came: list[NeededFile] = []

    def get(file: NeededFile, count: Callable[[int], None], stop: threading.Event) -> None:
        verified = None
        if _is_there(file):
            try:
                verified = bucket.verify(file.remote, file.path)
            except DamagedDownloadError:
                say(f"{file.path}: differs from the bucket's, it is replaced")
        if verified is None:
            verified = bucket.download(file.remote, file.path, count, stop)
            came.append(file)
        manifest.record(file.path, bucket.url(file.remote.key), file.remote, verified)

    # What is small shows quickly whether all is well; of the rest the longest begins first.
    order = sorted(missing, key=lambda file: (file.remote.size > _SMALL, -file.remote.size))
    in_threads([partial(get, file) for file in order], _to_come(missing), f"fetching {plan.layout.name}", jobs)
    return len(came)


def in_threads(jobs: Iterable[Job], total: int, about: str, threads: int) -> None:
    """Run downloads in threads under one bar of `total` bytes; the first that fails, or Ctrl-C, stops the others."""
    stop, lock, came = threading.Event(), threading.Lock(), 0
    failed: list[Exception] = []
    with progress_bar(-(-total // 2**20), about, "MiB") as tick:

        def count(number: int) -> None:
            nonlocal came
            with lock:
                for _ in range((came + number) // 2**20 - came // 2**20):
                    tick()
                came += number

        def run(job: Job) -> None:
            try:
                if not stop.is_set():
                    job(count, stop)
            except StoppedError:
                pass
            except Exception as error:
                failed.append(error)
                stop.set()

        with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
            futures = [pool.submit(run, job) for job in jobs]
            try:
                wait(futures)
            except BaseException:
                stop.set()
                raise
    if failed:
        raise failed[0]

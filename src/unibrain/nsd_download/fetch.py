"""Fetching one subject of NSD: what a protocol needs, as the bucket has it; ask, download what is missing, check it."""

import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unibrain.errors import InputError
from unibrain.nsd_download.bucket import Bucket, RemoteFile, StoppedError, kept_bytes
from unibrain.scans.nsd_further import IMAGERY_RUNS
from unibrain.scans.nsd_layout import FILE_FORMATS, SAFE_NAME, SIMULATED_MARKER, NsdLayout, as_ranges
from unibrain.scans.nsd_regions import ATLAS_LABELS, REGIONS, STANDARD_LABELS
from unibrain.workspace.files import free_bytes, read_json, readable_bytes, require_space, write_json
from unibrain.workspace.progress import progress_bar, say
from unibrain.workspace.run_folder import folder_lock

NSD_TERMS = (
    "The Natural Scenes Dataset asks everyone who uses it to agree to its Terms and Conditions and to fill in its Data "
    "Access form. Both are on naturalscenesdataset.org: read them there, and fill in the form, before you download."
)
"""What NSD asks of its users. Its terms are on its site; they are not repeated here."""

MANIFEST_FILE = "fetch-manifest.json"
"""Name of the list of what was fetched, in the folder that was fetched into."""

_VOLUME = re.compile(r"(?!lh\.|rh\.)([A-Za-z0-9][A-Za-z0-9_.+-]*)\.nii\.gz")
_NO_VOLUME = ("", "brainmask", "lh", "rh", "default", "all")
# A plus at the end belongs to a label's name ("ecc4+").
_NEXT_NAME = re.compile(r",|\+(?=\s*[A-Za-z0-9])")
_SMALL = 2**26

Job = Callable[[Callable[[int], None], threading.Event], object]
"""A download: given a function that counts bytes, and the event that tells it to stop."""


# What is needed.


@dataclass(frozen=True)
class Choice:
    """What to fetch of NSD.

    Attributes
    ----------
    subject : int
        1 to 8.
    sessions : tuple of int or None
        1-based; None for all that the bucket has.
    file_format : {"hdf5", "nifti"}
        Of the betas.
    masks : tuple of str
        Masks and regions that will be read, named as for reading; ``"all"`` for every label volume. The volumes of the
        default regions come along where they exist.
    beta_version : str
        Folder of the betas.
    stimuli : bool
        Whether the pictures (40 GB) come along.
    further : tuple of str
        Further experiments, of `unibrain.scans.nsd_layout.FURTHER_SETS`, whose scans and stimuli come along.
    """

    subject: int
    sessions: tuple[int, ...] | None = None
    file_format: str = "hdf5"
    masks: tuple[str, ...] = ("nsdgeneral",)
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    stimuli: bool = True
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class NeededFile:
    """One file to have: what it is, where it will be, and what the bucket says of it."""

    kind: str
    path: Path
    remote: RemoteFile


@dataclass(frozen=True)
class Plan:
    """All files to have, the sessions whose betas are among them, and useful files that the bucket does not have."""

    layout: NsdLayout
    files: tuple[NeededFile, ...]
    sessions: tuple[int, ...]
    absent: tuple[str, ...]


def label_volumes(masks: Iterable[str]) -> set[str]:
    """Names of the label volumes that masks are made from; commas separate several masks.

    Examples
    --------
    >>> sorted(label_volumes(["nsdgeneral", "lh.V1+floc-faces:OFA", "brainmask"]))
    ['floc-faces', 'nsdgeneral', 'prf-visualrois']
    """
    volumes = {**STANDARD_LABELS, **ATLAS_LABELS}
    # Of labels that share a name the first volume's counts, as in the reader.
    by_label = {label: volume for volume in reversed(volumes) for label in volumes[volume].values()}
    found = set()
    for part in _NEXT_NAME.split(",".join(masks)):
        name = part.strip().removeprefix("lh.").removeprefix("rh.").partition(":")[0]
        if name not in _NO_VOLUME:
            found.add(REGIONS[name][0] if name in REGIONS else by_label.get(name, name))
    return found


def make_plan(bucket: Bucket, choice: Choice, root: Path) -> Plan:
    """List what the bucket has, and choose from it; what it lacks is said with what it has."""
    if choice.file_format not in FILE_FORMATS:
        raise InputError(f"--format is {choice.file_format!r}. Choose {' or '.join(FILE_FORMATS)}.")
    layout = NsdLayout(root, choice.subject, choice.beta_version)
    lister = _Lister(bucket, root)
    sessions = _sessions(lister, layout, choice)
    for session in sessions:
        lister.take("betas", layout.betas(session, choice.file_format))
    lister.take("design", layout.expdesign)
    lister.take("design", layout.stim_info)
    lister.take("behaviour", layout.responses, optional=True)
    lister.take("brain mask", layout.brainmask)
    lister.take("noise ceiling", layout.ncsnr(), optional=True)
    _take_labels(lister, layout, choice)
    if choice.stimuli:
        lister.take("pictures", layout.stimuli)
    for name in choice.further:
        _take_further(lister, layout, name, choice)
    return Plan(layout, tuple(lister.taken), sessions, tuple(lister.absent))


class _Lister:
    """Looks files up in the bucket's folders, each of which is listed once, and collects those that are taken."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self.bucket = bucket
        self.root = root
        self.taken: list[NeededFile] = []
        self.absent: list[str] = []
        self._folders: dict[str, dict[str, RemoteFile]] = {}

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def folder(self, path: Path) -> dict[str, RemoteFile]:
        key = self.key(path)
        if key not in self._folders:
            self._folders[key] = self.bucket.list(key)[0]
        return self._folders[key]

    def find(self, path: Path) -> RemoteFile | None:
        return self.folder(path.parent).get(self.key(path))

    def take(self, kind: str, path: Path, *, optional: bool = False) -> bool:
        remote = self.find(path)
        if remote is not None:
            self.taken.append(NeededFile(kind, path, remote))
        elif optional:
            self.absent.append(self.key(path))
        else:
            there = _some([key.rpartition("/")[2] for key in self.folder(path.parent)])
            raise InputError(
                f"{self.bucket.url(self.key(path))}: not in the bucket, which has {there} there. Check --mask if it is "
                "a label volume, or --endpoint."
            )
        return remote is not None


def _some(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(sorted(names)[:most]) or "nothing") + more


def _sessions(lister: _Lister, layout: NsdLayout, choice: Choice) -> tuple[int, ...]:
    where = lister.bucket.url(lister.key(layout.betas_folder))
    listed = lister.folder(layout.betas_folder)
    there = {
        name: {session for session in range(1, 1000) if lister.key(layout.betas(session, name)) in listed}
        for name in FILE_FORMATS
    }
    found = there[choice.file_format]
    wanted = set(choice.sessions or found or (1,))
    if found and wanted <= found:
        return tuple(sorted(wanted))
    if not any(there.values()):
        versions = lister.bucket.list(lister.key(layout.betas_folder.parent))[1]
        subjects = lister.bucket.list(lister.key(layout.betas_folder.parents[2]))[1]
        raise InputError(
            f"{where}: the bucket has no such betas. It has --beta-version {_some(versions)} of this subject, and the "
            f"subjects {_some(subjects)}."
        )
    has = "; ".join(f"sessions {as_ranges(numbers)} as {name}" for name, numbers in there.items() if numbers)
    raise InputError(
        f"{where}: no sessions {as_ranges(wanted - found)} as {choice.file_format}. The bucket has {has}: choose with "
        "--sessions and --format."
    )


def _take_further(lister: _Lister, layout: NsdLayout, name: str, choice: Choice) -> None:
    lister.take(name, layout.further_betas(name, choice.file_format))
    if name == "nsd-synthetic":
        lister.take(name, layout.synthetic_expdesign)
        for path in layout.synthetic_stimuli if choice.stimuli else ():
            lister.take(name, path)
        return
    for path in (*map(layout.imagery_responses, IMAGERY_RUNS), *layout.imagery_pairs.values()):
        lister.take(name, path)
    for folder in layout.imagery_targets.values() if choice.stimuli else ():
        for key in sorted(lister.bucket.list(lister.key(folder))[0]):
            if SAFE_NAME.fullmatch(target := key.rpartition("/")[2]):
                lister.take(name, folder / target)


def _take_labels(lister: _Lister, layout: NsdLayout, choice: Choice) -> None:
    needed = label_volumes(choice.masks)
    useful = {volume for volume, _ in REGIONS.values()} | set(STANDARD_LABELS)
    if "all" in ",".join(choice.masks).split(","):
        names = (key.rpartition("/")[2] for key in lister.folder(layout.roi("nsdgeneral").parent))
        useful |= {match[1] for name in names if (match := _VOLUME.fullmatch(name))}
    for name in sorted(needed | useful):
        if not lister.take("masks and regions", layout.roi(name), optional=name not in needed):
            continue
        for hemisphere in ("lh", "rh"):
            lister.take("masks and regions", layout.roi(name, hemisphere), optional=True)
        tables = [table for table in layout.label_tables(name) if lister.find(table) is not None]
        lister.take("names of regions", (tables or layout.label_tables(name))[0], optional=True)


# Getting it.


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
            self._files = {str(name): dict(entry) for name, entry in read_json(self.path)["files"].items()}
        except FileNotFoundError:
            pass
        except (InputError, ValueError, KeyError, TypeError, AttributeError):
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
    """The plan for people: one line for each kind of file."""
    root = plan.layout.root
    lines = [f"{plan.layout.name} of the Natural Scenes Dataset, sessions {as_ranges(plan.sessions)}"]
    for kind in dict.fromkeys(file.kind for file in plan.files):
        files = [file for file in plan.files if file.kind == kind]
        size = readable_bytes(sum(file.remote.size for file in files))
        place = (files[0].path if len(files) == 1 else files[0].path.parent).relative_to(root)
        lines.append(f"  {kind:<18} {len(files):>3} files  {size:>9}  {place.as_posix()}")
    if plan.absent:
        lines.append(f"not in the bucket, and not needed: {', '.join(plan.absent)}")
    whole = sum(file.remote.size for file in plan.files)
    lines += [
        f"from {bucket.address}",
        f"into {root.absolute()}",
        f"{len(plan.files)} files, {readable_bytes(whole)} ({whole:,} bytes), of which "
        f"{readable_bytes(_to_come(missing))} to download; {readable_bytes(free_bytes(root))} free on the disk",
    ]
    return "\n".join(lines)


def _download(bucket: Bucket, plan: Plan, missing: list[NeededFile], manifest: FetchManifest, jobs: int) -> int:
    """Get files, and return how many came; those that are there already and right stay."""
    came: list[NeededFile] = []

    def get(file: NeededFile, count: Callable[[int], None], stop: threading.Event) -> None:
        verified = None
        if _is_there(file) and (verified := bucket.verify(file.remote, file.path)) is None:
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

"""Which of NSD's files a protocol needs, as the bucket has them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.fetch.bucket import Bucket, RemoteFile
from unibrain.scans.nsd_betas import FILE_FORMATS
from unibrain.scans.nsd_regions import ATLAS_LABELS, STANDARD_LABELS
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import REGIONS
from unibrain.scans.nsd_layout import as_ranges

__all__ = ["Choice", "Plan", "PlannedFile", "label_volumes", "make_plan"]

_NIFTI = ".nii.gz"
_VOLUME_NAME = r"(?!lh\.|rh\.)[A-Za-z0-9][A-Za-z0-9_.+-]*\.nii\.gz"
_NO_VOLUME = ("", "brainmask", "lh", "rh", "default", "all")
# A plus at the end belongs to a label's name ("ecc4+").
_NEXT_NAME = re.compile(r",|\+(?=\s*[A-Za-z0-9])")


@dataclass(frozen=True)
class Choice:
    """What to fetch.

    Attributes
    ----------
    subject : int
        1 to 8.
    sessions : tuple of int or None
        1-based; None for all that the bucket has.
    file_format : {"hdf5", "nifti"}
        Of the betas.
    masks : tuple of str
        Masks and regions that will be read, named as for reading (`unibrain.scans.nsd_regions`); ``"all"`` for every
        label volume. The volumes of the default regions come along where they exist.
    beta_version : str
    stimuli : bool
        Whether the pictures (40 GB) come along.
    """

    subject: int
    sessions: tuple[int, ...] | None = None
    file_format: str = "hdf5"
    masks: tuple[str, ...] = ("nsdgeneral",)
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    stimuli: bool = True


@dataclass(frozen=True)
class PlannedFile:
    """One file to have.

    Attributes
    ----------
    kind : str
        What it is, for the list that is shown.
    path : pathlib.Path
        Where it will be.
    remote : RemoteFile
    """

    kind: str
    path: Path
    remote: RemoteFile


@dataclass(frozen=True)
class Plan:
    """All files to have.

    Attributes
    ----------
    layout : NsdLayout
    files : tuple of PlannedFile
    sessions : tuple of int
        Those whose betas are in it.
    absent : tuple of str
        Names of files that would be useful and that the bucket does not have.
    other_format : tuple of str and int, or None
        The other format of the betas and its bytes for the same sessions, if the bucket has all of them.
    """

    layout: NsdLayout
    files: tuple[PlannedFile, ...]
    sessions: tuple[int, ...]
    absent: tuple[str, ...]
    other_format: tuple[str, int] | None


def label_volumes(masks: Iterable[str]) -> set[str]:
    """Names of the label volumes that masks are made from.

    Parameters
    ----------
    masks : iterable of str
        Named as for reading, see `unibrain.scans.nsd_regions`; commas separate several.

    Returns
    -------
    set of str
        Without what needs no label volume (``"brainmask"``).

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
    """List what the bucket has, and choose from it.

    Parameters
    ----------
    bucket : Bucket
    choice : Choice
    root : pathlib.Path
        The folder that NSD's tree is to be in.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If the bucket lacks what was asked for (the sentence says what it has), or cannot be listed.
    """
    if choice.file_format not in FILE_FORMATS:
        raise InputError(
            f"--format is {choice.file_format!r}, expected {' or '.join(FILE_FORMATS)}: choose one of them"
        )
    if choice.sessions is not None and not choice.sessions:
        raise InputError("no session was named, expected at least one: give for example --sessions 1-37")
    layout = NsdLayout(root, choice.subject, choice.beta_version)
    lister = _Lister(bucket, root)
    sessions = _sessions(lister, layout, choice)
    for session in sessions:
        lister.take("betas", layout.betas(session, choice.file_format))
    lister.take("design", layout.expdesign)
    lister.take("design", layout.stim_info)
    lister.take("behaviour", layout.responses)
    lister.take("brain mask", layout.brainmask)
    lister.take("noise ceiling", layout.ncsnr(), optional=True)
    _take_labels(lister, layout, choice)
    if choice.stimuli:
        lister.take("pictures", layout.stimuli)
    other = FILE_FORMATS[1 - FILE_FORMATS.index(choice.file_format)]
    sizes = [lister.size(layout.betas(session, other)) for session in sessions]
    # Kept as text and number: the plan speaks of bytes, whoever shows it chooses the unit.
    other_format = (other, sum(size for size in sizes if size)) if all(size is not None for size in sizes) else None
    return Plan(layout, tuple(lister.taken), sessions, tuple(lister.absent), other_format)


class _Lister:
    """Looks files up in the bucket's folders, each of which is listed once, and collects those that are taken."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self.bucket = bucket
        self.root = root
        self.taken: list[PlannedFile] = []
        self.absent: list[str] = []
        self._folders: dict[str, dict[str, RemoteFile]] = {}

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def folder(self, path: Path) -> dict[str, RemoteFile]:
        key = self.key(path)
        if key not in self._folders:
            self._folders[key] = self.bucket.files(key)
        return self._folders[key]

    def find(self, path: Path) -> RemoteFile | None:
        return self.folder(path.parent).get(self.key(path))

    def size(self, path: Path) -> int | None:
        remote = self.find(path)
        return None if remote is None else remote.size

    def names(self, path: Path) -> str:
        """What is in a folder, shortened."""
        names = sorted(key.rpartition("/")[2] for key in self.folder(path))
        return _some(names)

    def subfolders(self, path: Path) -> str:
        return _some(self.bucket.folders(self.key(path)))

    def take(self, kind: str, path: Path, *, optional: bool = False) -> None:
        remote = self.find(path)
        if remote is not None:
            self.taken.append(PlannedFile(kind, path, remote))
        elif optional:
            self.absent.append(self.key(path))
        else:
            raise InputError(
                f"{self.bucket.url(self.key(path))}: found no such file, there is {self.names(path.parent)}: "
                "check --endpoint, or --mask if it is a label volume"
            )


def _some(names: list[str], most: int = 12) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _sessions(lister: _Lister, layout: NsdLayout, choice: Choice) -> tuple[int, ...]:
    there: dict[str, list[int]] = {name: [] for name in FILE_FORMATS}
    suffixes = {layout.betas(1, name).name.partition("01")[2]: name for name in FILE_FORMATS}
    for key in lister.folder(layout.betas_folder):
        match = re.fullmatch(r"betas_session([0-9]{2,3})(\..+)", key.rpartition("/")[2])
        if match and match[2] in suffixes:
            there[suffixes[match[2]]].append(int(match[1]))
    if not any(there.values()):
        raise InputError(_no_betas(lister, layout))
    found = there[choice.file_format]
    if not found:
        other = next(name for name in FILE_FORMATS if there[name])
        raise InputError(
            f"{lister.bucket.url(lister.key(layout.betas_folder))}: found no betas as {choice.file_format} for "
            f"{layout.name}, there are sessions {as_ranges(there[other])} as {other}: give --format {other}"
        )
    wanted = tuple(sorted(found)) if choice.sessions is None else tuple(sorted(set(choice.sessions)))
    absent = sorted(set(wanted) - set(found))
    if absent:
        raise InputError(
            f"{lister.bucket.url(lister.key(layout.betas_folder))}: found no session {as_ranges(absent)} of "
            f"{layout.name} as {choice.file_format}, there are sessions {as_ranges(found)}: name some of these "
            "with --sessions"
        )
    return wanted


def _no_betas(lister: _Lister, layout: NsdLayout) -> str:
    where = lister.bucket.url(lister.key(layout.betas_folder))
    versions = lister.subfolders(layout.betas_folder.parent)
    if versions != "nothing":
        return f"{where}: found no betas there, there is {versions}: give --beta-version as one of the betas' folders"
    subjects = lister.subfolders(layout.betas_folder.parents[2])
    return f"{where}: found no betas of {layout.name}, there is {subjects}: check --subject and --endpoint"


def _take_labels(lister: _Lister, layout: NsdLayout, choice: Choice) -> None:
    needed = label_volumes(choice.masks)
    useful = {volume for volume, _ in REGIONS.values()} | set(STANDARD_LABELS)
    if "all" in ",".join(choice.masks).split(","):
        names = (key.rpartition("/")[2] for key in lister.folder(layout.roi("nsdgeneral").parent))
        useful |= {name.removesuffix(_NIFTI) for name in names if re.fullmatch(_VOLUME_NAME, name)}
    for name in sorted(needed | useful):
        lister.take("masks and regions", layout.roi(name), optional=name not in needed)
        if lister.find(layout.roi(name)) is None:
            continue
        for hemisphere in ("lh", "rh"):
            lister.take("masks and regions", layout.roi(name, hemisphere), optional=True)
        tables = [table for table in layout.label_tables(name) if lister.find(table) is not None]
        if tables:
            lister.take("names of regions", tables[0])
        else:
            lister.absent.append(lister.key(layout.label_tables(name)[0]))

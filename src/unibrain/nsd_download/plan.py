"""Which of NSD's files a protocol needs, as the bucket has them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError
from unibrain.nsd_download.bucket import Bucket, RemoteFile
from unibrain.scans.nsd_layout import FILE_FORMATS, NsdLayout, as_ranges
from unibrain.scans.nsd_regions import ATLAS_LABELS, REGIONS, STANDARD_LABELS
from unibrain.workspace.disk import readable_bytes

_VOLUME = re.compile(r"(?!lh\.|rh\.)([A-Za-z0-9][A-Za-z0-9_.+-]*)\.nii\.gz")
_NO_VOLUME = ("", "brainmask", "lh", "rh", "default", "all")
# A plus at the end belongs to a label's name ("ecc4+").
_NEXT_NAME = re.compile(r",|\+(?=\s*[A-Za-z0-9])")


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
    """

    subject: int
    sessions: tuple[int, ...] | None = None
    file_format: str = "hdf5"
    masks: tuple[str, ...] = ("nsdgeneral",)
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    stimuli: bool = True


@dataclass(frozen=True)
class NeededFile:
    """One file to have: what it is, where it will be, and what the bucket says of it."""

    kind: str
    path: Path
    remote: RemoteFile


@dataclass(frozen=True)
class Plan:
    """All files to have.

    Attributes
    ----------
    layout : NsdLayout
    files : tuple of NeededFile
    sessions : tuple of int
        Those whose betas are in it.
    absent : tuple of str
        Files that would be useful and that the bucket does not have.
    """

    layout: NsdLayout
    files: tuple[NeededFile, ...]
    sessions: tuple[int, ...]
    absent: tuple[str, ...]

    def text(self) -> str:
        """The plan for people: one line for each kind of file."""
        lines = [f"{self.layout.name} of the Natural Scenes Dataset, sessions {as_ranges(self.sessions)}"]
        kinds: dict[str, list[NeededFile]] = {}
        for file in self.files:
            kinds.setdefault(file.kind, []).append(file)
        for kind, files in kinds.items():
            size = readable_bytes(sum(file.remote.size for file in files))
            place = (files[0].path if len(files) == 1 else files[0].path.parent).relative_to(self.layout.root)
            lines.append(f"  {kind:<18} {len(files):>3} files  {size:>9}  {place.as_posix()}")
        if self.absent:
            lines.append(f"not in the bucket, and not needed: {', '.join(self.absent)}")
        return "\n".join(lines)


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
    """List what the bucket has, and choose from it.

    Raises
    ------
    InputError
        If the bucket lacks what was asked for (the sentence says what it has), or cannot be listed.
    """
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
    there: dict[str, set[int]] = {name: set() for name in FILE_FORMATS}
    for key in lister.folder(layout.betas_folder):
        for name in FILE_FORMATS:
            match = re.fullmatch(r"betas_session([0-9]{2,3})\..+", key.rpartition("/")[2])
            if match and lister.key(layout.betas(int(match[1]), name)) == key:
                there[name].add(int(match[1]))
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

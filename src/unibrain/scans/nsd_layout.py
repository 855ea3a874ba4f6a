"""Where every file of the Natural Scenes Dataset lies."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unibrain.errors import InputError

BETA_SCALE = 300.0
"""Stored betas are percent signal change times this."""
REPEATS = 3
"""How often NSD shows each image; also the number of averaged trials that a noise ceiling refers to."""
SUBJECTS = 8
"""People in NSD: rows of ``subjectim``, columns of the stimulus table."""
VOXEL_SIZE = 1.8
"""Side of a voxel of ``func1pt8mm`` in mm."""
SIMULATED_MARKER = "SIMULATED.json"
"""A file of this name at the root says that no human was scanned."""
FILE_FORMATS = ("hdf5", "nifti")
"""Of the betas, in the order of preference: one chunk per voxel makes a masked read of the HDF5 the quicker one."""

FETCH = "Download it, or check the folder given as NSD's root"
TOGETHER = "Take all files from one download"

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""What names of files that come from settings or folders may look like."""


@dataclass(frozen=True)
class NsdLayout:
    """Paths of one subject in a tree that is laid out as NSD's bucket is.

    Only names are kept here: every size (grid, trials per session, number of images, of shared images, of pixels) is
    read from the files themselves.

    Attributes
    ----------
    root : pathlib.Path
        The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    subject : int
        1 to 8.
    beta_version : str
        Folder of the betas: ``betas_assumehrf``, ``betas_fithrf`` or ``betas_fithrf_GLMdenoise_RR``.
    space : str
        Folder of the volumes' grid.

    Raises
    ------
    InputError
        If the subject is not one of NSD's, or a name could lead out of the tree.
    """

    root: Path
    subject: int = 1
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    space: str = "func1pt8mm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        if self.subject not in range(1, SUBJECTS + 1):
            raise InputError(f"subject is {self.subject}. Choose one of NSD's subjects, 1 to {SUBJECTS}.")
        for name in (self.beta_version, self.space):
            _check_name(name)

    @property
    def name(self) -> str:
        """``subj01`` to ``subj08``."""
        return f"subj{self.subject:02d}"

    @property
    def marker(self) -> Path:
        """Present only in a simulated tree."""
        return self.root / SIMULATED_MARKER

    @property
    def expdesign(self) -> Path:
        """The experiment's design, a MAT file."""
        return self.root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"

    @property
    def stim_info(self) -> Path:
        """One row per image: COCO id and split, and which trials showed it."""
        return self.root / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv"

    @property
    def responses(self) -> Path:
        """One row per trial that was run."""
        return self.root / "nsddata" / "ppdata" / self.name / "behav" / "responses.tsv"

    @property
    def volumes(self) -> Path:
        """Folder of the anatomy in the betas' grid."""
        return self.root / "nsddata" / "ppdata" / self.name / self.space

    @property
    def brainmask(self) -> Path:
        """1 inside the brain."""
        return self.volumes / "brainmask.nii.gz"

    def roi(self, name: str, hemisphere: str = "") -> Path:
        """Label volume of a set of regions; `hemisphere` is ``"lh"``, ``"rh"`` or empty for both."""
        _check_name(name)
        return self.volumes / "roi" / f"{hemisphere}{'.' if hemisphere else ''}{name}.nii.gz"

    def label_tables(self, name: str) -> tuple[Path, Path]:
        """Where the names of a label volume's numbers may be: the subject's folder, then the atlas folder."""
        _check_name(name)
        surfaces = self.root / "nsddata" / "freesurfer"
        return (
            surfaces / self.name / "label" / f"{name}.mgz.ctab",
            surfaces / "fsaverage" / "label" / f"{name}.mgz.ctab",
        )

    @property
    def betas_folder(self) -> Path:
        """Folder of the single-trial betas and of what was computed from them."""
        return self.root / "nsddata_betas" / "ppdata" / self.name / self.space / self.beta_version

    def betas(self, session: int, file_format: str) -> Path:
        """Betas of one session (1-based) as ``"nifti"`` or ``"hdf5"``."""
        suffix = {"nifti": "nii.gz", "hdf5": "hdf5"}[file_format]
        return self.betas_folder / f"betas_session{session:02d}.{suffix}"

    def ncsnr(self, split: str = "") -> Path:
        """Noise ceiling signal-to-noise ratio; `split` is empty, ``"_split1"`` or ``"_split2"``."""
        return self.betas_folder / f"ncsnr{split}.nii.gz"

    @property
    def stimuli(self) -> Path:
        """All pictures, HDF5."""
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"

    def files_read(self) -> dict[str, Path]:
        """Every file and folder that reading this subject's scans depends on, by what it is; some need not be there."""
        surfaces = self.root / "nsddata" / "freesurfer"
        tables = sorted(
            table for whose in (self.name, "fsaverage") for table in (surfaces / whose / "label").glob("*.mgz.ctab")
        )
        return {
            "the mark of simulated scans": self.marker,
            "the design": self.expdesign,
            "the table of pictures": self.stim_info,
            "responses.tsv": self.responses,
            "the folder of the betas": self.betas_folder,
            "the brain mask": self.brainmask,
            "the folder of the regions": self.volumes / "roi",
            **{f"the labels {table.relative_to(surfaces)}": table for table in tables},
        }

    def captions(self, split: str) -> Path:
        """COCO's captions of one COCO split (``"train2017"`` or ``"val2017"``); not part of NSD's own download."""
        _check_name(split)
        return self.stimuli.parent / "annotations" / f"captions_{split}.json"


def formats_of(file_format: str) -> tuple[str, ...]:
    """Formats of betas that ``"auto"``, ``"nifti"`` or ``"hdf5"`` stands for, best first."""
    if file_format not in ("auto", *FILE_FORMATS):
        raise InputError(f"file_format is {file_format!r}. Choose auto, nifti or hdf5.")
    return FILE_FORMATS if file_format == "auto" else (file_format,)


def present_sessions(layout: NsdLayout, file_format: str) -> tuple[int, ...]:
    """Sessions whose betas are there, in the format that has most of them."""
    found = []
    for candidate in formats_of(file_format):
        before, after = layout.betas(0, candidate).name.split("00")
        pattern = re.compile(rf"{re.escape(before)}(\d\d+){re.escape(after)}")
        names = layout.betas_folder.iterdir() if layout.betas_folder.is_dir() else ()
        found.append(tuple(sorted(int(match[1]) for path in names if (match := pattern.fullmatch(path.name)))))
    return max(found, key=len)


def as_ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges.

    Examples
    --------
    >>> as_ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(str(number) for number in part) for part in parts)


def parse_sessions(text: str) -> tuple[int, ...]:
    """Read numbers and ranges such as ``1-37`` or ``1,2,5-7``; ascending, each once.

    Raises
    ------
    ValueError
        If a part is something else, is 0, or ends before it begins. The message says what is wrong with which part.

    Examples
    --------
    >>> parse_sessions("3,1-2")
    (1, 2, 3)
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,3})\s*(?:-\s*([0-9]{1,3})\s*)?", part)
        if match is None:
            raise ValueError(f"{part.strip()[:40]!r} is no number or range such as 1-37")
        first, last = int(match[1]), int(match[2] or match[1])
        if first < 1:
            raise ValueError(f"{part.strip()!r} begins at 0, and sessions are counted from 1")
        if last < first:
            raise ValueError(f"{part.strip()!r} ends before it begins")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def _check_name(name: str) -> None:
    # Names come from settings and files: none may lead out of the tree.
    if not SAFE_NAME.fullmatch(name):
        raise InputError(
            f"the name {name!r} is not plain (letters, digits and ._+-). Give a name such as 'nsdgeneral'."
        )

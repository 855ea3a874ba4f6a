"""Where every file of the Natural Scenes Dataset lies."""

import re
from collections.abc import Iterable
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

FETCH_FURTHER = "Fetch it with `unibrain nsd fetch --further SET`"
FURTHER_SETS = ("nsd-synthetic", "nsd-imagery")
"""Experiments with the same people in one more session each, whose betas lie beside those of NSD itself."""

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""What names of files that come from settings or folders may look like."""


class NsdLayout:
    """Paths of one subject (1 to 8) in a tree that is laid out as NSD's bucket is.

    Only names are kept here: every size (grid, trials per session, number of images, of shared images, of pixels) is
    read from the files themselves. A name that could lead out of the tree is refused.
    """

    def __init__(self, root: Path, subject: int = 1, beta_version: str = "betas_fithrf_GLMdenoise_RR") -> None:
        if subject not in range(1, SUBJECTS + 1):
            raise InputError(f"subject is {subject}. Choose one of NSD's subjects, 1 to {SUBJECTS}.")
        self.root, self.subject, self.name = Path(root), subject, f"subj{subject:02d}"
        data, space = self.root / "nsddata", "func1pt8mm"
        self.marker = self.root / SIMULATED_MARKER
        self.expdesign = data / "experiments" / "nsd" / "nsd_expdesign.mat"
        self.stim_info = data / "experiments" / "nsd" / "nsd_stim_info_merged.csv"  # one row per image
        self.responses = data / "ppdata" / self.name / "behav" / "responses.tsv"  # one row per trial that was run
        self.volumes = data / "ppdata" / self.name / space
        self.brainmask = self.volumes / "brainmask.nii.gz"
        self.betas_folder = self.root / "nsddata_betas" / "ppdata" / self.name / space / _checked(beta_version)
        self.stimuli = self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"  # all pictures
        self._surfaces = data / "freesurfer"
        self._version = beta_version
        synthetic, imagery = (data / "experiments" / name for name in ("nsdsynthetic", "nsdimagery"))
        self.synthetic_expdesign = synthetic / "nsdsynthetic_expdesign.mat"
        shown = self.root / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
        # All pictures of NSD-Synthetic: those of everybody, and behind them those with this person's own colours.
        self.synthetic_stimuli = (
            shown / "nsdsynthetic_stimuli.hdf5",
            shown / f"nsdsynthetic_colorstimuli_{self.name}.hdf5",
        )
        self.imagery_targets = {letter: imagery / "rawtargetimages" / f"set{letter}" for letter in "AB"}
        self.imagery_pairs = {letter: imagery / f"{letter}_pair_list.mat" for letter in "AB"}

    def roi(self, name: str, hemisphere: str = "") -> Path:
        """Label volume of a set of regions; `hemisphere` is ``"lh"``, ``"rh"`` or empty for both."""
        return self.volumes / "roi" / f"{hemisphere}{'.' if hemisphere else ''}{_checked(name)}.nii.gz"

    def label_tables(self, name: str) -> tuple[Path, Path]:
        """Where the names of a label volume's numbers may be: the subject's folder, then the atlas folder."""
        table = f"{_checked(name)}.mgz.ctab"
        return self._surfaces / self.name / "label" / table, self._surfaces / "fsaverage" / "label" / table

    def betas(self, session: int, file_format: str) -> Path:
        """Betas of one session (1-based) as ``"nifti"`` or ``"hdf5"``."""
        suffix = {"nifti": "nii.gz", "hdf5": "hdf5"}[file_format]
        return self.betas_folder / f"betas_session{session:02d}.{suffix}"

    def further_betas(self, name: str, file_format: str) -> Path:
        """Betas of one of `FURTHER_SETS`, all trials in one file."""
        experiment, suffix = name.replace("-", ""), {"nifti": "nii.gz", "hdf5": "hdf5"}[file_format]
        return self.betas_folder.parent / f"{experiment}{self._version}" / f"betas_{experiment}.{suffix}"

    def imagery_responses(self, run: str) -> Path:
        """The trials of one run of NSD-Imagery, such as ``"visA"``."""
        return self.root / "nsddata" / "bdata" / "nsdimagery" / f"nsdimagery_{self.name}_{run}.tsv"

    def ncsnr(self, split: str = "") -> Path:
        """Noise ceiling signal-to-noise ratio; `split` is empty, ``"_split1"`` or ``"_split2"``."""
        return self.betas_folder / f"ncsnr{split}.nii.gz"

    def captions(self, split: str) -> Path:
        """COCO's captions of one COCO split (``"train2017"`` or ``"val2017"``); not part of NSD's own download."""
        return self.stimuli.parent / "annotations" / f"captions_{_checked(split)}.json"

    def files_read(self) -> dict[str, Path]:
        """Every file and folder that reading this subject's scans depends on, by what it is; some need not be there."""
        folders = [self._surfaces / whose / "label" for whose in (self.name, "fsaverage")]
        tables = sorted(table for folder in folders for table in folder.glob("*.mgz.ctab"))
        return {
            "the mark of simulated scans": self.marker,
            "the design": self.expdesign,
            "the table of pictures": self.stim_info,
            "responses.tsv": self.responses,
            "the folder of the betas": self.betas_folder,
            "the brain mask": self.brainmask,
            "the folder of the regions": self.volumes / "roi",
            **{f"the labels {table.relative_to(self._surfaces)}": table for table in tables},
        }


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
        matches = (pattern.fullmatch(path.name) for path in layout.betas_folder.glob("*"))
        found.append(tuple(sorted(int(match[1]) for match in matches if match)))
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
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def parse_sessions(text: str) -> tuple[int, ...]:
    """Read numbers and ranges such as ``1-37`` or ``1,2,5-7``; ascending, each once.

    The `ValueError` about a part that is something else, is 0, or ends before it begins says what is wrong with it.

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


def _checked(name: str) -> str:
    # Names come from settings and files: none may lead out of the tree.
    if not SAFE_NAME.fullmatch(name):
        raise InputError(
            f"the name {name!r} is not plain (letters, digits and ._+-). Give a name such as 'nsdgeneral'."
        )
    return name

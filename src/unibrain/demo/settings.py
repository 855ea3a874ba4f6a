"""What to simulate."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from unibrain.errors import InputError
from unibrain.scans.nsd_layout import FILE_FORMATS, REPEATS, SUBJECTS

NSD_PIXELS = 425
"""Side of NSD's pictures."""


@dataclass(frozen=True)
class Difficulty:
    """How noisy single trials are.

    Attributes
    ----------
    shared_scale : float
        Deviation of the noise with the signal's covariance, in units of the signal's.
    noise_ceiling : float
        Median noise ceiling of three averaged repeats over ``nsdgeneral``, percent. NSD's subjects have 13 to 34.
    """

    shared_scale: float
    noise_ceiling: float


DIFFICULTIES: Mapping[str, Difficulty] = MappingProxyType(
    {
        "easy": Difficulty(shared_scale=1.0, noise_ceiling=30.0),
        "realistic": Difficulty(shared_scale=2.0, noise_ceiling=18.0),
    }
)


@dataclass(frozen=True)
class SimulationSettings:
    """Size, seed and difficulty of a simulated dataset; the default is the demo's.

    Attributes
    ----------
    difficulty : {"easy", "realistic"}
        See ``docs/simulated-subject.md``.
    seed : int
        0 or more; the same settings give the same files.
    training_images, test_images : int
        For each subject. Test images are the shared ones, the same for all subjects. All are shown three times, save
        one training image that is shown once, and as many that are shown twice as make the sessions equally long (at
        least one); see `all_repeats`.
    sessions : int
        At least 2.
    grid : tuple of int
        X, Y, Z of the volumes. About a third of it is inside ``nsdgeneral``.
    picture_size : int
        Side of the pictures in pixels, a multiple of 16, or NSD's 425.
    subjects : tuple of int
        Which of NSD's eight subjects are scanned.
    beta_formats : tuple of {"hdf5", "nifti"}
        Formats the betas are written in. NSD has both; one is enough to read, and HDF5 is the quicker one.
    all_repeats : bool
        Show every image three times, as NSD's whole design does. The sessions must divide the trials. With 9,000
        training and 1,000 test images and 40 sessions the numbers are NSD's: 750 trials in a session, 10,000 images for
        a subject, 73,000 in all.
    curated_captions : bool
        Write the array of curated captions as well, beside COCO's files: a row for every image of all eight subjects.
    semantic_fields : bool
        Give semantic voxels receptive fields: each counts an object by how much of its field the object fills,
        instead of by the object's size alone.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    difficulty: str = "easy"
    seed: int = 1
    training_images: int = 3000
    test_images: int = 120
    sessions: int = 10
    grid: tuple[int, int, int] = (24, 26, 20)
    picture_size: int = 64
    subjects: tuple[int, ...] = (1,)
    beta_formats: tuple[str, ...] = ("hdf5",)
    all_repeats: bool = False
    curated_captions: bool = False
    semantic_fields: bool = False

    def __post_init__(self) -> None:
        _expect("difficulty", self.difficulty, self.difficulty in DIFFICULTIES, f"one of {', '.join(DIFFICULTIES)}")
        for name, least in (("seed", 0), ("training_images", 4), ("test_images", 2), ("sessions", 2)):
            _expect(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        few = self.sessions <= self.training_images - 2 and self.trials_per_session >= 4
        _expect("sessions", self.sessions, few, "four trials or more in each, and at least two more training images")
        whole = not self.all_repeats or REPEATS * self.images_per_subject % self.sessions == 0
        _expect("sessions", self.sessions, whole, f"a divisor of {REPEATS} x {self.images_per_subject} trials")
        _expect("grid", self.grid, len(self.grid) == 3 and min(self.grid) >= 6, "three numbers of at least 6")
        size = self.picture_size
        _expect("picture_size", size, size >= 16 and (size % 16 == 0 or size == NSD_PIXELS), "a multiple of 16, or 425")
        subjects = self.subjects
        known = bool(subjects) and set(subjects) <= set(range(1, SUBJECTS + 1)) and len(set(subjects)) == len(subjects)
        _expect("subjects", subjects, known, f"different numbers from 1 to {SUBJECTS}")
        formats = self.beta_formats
        _expect("beta_formats", formats, bool(formats) and set(formats) <= set(FILE_FORMATS), "'hdf5', 'nifti' or both")

    @property
    def noise(self) -> Difficulty:
        """How noisy the voxels are."""
        return DIFFICULTIES[self.difficulty]

    @property
    def images_per_subject(self) -> int:
        """NSD: 10,000."""
        return self.test_images + self.training_images

    @property
    def images(self) -> int:
        """Images of all eight subjects. NSD: 73,000."""
        return self.test_images + SUBJECTS * self.training_images

    @property
    def trials_per_session(self) -> int:
        """NSD: 750. The last three repeats of the full design are left out unless `all_repeats`."""
        return (REPEATS * self.images_per_subject - (0 if self.all_repeats else REPEATS)) // self.sessions


def grid_of(voxels: int) -> tuple[int, int, int]:
    """Size of the volumes that have about so many voxels inside ``nsdgeneral``."""
    scale = (voxels / 4026) ** (1 / 3)  # what the usual grid has
    x, y, z = (round(scale * side) for side in SimulationSettings.grid)
    return x, y, z


def _expect(name: str, given: object, right: bool, choices: str) -> None:
    if not right:
        raise InputError(f"{name} = {given!r} cannot be simulated. Choose {choices}.")

"""Which images are shown, and in which order, with NSD's index bases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.demo.scenes import Scene, Split, sample_scene
from unibrain.demo.settings import SimulationSettings
from unibrain.scans.nsd_layout import REPEATS, SUBJECTS

_SLOTS, _LEADING, _TRAILING, _BLANKS = 75, 3, 4, 5
_RUN_LENGTHS = (63, 62)
_VALIDATION_EVERY = 5


@dataclass(frozen=True)
class Experiment:
    """The design of a simulated dataset; ids are 1-based, as in NSD's files.

    Attributes
    ----------
    masterordering : ndarray of shape (trials,), int64
        10k id of every trial.
    subjectim : ndarray of shape (8, images per subject), int64
        73k id of every 10k id.
    sharedix : ndarray of shape (test images,), int64
        Ascending; the first columns of `subjectim`.
    basiccnt : ndarray of shape (3, sessions), int64
        How many images are shown exactly once, twice, three times within a session.
    stimpattern : ndarray of shape (sessions, runs, 75), int64
        1 where a four-second slot holds a stimulus.
    trials_per_session : int
    """

    masterordering: NDArray[np.int64]
    subjectim: NDArray[np.int64]
    sharedix: NDArray[np.int64]
    basiccnt: NDArray[np.int64]
    stimpattern: NDArray[np.int64]
    trials_per_session: int

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self.masterordering) // self.trials_per_session

    def trials(self, session: int) -> slice:
        """Trials of a session (1-based)."""
        return slice((session - 1) * self.trials_per_session, session * self.trials_per_session)

    def repetitions(self) -> NDArray[np.int64]:
        """1-based trial numbers of every 10k id, 0 where there are fewer: shape (images per subject, 3)."""
        numbers = np.zeros((self.subjectim.shape[1], REPEATS), dtype=np.int64)
        shown = np.zeros(self.subjectim.shape[1], dtype=np.int64)
        for trial, image in enumerate(self.masterordering - 1, 1):
            numbers[image, shown[image]] = trial
            shown[image] += 1
        return numbers


def run_lengths(trials: int) -> list[int]:
    """Divide a session into runs: 63 trials in odd ones, 62 in even ones (NSD: 12 runs of 750), the last shorter."""
    lengths: list[int] = []
    while sum(lengths) < trials:
        lengths.append(min(_RUN_LENGTHS[len(lengths) % 2], trials - sum(lengths)))
    return lengths


def draw_experiment(settings: SimulationSettings, rng: np.random.Generator) -> Experiment:
    """Draw which image is shown when."""
    shared, own = settings.test_images, settings.training_images
    sharedix = np.sort(rng.permutation(settings.images)[:shared]) + 1
    rest = rng.permutation(np.setdiff1d(np.arange(1, settings.images + 1), sharedix))
    subjectim = np.hstack([np.tile(sharedix, (SUBJECTS, 1)), rest.reshape(SUBJECTS, own)])

    repeats = np.full(shared + own, REPEATS)
    if not settings.all_repeats:
        repeats[-1], repeats[-2] = 1, 2
        surplus = int(repeats.sum()) % settings.sessions
        repeats[shared + own - 2 - surplus : shared + own - 2] -= 1
    masterordering = rng.permutation(np.repeat(np.arange(1, shared + own + 1), repeats))

    length = settings.trials_per_session
    basiccnt = np.zeros((REPEATS, settings.sessions), dtype=np.int64)
    for session, trials in enumerate(masterordering.reshape(settings.sessions, length)):
        times = np.unique(trials, return_counts=True)[1]
        basiccnt[:, session] = [(times == number).sum() for number in range(1, REPEATS + 1)]
    runs = run_lengths(length)
    stimpattern = np.zeros((settings.sessions, len(runs), _SLOTS), dtype=np.int64)
    middle = _SLOTS - _LEADING - _TRAILING
    for session in range(settings.sessions):
        for run, trials_of_run in enumerate(runs):
            # At least five blanks among the slots between the leading and the trailing ones.
            slots = np.sort(rng.permutation(middle)[: middle - _BLANKS]) + _LEADING
            stimpattern[session, run, slots[:trials_of_run]] = 1
    return Experiment(masterordering, subjectim.astype(np.int64), sharedix, basiccnt, stimpattern, length)


def draw_scenes(settings: SimulationSettings, experiment: Experiment) -> dict[int, Scene]:
    """Give every image that a scanned subject sees a scene of its own, by 0-based 73k id, ascending.

    Shared (test) images are scenes of the split ``test``, all others of the split ``train``; no scene occurs twice.
    """
    taken: set[str] = set()
    scenes = {}
    shared = settings.test_images
    streams: list[tuple[Split, int, NDArray[np.int64]]] = [("test", 0, experiment.sharedix)]
    for subject in settings.subjects:
        # A subject's scenes do not depend on which other subjects are simulated, save for the rare redrawn one.
        start = (subject - 1) * 2 * settings.training_images
        streams.append(("train", start, experiment.subjectim[subject - 1, shared:]))
    for split, start, ids in streams:
        index = start
        for stimulus_id in (ids - 1).tolist():
            scene = sample_scene(settings.seed, index, split)
            while scene.key in taken:
                index += 1
                scene = sample_scene(settings.seed, index, split)
            index += 1
            taken.add(scene.key)
            scenes[stimulus_id] = scene
    return dict(sorted(scenes.items()))


def draw_coco(
    settings: SimulationSettings, experiment: Experiment, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Draw a COCO id and split for every image; shared images are all of ``train2017``."""
    coco_ids = rng.permutation(max(600_000, 2 * settings.images))[: settings.images] + 1
    splits = np.full(settings.images, "train2017")
    splits[experiment.subjectim[:, settings.test_images :: _VALIDATION_EVERY].ravel() - 1] = "val2017"
    return coco_ids.astype(np.int64), splits

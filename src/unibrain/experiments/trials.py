"""Single trials of test images, prepared as a run prepared their averages: with the statistics of its training rows."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.experiments.bench import Bench

_CLOSE = 1e-3  # in standard deviations: float32 sums of z-scores of any usual size agree much closer


@dataclass(frozen=True, eq=False)
class Trials:
    """Every trial of some images that have equally many.

    `betas` (images, repeats, voxels), float32, are in chronological order, and the training mean where a voxel was not
    `measured` (bool, same shape) in that session.
    """

    betas: NDArray[np.float32]
    measured: NDArray[np.bool_]

    def average(self, repeats: Iterable[int]) -> NDArray[np.float32]:
        """Mean over some repeats (0-based), as the run averages: over the trials in which a voxel was measured."""
        chosen = list(repeats)
        betas, measured = self.betas[:, chosen], self.measured[:, chosen]
        counts = measured.sum(axis=1)
        means = (betas * measured).sum(axis=1) / np.maximum(counts, 1).astype(np.float32)
        return np.asarray(np.where(counts > 0, means, betas[:, 0]), dtype=np.float32)


def equally_repeated(bench: Bench) -> tuple[int, NDArray[np.int64]]:
    """The largest number of trials that at least two test images have, and these images."""
    test = bench.subject.test
    numbers, images = np.unique(test.repeats, return_counts=True)
    most = int(numbers[images >= 2].max(initial=1))
    return most, test.stimulus_ids[test.repeats == most]


def read_trials(bench: Bench, ids: NDArray[np.int64]) -> Trials:
    """Read the trials of test images again, and prepare them as the run did.

    In place of the average, each trial of these images is a row by itself; everything else is what
    `unibrain.scans.read_nsd` does, so means, deviations and dropped voxels are those of the run.

    Raises
    ------
    InputError
        If the run is on other data than NSD's layout, or its scans are not those any more.
    """
    from unibrain.scans.nsd_betas import choose_format, gather_sessions
    from unibrain.scans.nsd_design import read_design
    from unibrain.scans.nsd_layout import BETA_SCALE
    from unibrain.scans.nsd_regions import read_mask, subject_grid
    from unibrain.scans.prepare import prepare_rows

    layout, done = bench.nsd, bench.subject.preparation
    if layout is None:
        raise InputError("single trials are read from NSD's layout only, and this run is on data of your own.")
    root, design = layout.root, read_design(layout, done["sessions"])
    file_format = choose_format(layout, design.sessions, bench.settings.prepare.format)
    mask = read_mask(layout, str(done["mask"]), subject_grid(layout, (design.sessions[0], file_format)))
    # An id of its own for each trial of these images: the first keeps that of the image.
    base = int(design.stimulus_ids.max()) + 1
    number = np.zeros(len(design.stimulus_ids), dtype=np.int64)
    for identity in ids:
        shown = np.flatnonzero(design.stimulus_ids == identity)
        number[shown] = np.arange(len(shown))
    design = replace(design, stimulus_ids=design.stimulus_ids + base * number)
    scratch = bench.cache / "sessions"
    sessions = gather_sessions(layout, mask, design, scratch, file_format)
    how = {"average": str(done["average"]), "zscore": str(done["zscore"])}
    single, kept, _ = prepare_rows(sessions, design, str(root), scale=BETA_SCALE, **how)
    shutil.rmtree(scratch)
    order = {int(identity): row for row, identity in enumerate(single.stimulus_ids)}
    counts = range(int(number.max()) + 1)
    rows = np.array([[order[int(identity) + base * repeat] for repeat in counts] for identity in ids])
    measured = np.ones((*rows.shape, len(kept)), dtype=np.bool_)
    measured[:, :, single.partial] = ~single.missing[rows]
    found = Trials(single.betas[rows], measured[:, :, kept])
    own = replace(bench, ids=ids).test.betas
    if found.betas.shape[2] != own.shape[1] or np.abs(found.average(counts) - own).max() > _CLOSE * np.abs(own).max():
        raise InputError(f"{root}: the scans are not those of this run. Run `unibrain prepare {bench.run.root}` again.")
    return found

"""The `Subject`: what the decoder needs to know of one person's scans."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError


@dataclass(frozen=True)
class Subject:
    """One subject's prepared scans: one row per image, repeats averaged, z-scored with training statistics.

    Training rows may also be single trials: then an image has as many rows as it has trials. Test images always have
    one row each, and no image is on both sides.

    Attributes
    ----------
    name : str
        For example ``"subj01"``.
    betas : ndarray of shape (rows, voxels), float32
        Response of every voxel to every image, z-scored with the mean and deviation (ddof 1) of the training rows,
        unless `preparation` says otherwise.
    stimulus_ids : ndarray of shape (rows,), int64
        0-based ids of the images (NSD's 73k ids).
    is_test : ndarray of shape (rows,), bool
        True for the images that are held out.
    repeats : ndarray of shape (rows,), int64
        How many trials were averaged, at least 1.
    voxel_indices : ndarray of shape (voxels,), int64
        Position of each voxel in the flattened grid (C order of the NIfTI's X, Y, Z).
    grid_shape : tuple of int
        X, Y, Z of the volume.
    regions : mapping of str to ndarray of shape (voxels,), bool
        Region name (for example ``"V1"``, ``"faces"``) to its voxels; a voxel may be in several or none.
    noise_ceiling : ndarray of shape (voxels,), float32
        Explainable variance of the average of three repeats, in percent (0 to 100); NaN where it is not known.
    simulated : bool
        True if no human was scanned. Shown wherever numbers of this subject appear.
    preparation : mapping of str to object, optional
        How the scans were prepared, JSON-ready: for NSD ``protocol``, ``sessions``, ``average``, ``zscore``, ``mask``,
        ``beta_version`` and ``noise_ceiling``.
    """

    name: str
    betas: NDArray[np.float32]
    stimulus_ids: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    repeats: NDArray[np.int64]
    voxel_indices: NDArray[np.int64]
    grid_shape: tuple[int, int, int]
    regions: Mapping[str, NDArray[np.bool_]]
    noise_ceiling: NDArray[np.float32]
    simulated: bool
    preparation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.betas.ndim != 2:
            raise InputError(f"{self.name}: betas have shape {self.betas.shape}, expected (images, voxels)")
        images, voxels = self.betas.shape
        self._expect_length(("stimulus_ids", "is_test", "repeats"), images, "image")
        self._expect_length(("voxel_indices", "noise_ceiling"), voxels, "voxel")
        for region, mask in self.regions.items():
            if mask.shape != (voxels,) or mask.dtype != np.bool_:
                raise InputError(
                    f"{self.name}: region {region} is {mask.dtype} of shape {mask.shape}, "
                    f"expected bool of shape ({voxels},)"
                )
        # Some rows at a time: a mask of a full-size matrix would be hundreds of megabytes.
        if not all(np.isfinite(self.betas[start : start + 256]).all() for start in range(0, images, 256)):
            raise InputError(
                f"{self.name}: the betas hold NaN or infinite values, expected finite ones: "
                "exclude those voxels before preparing"
            )
        test = self.stimulus_ids[self.is_test]
        if len(np.unique(test)) != len(test):
            raise InputError(
                f"{self.name}: an id of a test image appears twice, expected one row per test image: "
                "average the repeats of the test images"
            )
        both = np.intersect1d(test, self.stimulus_ids[~self.is_test])
        if len(both):
            raise InputError(
                f"{self.name}: image id {both[0]} appears twice, in training and in test ({len(both)} in all), "
                "expected every image on one side: keep test images out of training"
            )
        ids, counts = np.unique(self.stimulus_ids, return_counts=True)
        averaged = np.flatnonzero(np.isin(self.stimulus_ids, ids[counts > 1]) & (self.repeats != 1))
        if len(averaged):
            raise InputError(
                f"{self.name}: image id {self.stimulus_ids[averaged[0]]} appears twice, with an average of "
                f"{self.repeats[averaged[0]]} trials among its rows, expected one row per image or single trials: "
                "average all repeats of an image, or none"
            )

    def _expect_length(self, fields: tuple[str, ...], length: int, item: str) -> None:
        for name in fields:
            shape = getattr(self, name).shape
            if shape != (length,):
                raise InputError(f"{self.name}: {name} has shape {shape}, expected ({length},), one entry per {item}")

    @property
    def single_trials(self) -> bool:
        """Whether an image has more than one row, which is so where training rows are single trials."""
        return len(np.unique(self.stimulus_ids)) < len(self.stimulus_ids)

    @property
    def train(self) -> "Subject":
        """The training images only."""
        return self.select(~self.is_test)

    @property
    def test(self) -> "Subject":
        """The held-out images only."""
        return self.select(self.is_test)

    def select(self, images: NDArray[np.bool_] | NDArray[np.int64]) -> "Subject":
        """Keep some images.

        Parameters
        ----------
        images : ndarray
            Mask of shape (rows,) or row numbers.

        Returns
        -------
        Subject
        """
        return replace(
            self,
            betas=self.betas[images],
            stimulus_ids=self.stimulus_ids[images],
            is_test=self.is_test[images],
            repeats=self.repeats[images],
        )


"""A `Subject` in one file: numpy's npz without pickle, with the names in a piece of JSON inside."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.foreign import require_file, whole_file
from unibrain.workspace.files import atomic_path

_VERSION = 1
_ARRAYS = {
    "betas": np.float32,
    "stimulus_ids": np.int64,
    "is_test": np.bool_,
    "repeats": np.int64,
    "voxel_indices": np.int64,
    "noise_ceiling": np.float32,
    "regions": np.bool_,
}


def save_subject(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write a subject to one ``.npz`` file, atomically.

    Parameters
    ----------
    path : path-like
    subject : Subject

    Raises
    ------
    InputError
        If the disk is full; nothing is changed then.
    """
    description = {
        "version": _VERSION,
        "name": subject.name,
        "grid_shape": [int(n) for n in subject.grid_shape],
        "regions": list(subject.regions),
        "simulated": bool(subject.simulated),
        "preparation": dict(subject.preparation),
    }
    regions = np.zeros((len(subject.regions), subject.betas.shape[1]), dtype=np.bool_)
    for row, mask in enumerate(subject.regions.values()):
        regions[row] = mask
    arrays: dict[str, NDArray[Any]] = {
        "description": np.frombuffer(json.dumps(description).encode(), dtype=np.uint8),
        "regions": regions,
    }
    for name, dtype in _ARRAYS.items():
        if name != "regions":
            arrays[name] = np.asarray(getattr(subject, name), dtype=dtype)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # No allow_pickle here: numpy before 2.1 would store it as one more array. None of these holds objects.
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_subject(path: str | os.PathLike[str]) -> Subject:
    """Read what `save_subject` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        If the file is missing, damaged, or something else.
    """
    path = require_file(Path(path), "a prepared subject", "prepare the subject first")
    with whole_file(path, "npz"), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    absent = [name for name in ("description", *_ARRAYS) if name not in arrays]
    if absent:
        raise InputError(f"{path}: found no array {absent[0]}, expected a prepared subject: prepare the subject again")
    with whole_file(path, "prepared subject"):
        description = json.loads(arrays["description"].tobytes())
        version = description["version"]
        name, simulated = str(description["name"]), bool(description["simulated"])
        x, y, z = (int(n) for n in description["grid_shape"])
        preparation = dict(description.get("preparation", {}))
        regions = dict(zip(map(str, description["regions"]), arrays["regions"], strict=True))
    if version != _VERSION:
        raise InputError(f"{path}: found format version {version}, expected {_VERSION}: prepare the subject again")
    for array, dtype in _ARRAYS.items():
        if arrays[array].dtype != dtype:
            raise InputError(
                f"{path}: found {array} as {arrays[array].dtype}, expected {np.dtype(dtype)}: prepare the subject again"
            )
    return Subject(
        name=name,
        betas=arrays["betas"],
        stimulus_ids=arrays["stimulus_ids"],
        is_test=arrays["is_test"],
        repeats=arrays["repeats"],
        voxel_indices=arrays["voxel_indices"],
        grid_shape=(x, y, z),
        regions=regions,
        noise_ceiling=arrays["noise_ceiling"],
        simulated=simulated,
        preparation=preparation,
    )


"""Which images were trained on and which were held out, written down with a hash that stands for it."""

import hashlib
import os
from typing import Any

from unibrain.workspace.files import write_json

FORMAT = "unibrain-split"
VERSION = 1


def _ids(subject: Subject) -> dict[str, list[int]]:
    return {
        "train": sorted(int(i) for i in subject.stimulus_ids[~subject.is_test]),
        "test": sorted(int(i) for i in subject.stimulus_ids[subject.is_test]),
    }


def split_hash(subject: Subject) -> str:
    """Hash a subject's split.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    str
        sha256 of ``{"test":[...],"train":[...]}``: JSON without blanks of the 0-based ids of all rows, ascending. It
        says which images are on which side (and how often), nothing of the scans: subjects that saw the same images
        have the same.
    """
    return hashlib.sha256(json.dumps(_ids(subject), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def split_manifest(subject: Subject) -> dict[str, Any]:
    """Describe a subject's split.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    dict
        JSON-ready: ``format``, ``version``, ``subject``, ``simulated``, ``preparation`` (protocol, sessions and the
        other choices), ``counts`` (rows, images and trials of both sides), ``sha256`` (see `split_hash`), and the
        0-based ids of all rows as ``train`` and ``test``, ascending.
    """
    ids = _ids(subject)
    counts = {}
    for side, rows in (("train", ~subject.is_test), ("test", subject.is_test)):
        counts[f"{side}_images"] = len(set(ids[side]))
        counts[f"{side}_rows"] = len(ids[side])
        counts[f"{side}_trials"] = int(subject.repeats[rows].sum())
    return {
        "format": FORMAT,
        "version": VERSION,
        "subject": subject.name,
        "simulated": subject.simulated,
        "preparation": dict(subject.preparation),
        "counts": counts,
        "sha256": split_hash(subject),
        **ids,
    }


def write_split(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write a subject's split (see `split_manifest`) as JSON, atomically."""
    write_json(path, split_manifest(subject))

"""The `Subject`: what the decoder needs to know of one person's scans, in memory, in one file, and as a split.

The file is numpy's npz without pickle, with the names in a piece of JSON inside. The same subject gives the same bytes,
and a checksum over all of it is verified when it is read.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import DamagedFileError, InputError
from unibrain.scans.foreign import reading, require_file
from unibrain.workspace import notebook
from unibrain.workspace.files import atomic_path, write_json
from unibrain.workspace.fingerprints import digest

_VERSION = 3
_AGAIN = "Prepare the subject again"
_ARRAYS = {
    "betas": np.float32,
    "stimulus_ids": np.int64,
    "is_test": np.bool_,
    "repeats": np.int64,
    "voxel_indices": np.int64,
    "noise_ceiling": np.float32,
    "regions": np.bool_,
    "statistics": np.float32,
    "description": np.uint8,
}


@dataclass(frozen=True, eq=False, repr=False)
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
    statistics : ndarray of shape (2, voxels), float32, optional
        Mean and deviation (ddof 1) of the training rows that all rows were z-scored with, in the unit of the betas (of
        NSD, percent signal change): further scans of this person are prepared with them. None if rows were not z-scored
        or session by session.
    preparation : mapping of str to object, optional
        How the scans were prepared, JSON-ready: for NSD ``protocol``, ``sessions``, ``average``, ``zscore``, ``mask``,
        ``beta_version`` and ``noise_ceiling``.

    Raises
    ------
    InputError
        If lengths differ, betas are not finite, an image is on both sides, or a test image has several rows.
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
    statistics: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.betas.ndim != 2:
            raise InputError(f"{self.name}: betas have the shape {self.betas.shape}, not (images, voxels).")
        images, voxels = self.betas.shape
        lengths = {"stimulus_ids": images, "is_test": images, "repeats": images}
        for name, length in {**lengths, "voxel_indices": voxels, "noise_ceiling": voxels}.items():
            shape = getattr(self, name).shape
            if shape != (length,):
                one = "image" if name in lengths else "voxel"
                raise InputError(f"{self.name}: {name} has the shape {shape}, not ({length},), one entry per {one}.")
        for region, mask in self.regions.items():
            if mask.shape != (voxels,) or mask.dtype != np.bool_:
                raise InputError(
                    f"{self.name}: region {region} is {mask.dtype} of shape {mask.shape}, not bool of shape "
                    f"({voxels},)."
                )
        if self.statistics is not None and self.statistics.shape != (2, voxels):
            raise InputError(f"{self.name}: statistics have the shape {self.statistics.shape}, not (2, {voxels}).")
        # Some rows at a time: a mask of a full-size matrix would be hundreds of megabytes.
        if not all(np.isfinite(self.betas[start : start + 256]).all() for start in range(0, images, 256)):
            raise InputError(
                f"{self.name}: the betas hold NaN or infinite values. Exclude those voxels before preparing."
            )
        test = self.stimulus_ids[self.is_test]
        if len(np.unique(test)) != len(test):
            raise InputError(f"{self.name}: the id of a test image appears twice. Average the repeats of test images.")
        both = np.intersect1d(test, self.stimulus_ids[~self.is_test])
        if len(both):
            raise InputError(
                f"{self.name}: image id {both[0]} is both in training and in test ({len(both)} in all). Keep test "
                "images out of training."
            )
        ids, counts = np.unique(self.stimulus_ids, return_counts=True)
        averaged = np.flatnonzero(np.isin(self.stimulus_ids, ids[counts > 1]) & (self.repeats != 1))
        if len(averaged):
            raise InputError(
                f"{self.name}: image id {self.stimulus_ids[averaged[0]]} has several rows, one of them an average of "
                f"{self.repeats[averaged[0]]} trials. Average all repeats of an image, or none."
            )

    def __repr__(self) -> str:
        rows, voxels = self.betas.shape
        simulated = ", simulated" if self.simulated else ""
        sides = f"{rows:,} rows, {int(self.is_test.sum()):,} of them test"
        return f"Subject({self.name}: {sides}; {voxels:,} voxels, {len(self.regions)} regions{simulated})"

    @property
    def train(self) -> "Subject":
        """The training images only."""
        return self.rows(~self.is_test)

    @property
    def test(self) -> "Subject":
        """The held-out images only."""
        return self.rows(self.is_test)

    def rows(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Subject":
        """Some rows only: a mask of shape (rows,), or row numbers in the wanted order."""
        return replace(
            self,
            betas=self.betas[rows],
            stimulus_ids=self.stimulus_ids[rows],
            is_test=self.is_test[rows],
            repeats=self.repeats[rows],
        )

    def volume(self, values: NDArray[Any], outside: float = 0.0) -> NDArray[np.float32]:
        """One value per voxel as a volume on the grid of the scans, with `outside` where there is no voxel."""
        flat = np.full(int(np.prod(self.grid_shape)), outside, dtype=np.float32)
        flat[self.voxel_indices] = values
        return flat.reshape(self.grid_shape)

    def _repr_html_(self) -> str:
        """For notebooks: both sides of the split, preparation, and regions."""
        sides = []
        for name, rows in (("training", ~self.is_test), ("test", self.is_test)):
            images, trials = len(np.unique(self.stimulus_ids[rows])), int(self.repeats[rows].sum())
            sides.append((name, f"{int(rows.sum()):,}", f"{images:,}", f"{trials:,}"))
        regions = []
        for name, region in regions_of(self).items():
            known = "not known" if region.noise_ceiling is None else f"{region.noise_ceiling:.0f} %"
            regions.append(("all voxels" if name == "all" else name, f"{region.voxels:,}", known))
        prepared = "; ".join(f"{name}: {_shown(value)}" for name, value in self.preparation.items())
        return "".join(
            (
                notebook.paragraph(repr(self), bold=True),
                notebook.simulated_note(self.simulated),
                notebook.table(("images", "rows", "different images", "trials"), sides),
                notebook.table(("region", "voxels", "noise ceiling, median"), regions),
                notebook.paragraph(f"Prepared with {prepared}.") if prepared else "",
            )
        )


@dataclass(frozen=True)
class Region:
    """Voxels of a region, and the median of their noise ceiling in percent; None where no voxel has a known one."""

    voxels: int
    noise_ceiling: float | None


def regions_of(subject: Subject) -> dict[str, Region]:
    """The regions of a subject by name; ``"all"``, all of its voxels, comes first."""
    ceiling = subject.noise_ceiling
    found: dict[str, Region] = {}
    for name, mask in {"all": np.ones(len(ceiling), dtype=bool), **subject.regions}.items():
        known = ceiling[mask & np.isfinite(ceiling)]
        found[name] = Region(int(mask.sum()), float(np.median(known)) if len(known) else None)
    return found


def _shown(value: Any) -> str:
    """A choice of preparation in a few words: of a long list, its ends."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{value[0]}, {value[1]} ... {value[-1]} ({len(value)})"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def save_subject(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write a subject to one ``.npz`` file, atomically; the same subject gives the same bytes.

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
    regions = np.array([*subject.regions.values()], dtype=np.bool_).reshape(-1, subject.betas.shape[1])
    statistics = np.empty((0, subject.betas.shape[1])) if subject.statistics is None else subject.statistics
    made = {
        "description": np.frombuffer(json.dumps(description).encode(), dtype=np.uint8),
        "regions": regions,
        "statistics": statistics,
    }
    arrays: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(made.get(name, getattr(subject, name, None)), dtype=dtype)
        for name, dtype in _ARRAYS.items()
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # No allow_pickle here: numpy before 2.1 would store it as one more array. None of these holds objects.
        np.savez(file, **arrays, checksum=_checksum(arrays))  # type: ignore[arg-type]


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    return np.frombuffer(digest(*(part for name in _ARRAYS for part in (name, arrays[name]))).encode(), dtype=np.uint8)


def load_subject(path: str | os.PathLike[str]) -> Subject:
    """Read what `save_subject` wrote.

    Parameters
    ----------
    path : path-like
        ``subject.npz``, or the run folder that holds it.

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        If the file is missing.
    DamagedFileError
        If it is truncated, changed, or something else.
    """
    path = Path(path)
    path = require_file(
        path / "subject.npz" if path.is_dir() else path, "a prepared subject", "Prepare the subject first"
    )
    with reading(path, "npz", _AGAIN, ours=True), np.load(path, allow_pickle=False) as file:
        arrays = {name: np.asarray(file[name]) for name in file.files}
    for name, dtype in {**_ARRAYS, "checksum": np.uint8}.items():
        if name not in arrays or arrays[name].dtype != dtype:
            raise DamagedFileError(path, f"{path}: is no prepared subject of this version ({name}). {_AGAIN}.")
    if arrays["checksum"].tobytes() != _checksum(arrays).tobytes():
        raise DamagedFileError(path, f"{path}: has changed since it was written (its checksum differs). {_AGAIN}.")
    description = json.loads(arrays["description"].tobytes())
    if description["version"] != _VERSION:
        raise DamagedFileError(path, f"{path}: was written by another version. {_AGAIN}.")
    return Subject(
        name=description["name"],
        grid_shape=tuple(description["grid_shape"]),
        regions=dict(zip(description["regions"], arrays["regions"], strict=True)),
        simulated=description["simulated"],
        preparation=description["preparation"],
        statistics=arrays["statistics"] if len(arrays["statistics"]) else None,
        **{name: arrays[name] for name in _ARRAYS if name not in ("description", "regions", "statistics")},
    )


def split_hash(subject: Subject) -> str:
    """Hash a subject's split.

    Returns
    -------
    str
        sha256 of ``{"test":[...],"train":[...]}``: JSON without blanks of the 0-based ids of all rows, ascending. It
        says which images are on which side (and how often), nothing of the scans: subjects that saw the same images
        have the same.
    """
    return hashlib.sha256(json.dumps(_ids(subject), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _ids(subject: Subject) -> dict[str, list[int]]:
    sides = {"train": ~subject.is_test, "test": subject.is_test}
    return {side: sorted(subject.stimulus_ids[rows].tolist()) for side, rows in sides.items()}


def write_split(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write which images are trained on and which are held out as JSON, atomically.

    ``preparation`` are the choices, ``counts`` the rows, images and trials of both sides, ``sha256`` is `split_hash`,
    ``train`` and ``test`` are the 0-based ids of all rows, ascending.
    """
    ids = _ids(subject)
    counts = {}
    for side, rows in (("train", ~subject.is_test), ("test", subject.is_test)):
        counts[f"{side}_images"] = len(set(ids[side]))
        counts[f"{side}_rows"] = len(ids[side])
        counts[f"{side}_trials"] = int(subject.repeats[rows].sum())
    manifest = {
        "format": "unibrain-split",
        "version": 1,
        "subject": subject.name,
        "simulated": subject.simulated,
        "preparation": dict(subject.preparation),
        "counts": counts,
        "sha256": split_hash(subject),
        **ids,
    }
    write_json(path, manifest)

"""A `Subject` in one file: numpy's npz without pickle, with the names in a piece of JSON inside."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.files import require_file, whole_file
from unibrain.scans.subject import Subject
from unibrain.workspace.atomic import atomic_path

__all__ = ["load_subject", "save_subject"]

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

"""Writes NSD-Synthetic and NSD-Imagery into a tree in NSD's layout, with their names, types, axes and index bases."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas
from PIL import Image
from scipy.io import savemat

from unibrain.scans.nsd_layout import NsdLayout

LETTERS = {"A": "HRV", "B": "WKB", "C": "SZM"}
RUNS = ("visA", "attA", "imgA_1", "visB", "attB", "imgB_1", "visC", "attC", "imgC_1", "imgA_2", "imgB_2", "imgC_2")


def write_betas(layout: NsdLayout, name: str, volumes: np.ndarray, kind: str) -> None:
    """Write int16 of shape (trials, X, Y, Z) as NSD does: in HDF5 trials, Z, Y, X; in a NIfTI X, Y, Z, trials."""
    path = layout.further_betas(name, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(volumes.transpose(1, 2, 3, 0), np.diag([1.8, 1.8, 1.8, 1])), path)
        return
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=volumes.transpose(0, 3, 2, 1), chunks=(len(volumes), 1, 1, 1))


def write_imagery(
    layout: NsdLayout,
    seen: np.ndarray,
    imagined: np.ndarray,
    pictures: np.ndarray | None = None,
    kind: str = "hdf5",
) -> None:
    """Write volumes of shape (6 targets, repeats, X, Y, Z): seen in one run, imagined alike in both of a set's runs.

    Targets are in the order of sets and letters. Attention runs have two betas a trial, and set C no picture.
    """
    random = np.random.default_rng(0)
    betas, repeats = [], seen.shape[1]
    for number, run in enumerate(RUNS, 1):
        letters = LETTERS[run[3]]
        order = random.permutation(np.repeat(np.arange(len(letters)), repeats))
        count = np.zeros(len(letters), dtype=int)
        for place in order:
            base = 0 if run[3] == "A" else 3
            if run[3] == "C" or run.startswith("att"):
                noise = random.normal(scale=600, size=(1 + run.startswith("att"), *seen.shape[2:]))
                betas += list(noise.astype(np.int16))
            else:
                betas.append((seen if run.startswith("vis") else imagined)[base + place, count[place]])
            count[place] += 1
        condition = [letters[place] for place in order]
        table = {"SUBJECT": layout.subject, "SESSION": 1, "RUN": number, "TRIAL": np.arange(1, len(order) + 1)}
        # Of what is seen, the cue is right half of the time.
        table |= {"CONDITION": condition, "CUE": random.permutation(condition), "RT": np.nan}
        path = layout.imagery_responses(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(table).to_csv(path, sep="\t", index=False, na_rep="NaN")
    write_betas(layout, "nsd-imagery", np.stack(betas), kind)
    for letter, path in layout.imagery_pairs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = np.empty((3, 3), dtype=object)
        for row, cue in enumerate(LETTERS[letter]):
            # Lines are in any order; their number counts.
            cells[2 - row] = [float(row + 1), f"target_{cue}.png", cue]
        savemat(path, {"pair_list": cells})
        layout.imagery_targets[letter].mkdir(parents=True, exist_ok=True)
        for row, cue in enumerate(LETTERS[letter]):
            picture = (
                np.full((8, 8, 3), 40 * row, np.uint8) if pictures is None else pictures[row + 3 * (letter == "B")]
            )
            Image.fromarray(picture).save(layout.imagery_targets[letter] / f"target_{cue}.png")


def write_synthetic(layout: NsdLayout, order: np.ndarray, volumes: np.ndarray, kind: str = "hdf5") -> np.ndarray:
    """Write trials of the stimuli `order` (from 1) and four pictures, the last two with a person's own colours."""
    layout.synthetic_expdesign.parent.mkdir(parents=True, exist_ok=True)
    savemat(layout.synthetic_expdesign, {"masterordering": order[None].astype(np.uint16)})
    write_betas(layout, "nsd-synthetic", volumes, kind)
    pictures = np.random.default_rng(1).integers(0, 256, (4, 24, 40, 3), dtype=np.uint8)
    for path, part in zip(layout.synthetic_stimuli, (pictures[:2], pictures[2:]), strict=True):
        write_brick(path, part)
    return pictures


def write_brick(path: Path, pictures: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["imgBrick"] = pictures

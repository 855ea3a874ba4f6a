"""Ways to change the files of a tree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
from scipy.io import loadmat, savemat

from unibrain.scans.nsd_layout import NsdLayout


def rewrite_hdf5(path: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "betas") -> None:
    with h5py.File(path, "r") as file:
        values = change(file[name][:])
    with h5py.File(path, "w") as file:
        file[name] = values


def rewrite_nifti(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    changed = change(np.asarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(changed, image.affine, dtype=changed.dtype), path)


def read_design_file(layout: NsdLayout) -> dict[str, np.ndarray]:
    return {name: values for name, values in loadmat(layout.expdesign).items() if not name.startswith("__")}


def rewrite_design(layout: NsdLayout, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    content = read_design_file(layout)
    savemat(layout.expdesign, {n: changes[n](v.copy()) if n in changes else v for n, v in content.items()})


def rewrite_table(path: Path, change: Callable[[Any], Any]) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    table = change(pandas.read_csv(path, sep=separator))
    table.to_csv(path, sep=separator, index=False, na_rep="NaN")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

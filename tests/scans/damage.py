"""Ways to damage a tree, and the sentence that the reader then says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
import pytest
from scipy.io import loadmat, savemat

from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.scans.nsd_layout import NsdLayout

NIFTI = PrepareSettings(file_format="nifti")
HDF5 = PrepareSettings(file_format="hdf5")


def message(layout: NsdLayout, settings: PrepareSettings | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_nsd(layout.root, layout.subject, settings)
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    return text


def rewrite_hdf5(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r") as file:
        betas = change(file["betas"][:])
    with h5py.File(path, "w") as file:
        file["betas"] = betas


def rewrite_nifti(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    changed = change(np.asarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(changed, image.affine, dtype=changed.dtype), path)


def rewrite_design(layout: NsdLayout, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    content = {name: values for name, values in loadmat(layout.expdesign).items() if not name.startswith("__")}
    savemat(layout.expdesign, {n: changes[n](v.copy()) if n in changes else v for n, v in content.items()})


def rewrite_table(path: Path, change: Callable[[Any], Any], separator: str) -> None:
    table = change(pandas.read_csv(path, sep=separator, keep_default_na=True))
    table.to_csv(path, sep=separator, index=False, na_rep="NaN")

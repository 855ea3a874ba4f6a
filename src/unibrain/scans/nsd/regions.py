"""Masks and named regions from NSD's label volumes."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.nsd.files import read_label_volume, whole_file
from unibrain.scans.nsd.layout import NsdLayout

__all__ = ["REGIONS", "STANDARD_LABELS", "read_label_table", "read_mask", "read_regions"]

_log = logging.getLogger(__name__)

STANDARD_LABELS: Mapping[str, Mapping[int, str]] = {
    "nsdgeneral": {1: "nsdgeneral"},
    "prf-visualrois": {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"},
    "prf-eccrois": {1: "ecc0pt5", 2: "ecc1", 3: "ecc2", 4: "ecc4", 5: "ecc4+"},
    "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"},
    "floc-words": {1: "OWFA", 2: "VWFA-1", 3: "VWFA-2", 4: "mfs-words", 5: "mTL-words"},
    "floc-places": {1: "OPA", 2: "PPA", 3: "RSC"},
    "floc-bodies": {1: "EBA", 2: "FBA-1", 3: "FBA-2", 4: "mTL-bodies"},
}
"""Numbers and names of the labels as NSD's manual lists them, used where a tree has no label tables."""

REGIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "V1": ("prf-visualrois", ("V1v", "V1d")),
    "V2": ("prf-visualrois", ("V2v", "V2d")),
    "V3": ("prf-visualrois", ("V3v", "V3d")),
    "V4": ("prf-visualrois", ("hV4",)),
    "faces": ("floc-faces", ()),
    "words": ("floc-words", ()),
    "places": ("floc-places", ()),
    "bodies": ("floc-bodies", ()),
}
"""Our region names: the label volume, and the labels that make up the region (none named: every label above 0)."""


def read_mask(layout: NsdLayout, name: str) -> NDArray[np.bool_]:
    """Read which voxels to keep.

    Parameters
    ----------
    layout : NsdLayout
    name : str
        ``"brainmask"``, or a label volume of the subject such as ``"nsdgeneral"``: its voxels above 0 (-1 is not
        cortex).

    Returns
    -------
    ndarray of shape (X, Y, Z), bool

    Raises
    ------
    InputError
        If the file is missing or damaged, or no voxel is in the mask.
    """
    path = layout.brainmask if name == "brainmask" else layout.roi(name)
    mask = read_label_volume(path, f"the mask {name} of {layout.name}") > 0
    if not mask.any():
        raise InputError(f"{path}: found no voxel above 0, expected the voxels to read: choose another mask")
    return mask


def read_label_table(path: Path) -> dict[int, str]:
    """Read a FreeSurfer label table: one ``<number> <name>`` per line, some with a trailing tab.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict of int to str
        With 0, ``Unknown``.

    Raises
    ------
    InputError
        If a line is something else, or a number or a name appears twice.
    """
    labels: dict[int, str] = {}
    with whole_file(path, "text"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not words[0].isdigit() or int(words[0]) in labels or words[1] in labels.values():
            raise InputError(
                f"{path}: found {line.strip()!r} in line {number}, expected a new number and a new name: "
                "download it again"
            )
        labels[int(words[0])] = words[1]
    return labels


def read_regions(layout: NsdLayout, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Read V1 to V4 and the regions for faces, words, places and bodies.

    A label without voxels is normal. A label volume that is not there leaves its regions out, with a warning.

    Parameters
    ----------
    layout : NsdLayout
    mask : ndarray of shape (X, Y, Z), bool
        The voxels that are kept; region voxels outside it are dropped.

    Returns
    -------
    dict of str to ndarray of shape (voxels,), bool
        By region name (`REGIONS`), voxels in C order of X, Y, Z.

    Raises
    ------
    InputError
        If a file is damaged or of another grid, or a label table lacks a name.
    """
    regions: dict[str, NDArray[np.bool_]] = {}
    volumes: dict[str, NDArray[np.int64]] = {}
    for region, (source, names) in REGIONS.items():
        path = layout.roi(source)
        if not path.is_file():
            _log.warning("%s: found no such file, region %s is left out of %s", path, region, layout.name)
            continue
        if source not in volumes:
            volumes[source] = read_label_volume(path, f"the label volume {source}", mask.shape)[mask]
        if names:
            numbers = _numbers(layout, source, names)
            regions[region] = np.isin(volumes[source], numbers)
        else:
            regions[region] = volumes[source] > 0
    return regions


def _numbers(layout: NsdLayout, source: str, names: tuple[str, ...]) -> list[int]:
    table, origin = STANDARD_LABELS[source], "the standard labels"
    for path in layout.label_tables(source):
        if path.is_file():
            table, origin = read_label_table(path), str(path)
            break
    by_name = {name: number for number, name in table.items()}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise InputError(f"{origin}: found no label {absent[0]}, expected it for {source}: download the table again")
    return [by_name[name] for name in names]

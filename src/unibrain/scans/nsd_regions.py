"""Masks and named regions from NSD's label volumes.

A region is named by

- one of ours: ``V1`` to ``V4``, ``faces``, ``words``, ``places``, ``bodies``;
- a label volume: ``nsdgeneral``, ``streams``, ``floc-faces`` (its voxels above 0; -1 is not cortex);
- a label of one: ``prf-visualrois:V1v``, ``streams:ventral``, by number (``mine:3``), or without the volume (``V1v``,
  ``FFA-1``), which is then looked for in `VOLUME_ORDER`;
- ``brainmask``; ``lh`` or ``rh``, the cortex of a hemisphere;
- any of these within a hemisphere: ``lh.V1``, ``rh.streams:ventral``;
- a union of any of these: ``V1+V2+faces``.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import open_nifti, read_volume, reading
from unibrain.scans.nsd_betas import betas_grid
from unibrain.scans.nsd_layout import FETCH, SAFE_NAME, TOGETHER, NsdLayout

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
"""As NSD's manual lists them, used where a tree has no label tables."""

_KASTNER_CONFIRMED = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
_KASTNER_PRESUMED = (
    *("VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1", "V3B", "V3A"),
    *("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF"),
)

ATLAS_LABELS: Mapping[str, Mapping[int, str]] = {
    "streams": dict(
        enumerate(("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"), 1)
    ),
    "Kastner2015": dict(enumerate((*_KASTNER_CONFIRMED, *_KASTNER_PRESUMED), 1)),
}
"""Likewise for atlases. Of Kastner2015 only 1 to 7 are known to be so; 8 to 25 follow the atlas' usual order (Wang et
al. 2015), which the number of labels fits, and using them without a label table is warned about."""

VOLUME_ORDER = (*STANDARD_LABELS, *ATLAS_LABELS, "HCP_MMP1")
"""A label that is named without its volume is looked for in this order, then in the other volumes by name."""

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

_HEMISPHERES = ("lh", "rh")
_STANDARD = "the standard labels"
# A plus between names; that of the label "ecc4+" has none after it, or another plus.
UNION = re.compile(r"\+(?=[A-Za-z0-9])")


@dataclass(frozen=True)
class Grid:
    """The grid that a subject's volumes are to have, and what has it, for messages."""

    shape: tuple[int, ...]
    source: str

    def check(self, path: Path, shape: tuple[int, ...]) -> None:
        """Raise `InputError` if the volume at `path` has another grid."""
        if shape != self.shape:
            raise InputError(f"{path}: has the grid {shape}, but {self.source} has {self.shape}. {TOGETHER}.")


def subject_grid(layout: NsdLayout, betas: tuple[int, str] | None = None) -> Grid | None:
    """The grid of most of a subject's volumes, so that the one that differs is named as the wrong one.

    `betas` are the session and format of a file of betas, where there is one; it counts first if there is a tie. Only
    headers are read, and volumes without a readable one are passed over.
    """
    found: list[Grid] = []
    if betas is not None:
        path = layout.betas(*betas)
        found.append(Grid(betas_grid(path, betas[1]), path.name))
    for path in (layout.brainmask, *map(layout.roi, present_volumes(layout))):
        with suppress(InputError):
            found.append(Grid(open_nifti(path, "a volume").shape[:3], path.name))
    if not found:
        return None
    shape = Counter(grid.shape for grid in found).most_common(1)[0][0]
    return next(grid for grid in found if grid.shape == shape)


def present_volumes(layout: NsdLayout) -> list[str]:
    """Name the label volumes (of both hemispheres together) that are there, in `VOLUME_ORDER`."""
    found = {path.name.removesuffix(".nii.gz") for path in (layout.volumes / "roi").glob("*.nii.gz")}
    found = {name for name in found if SAFE_NAME.fullmatch(name) and not name.startswith(("lh.", "rh."))}
    return [name for name in VOLUME_ORDER if name in found] + sorted(found - set(VOLUME_ORDER))


def read_label_table(path: Path) -> dict[int, str]:
    """Read a FreeSurfer label table: one ``<number> <name>`` per line (0 is ``Unknown``), some with a trailing tab."""
    labels: dict[int, str] = {}
    with reading(path, "text"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not words[0].isdecimal() or int(words[0]) in labels or words[1] in labels.values():
            raise InputError(f"{path}: line {number} is {line.strip()!r}, no new number and name. Download it again.")
        labels[int(words[0])] = words[1]
    return labels


def _read_labels(path: Path, what: str, grid: Grid | None) -> NDArray[np.int64]:
    """A NIfTI of region labels, shape (X, Y, Z): -1 not cortex, 0 without a label, 1 and up labels."""
    volume, _ = read_volume(path, what, FETCH)
    if grid is not None:
        grid.check(path, volume.shape)
    labels = np.rint(np.nan_to_num(volume, nan=-2.0, posinf=-2.0, neginf=-2.0))
    wrong = (labels < -1) | (np.abs(labels - volume) > 1e-3) | (labels > 2**31)
    if wrong.any():
        raise InputError(
            f"{path}: holds {volume[wrong][0]:g} in {int(wrong.sum())} voxels, so it is no label volume (whole numbers "
            "of at least -1). Download it again."
        )
    return labels.astype(np.int64)


@dataclass
class RegionReader:
    """Finds the voxels of regions by name, reading each label volume once; all must have the grid."""

    layout: NsdLayout
    grid: Grid | None
    _volumes: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)
    _names: dict[str, tuple[dict[int, str], str]] = field(default_factory=dict)

    def voxels(self, name: str) -> NDArray[np.bool_]:
        """Voxels of a region that is named as above, shape (X, Y, Z)."""
        return np.asarray(np.logical_or.reduce([self._part(part) for part in UNION.split(name)]))

    def labels(self, volume: str) -> dict[str, NDArray[np.bool_]]:
        """Give the voxels of every label of a volume, by the label's name (its number if it has none)."""
        names, origin = self._label_names(volume)
        found = self._volume(volume)
        numbers = sorted({*names, *(int(n) for n in np.unique(found) if n > 0)})
        self._warn_presumed(volume, numbers, origin)
        return {names.get(number, str(number)): found == number for number in numbers}

    def _part(self, name: str) -> NDArray[np.bool_]:
        hemisphere, dot, rest = name.partition(".")
        if name in _HEMISPHERES:
            return self._hemisphere(hemisphere)
        if hemisphere in _HEMISPHERES and dot:
            name = rest
        else:
            hemisphere = ""
        if name == "brainmask":
            brain = self._volume(name) > 0
            return brain & self._hemisphere(hemisphere) if hemisphere else brain
        labels: tuple[str, ...] = ()
        if name in REGIONS:
            volume, labels = REGIONS[name]
        elif ":" in name:
            volume, _, label = name.partition(":")
            labels = (label,)
        elif self.layout.roi(name, hemisphere).is_file() or self.layout.roi(name).is_file():
            volume = name
        else:
            volume, labels = self._volume_of(name), (name,)
        found = self._volume(volume, hemisphere)
        return np.isin(found, self._numbers(volume, labels)) if labels else found > 0

    def _volume_of(self, label: str) -> str:
        volumes = present_volumes(self.layout)
        for volume in volumes:
            if label in self._label_names(volume)[0].values():
                return volume
        raise InputError(
            f"{self.layout.roi(label)}: no such file, nor is {label} a label in the volumes that are there "
            f"({', '.join(volumes) or 'none'}). Download it, or name another region of {self.layout.name}."
        )

    def _hemisphere(self, hemisphere: str) -> NDArray[np.bool_]:
        for volume in ("nsdgeneral", *present_volumes(self.layout)):
            if self.layout.roi(volume, hemisphere).is_file():
                # -1: not the cortex of this hemisphere.
                return self._volume(volume, hemisphere) >= 0
        raise InputError(
            f"{self.layout.roi('nsdgeneral', hemisphere)}: no such file, nor another label volume of this hemisphere. "
            "Download it, or take both hemispheres."
        )

    def _volume(self, volume: str, hemisphere: str = "") -> NDArray[np.int64]:
        path = self.layout.brainmask if volume == "brainmask" else self.layout.roi(volume, hemisphere)
        if hemisphere and not path.is_file() and self.layout.roi(volume).is_file():
            return np.where(self._hemisphere(hemisphere), self._volume(volume), -1)
        key = (volume, hemisphere)
        if key not in self._volumes:
            self._volumes[key] = _read_labels(path, f"the volume {volume} of {self.layout.name}", self.grid)
        return self._volumes[key]

    def _label_names(self, volume: str) -> tuple[dict[int, str], str]:
        """Names of a label volume's numbers from 1 up (empty if nothing is known), and where they come from."""
        if volume not in self._names:
            table = next((path for path in self.layout.label_tables(volume) if path.exists()), None)
            known = {**STANDARD_LABELS, **ATLAS_LABELS}.get(volume, {}) if table is None else read_label_table(table)
            names = {number: name for number, name in known.items() if number > 0}
            self._names[volume] = names, str(table or _STANDARD)
        return self._names[volume]

    def _numbers(self, volume: str, labels: tuple[str, ...]) -> list[int]:
        table, origin = self._label_names(volume)
        by_name = {str(number): number for number in range(1, 1000)} | {name: number for number, name in table.items()}
        absent = [name for name in labels if name not in by_name]
        if absent:
            raise InputError(
                f"{origin}: {volume} has no label {absent[0]} (it has {', '.join(table.values()) or 'none'}). Download "
                "the table again, or name another label."
            )
        numbers = [by_name[name] for name in labels]
        self._warn_presumed(volume, numbers, origin)
        return numbers

    def _warn_presumed(self, volume: str, numbers: list[int], origin: str) -> None:
        if volume == "Kastner2015" and origin == _STANDARD and max(numbers, default=0) > len(_KASTNER_CONFIRMED):
            _log.warning(
                "%s: no such label table, so labels 8 to 25 of Kastner2015 are named in the atlas' usual order, which "
                "is not confirmed for NSD.",
                self.layout.label_tables(volume)[1],
            )


def read_mask(layout: NsdLayout, name: str, grid: Grid | None = None) -> NDArray[np.bool_]:
    """Read which voxels to keep: a region as above, such as ``"nsdgeneral"`` or ``"V1+V2+faces"``; shape (X, Y, Z)."""
    mask = RegionReader(layout, grid or subject_grid(layout)).voxels(name)
    if layout.brainmask.is_file():
        brain = open_nifti(layout.brainmask, "the brain mask").shape[:3]
        Grid(mask.shape, f"the mask {name}").check(layout.brainmask, brain)
    if not mask.any():
        raise InputError(
            f"{layout.roi('nsdgeneral').parent}: the mask {name} has no voxel above 0. Choose another mask."
        )
    return mask


def read_regions(layout: NsdLayout, mask: NDArray[np.bool_], names: str = "default") -> dict[str, NDArray[np.bool_]]:
    """Read regions within a mask: bool of shape (voxels,) by name, voxels in C order of X, Y, Z.

    `names` are comma-separated: ``"default"`` (V1 to V4, faces, words, places, bodies), ``"all"`` (those, ``lh`` and
    ``rh`` where their volumes are there, every label volume that is there, and every label of each), or regions as
    above. Of labels that share a name with another region the first in `VOLUME_ORDER` keeps the bare name; the others
    are called ``volume:label``. A label without voxels is normal. A label volume that is not there leaves the default
    regions in it out, with a warning; a region that was asked for by name must be there.
    """
    reader = RegionReader(layout, Grid(mask.shape, "the mask"))
    regions: dict[str, NDArray[np.bool_]] = {}
    for name in (part.strip() for part in names.split(",")):
        if name in ("default", "all"):
            for region, (volume, _) in REGIONS.items():
                if (path := layout.roi(volume)).is_file():
                    regions[region] = reader.voxels(region)[mask]
                else:
                    _log.warning("%s: no such file, so region %s is left out of %s.", path, region, layout.name)
            if name == "all":
                _add_all(reader, mask, regions)
        elif name not in regions:
            regions[name] = reader.voxels(name)[mask]
    return regions


def _add_all(reader: RegionReader, mask: NDArray[np.bool_], regions: dict[str, NDArray[np.bool_]]) -> None:
    volumes = present_volumes(reader.layout)
    for hemisphere in _HEMISPHERES:
        if any(reader.layout.roi(volume, hemisphere).is_file() for volume in volumes):
            regions[hemisphere] = reader.voxels(hemisphere)[mask]
    for volume in volumes:
        regions[volume] = reader.voxels(volume)[mask]
        for label, voxels in reader.labels(volume).items():
            if label == volume:
                continue
            bare = label not in regions and label not in volumes and not label.isdigit()
            regions[label if bare else f"{volume}:{label}"] = voxels[mask]

"""A schematic brain on a small grid: which voxel belongs where, and what part of the picture it sees.

An ellipsoid with a cortical shell whose posterior part is ``nsdgeneral``; early areas lie behind, category regions in
front of them, ventral ones below lateral ones. It is an arrangement, not a person's anatomy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_regions import ATLAS_LABELS, STANDARD_LABELS

PICTURE_DEGREES = 8.4
"""Width of the picture in degrees of visual angle, as in NSD."""

_CORTEX = 0.5
_POSTERIOR = 0.7
_FARTHEST = 4.8
_MAGNIFICATION = 0.75
_ECCENTRICITY_BOUNDS = (0.5, 1.0, 2.0, 4.0)

# Share of a hemisphere's nsdgeneral, and receptive field size in degrees: at the fovea, and per degree of eccentricity.
_EARLY = {"V1": (0.15, 0.30, 0.10), "V2": (0.14, 0.45, 0.15), "V3": (0.11, 0.70, 0.22), "V4": (0.07, 1.00, 0.36)}
# Region, label volume, label, share of what lies in front of V4; from below upwards. aTL-faces and others stay empty.
_HIGHER = (
    ("places", "floc-places", "PPA", 0.09),
    ("faces", "floc-faces", "FFA-1", 0.06),
    ("faces", "floc-faces", "FFA-2", 0.05),
    ("words", "floc-words", "VWFA-1", 0.05),
    ("words", "floc-words", "VWFA-2", 0.05),
    ("bodies", "floc-bodies", "FBA-1", 0.05),
    ("ventral", "", "", 0.22),
    ("words", "floc-words", "OWFA", 0.03),
    ("faces", "floc-faces", "OFA", 0.04),
    ("bodies", "floc-bodies", "EBA", 0.10),
    ("places", "floc-places", "OPA", 0.05),
    ("places", "floc-places", "RSC", 0.03),
    ("lateral", "", "", 0.18),
)


@dataclass(frozen=True)
class ReceptiveFields:
    """Gaussian receptive fields, in degrees from the picture's centre (x to the right, y upwards).

    Attributes
    ----------
    x, y, sigma : ndarray of shape (voxels,), float64
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def eccentricity(self) -> NDArray[np.float64]:
        """Distance from the picture's centre, degrees."""
        return np.hypot(self.x, self.y)


@dataclass(frozen=True)
class Anatomy:
    """Volumes of one simulated subject.

    Attributes
    ----------
    brain, left : ndarray of shape (X, Y, Z), bool
    labels : mapping of str to ndarray of shape (X, Y, Z), int64
        Label volumes in NSD's manner: -1 not cortex, 0 cortex without a label, 1 and up labels.
    areas : ndarray of shape (voxels of nsdgeneral,), str
        ``V1`` to ``V4``, ``faces``, ``bodies``, ``places``, ``words``, ``ventral`` or ``lateral``; C order of X, Y, Z.
    fields : ReceptiveFields
        Of the voxels of V1 to V4, in the same order.
    """

    brain: NDArray[np.bool_]
    left: NDArray[np.bool_]
    labels: Mapping[str, NDArray[np.int64]]
    areas: NDArray[np.str_]
    fields: ReceptiveFields

    @property
    def nsdgeneral(self) -> NDArray[np.bool_]:
        """The visually responsive voxels, shape (X, Y, Z)."""
        return self.labels["nsdgeneral"] > 0

    @property
    def is_early(self) -> NDArray[np.bool_]:
        """True for the voxels of V1 to V4, shape (voxels of nsdgeneral,)."""
        return np.isin(self.areas, list(_EARLY))


def build_anatomy(grid: tuple[int, int, int], rng: np.random.Generator) -> Anatomy:
    """Arrange a brain on a grid: X left to right, Y posterior to anterior, Z inferior to superior.

    `rng` draws the small irregularities that tell subjects apart.
    """
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / (n / 2) for n in grid), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain, left = radius <= 1, x < 0
    cortex = brain & (radius > _CORTEX)
    rough_y, rough_z = (axis + rng.normal(0, 0.03, grid) for axis in (y, z))
    nsdgeneral = cortex & (rough_y <= np.quantile(rough_y[cortex], _POSTERIOR))
    labels = {name: np.where(cortex, 0, -1) for name in STANDARD_LABELS}
    labels["nsdgeneral"][nsdgeneral] = 1
    labels["streams"] = np.where(cortex, 0, -1)

    areas = np.full(grid, "", dtype="<U8")
    seen = {name: np.full(grid, np.nan) for name in ("x", "y", "sigma")}
    for side in (left, ~left):
        front = nsdgeneral & side
        total = int(front.sum())
        for area, (share, size, growth) in _EARLY.items():
            voxels = _first(front, rough_y, round(share * total))
            front &= ~voxels
            areas[voxels] = area
            labels["streams"][voxels] = _number("streams", "early")
            horizontal = 1 if side is left else -1  # each hemisphere sees the other side
            _lay_out(area, voxels, rough_y, rough_z, horizontal, size, growth, labels["prf-visualrois"], seen)
        total, stream = int(front.sum()), "ventral"
        for region, source, name, share in _HIGHER:
            voxels = front if region == "lateral" else _first(front, rough_z, round(share * total))
            front = front & ~voxels
            areas[voxels] = region
            labels["streams"][voxels] = _number("streams", stream)
            if region == "ventral":
                stream = "lateral"
            if source:
                labels[source][voxels] = _number(source, name)
    inside = np.isfinite(seen["x"])
    eccentricity = np.hypot(seen["x"][inside], seen["y"][inside])
    labels["prf-eccrois"][inside] = np.searchsorted(_ECCENTRICITY_BOUNDS, eccentricity) + 1
    fields = ReceptiveFields(seen["x"][inside], seen["y"][inside], seen["sigma"][inside])
    return Anatomy(brain, left, labels, areas[nsdgeneral], fields)


def eccentricities(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees that places on the cortex see, from 0 (fovea) to 1 (farthest).

    Cortical magnification (Horton and Hoyt 1991): as much cortex from 0 to 0.75 degrees as from there to 2.25.
    """
    step = 1 + _FARTHEST / _MAGNIFICATION
    return np.asarray(_MAGNIFICATION * (step**places - 1))


def _first(among: NDArray[np.bool_], key: NDArray[np.float64], number: int) -> NDArray[np.bool_]:
    """Mark the `number` voxels with the lowest key."""
    candidates = np.flatnonzero(among)
    chosen = candidates[np.argsort(key.ravel()[candidates], kind="stable")[:number]]
    marked = np.zeros(among.shape, dtype=np.bool_)
    marked.flat[chosen] = True
    return marked


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of values as fractions strictly between 0 and 1."""
    return (np.argsort(np.argsort(values, kind="stable"), kind="stable") + 0.5) / max(len(values), 1)


def _lay_out(
    area: str,
    voxels: NDArray[np.bool_],
    rough_y: NDArray[np.float64],
    rough_z: NDArray[np.float64],
    horizontal: int,
    size: float,
    growth: float,
    labels: NDArray[np.int64],
    seen: Mapping[str, NDArray[np.float64]],
) -> None:
    """Give an area of one hemisphere its map of the visual field: fovea behind, upper field below."""
    dorsal = voxels & (rough_z > (np.median(rough_z[voxels]) if voxels.any() else 0))
    for half, vertical, suffix in ((voxels & ~dorsal, 1, "v"), (dorsal, -1, "d")):
        eccentricity = eccentricities(_ranks(rough_y[half]))
        angle = _ranks(rough_z[half]) * np.pi / 2
        seen["x"][half] = horizontal * eccentricity * np.cos(angle)
        seen["y"][half] = vertical * eccentricity * np.sin(angle)
        seen["sigma"][half] = size + growth * eccentricity
        labels[half] = _number("prf-visualrois", "hV4" if area == "V4" else area + suffix)


def _number(source: str, name: str) -> int:
    names = {**STANDARD_LABELS, **ATLAS_LABELS}[source]
    return next(number for number, label in names.items() if label == name)

"""Bands: groups of voxels that each get a penalty of their own.

A penalty ``alpha / weight`` for the voxels of a band is the ridge of the kernel ``sum of weight * kernel of the band``
with the one penalty alpha, and also the ridge of scans whose voxels were multiplied by the root of their band's weight
(Dupré la Tour, Eickenberg, Nunez-Elizalde and Gallant, 2022, "Feature-space selection with banded ridge regression").
So a prediction stays one kernel and one operator. Weights are scaled to a mean of 1 over the bands: all ones is ridge
without bands, at the same alpha.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.ridge import Factorisation, centred_kernel

__all__ = [
    "DEFAULT_BANDS",
    "OTHER",
    "band_kernels",
    "band_operators",
    "check_bands",
    "combine_kernels",
    "make_bands",
    "voxel_scale",
]

DEFAULT_BANDS: Mapping[str, tuple[str, ...]] = {
    "early": ("V1", "V2", "V3", "V4"),
    "faces": ("faces",),
    "bodies": ("bodies",),
    "places": ("places",),
    "words": ("words",),
}
"""Band to the regions that make it up; the voxels of none are the band `OTHER`."""

OTHER = "other"


def make_bands(
    regions: Mapping[str, NDArray[np.bool_]],
    definition: Mapping[str, Sequence[str]] = DEFAULT_BANDS,
    overlap: Literal["error", "first"] = "error",
) -> dict[str, NDArray[np.bool_]]:
    """Put every voxel into exactly one band.

    Parameters
    ----------
    regions : mapping of str to ndarray of shape (voxels,), bool
        A subject's regions; a voxel may be in several or none.
    definition : mapping of str to sequence of str
        Band to the regions that make it up.
    overlap : {"error", "first"}
        What happens to a voxel that is in regions of two bands: an error, or it goes to the first of them.

    Returns
    -------
    dict of str to ndarray of shape (voxels,), bool
        The bands in the order of the definition; then `OTHER`, if a voxel is left.

    Raises
    ------
    InputError
        If a region does not exist, a band has no voxel, or a voxel is in two bands.
    """
    if not regions or not definition:
        raise InputError("there are no regions to make bands of, expected at least one: prepare the scans with regions")
    masks: dict[str, NDArray[np.bool_]] = {}
    taken = np.zeros(len(next(iter(regions.values()))), dtype=np.bool_)
    for band, names in definition.items():
        absent = [name for name in names if name not in regions]
        if absent or not names:
            raise InputError(
                f"band {band} is made of region {absent[0] if absent else 'none'}, expected some of "
                f"{', '.join(sorted(regions))}: define the bands by this subject's regions"
            )
        mask = np.logical_or.reduce([regions[name] for name in names])
        masks[band] = mask & ~taken if overlap == "first" else mask
        taken |= mask
    if not taken.all():
        masks[OTHER] = masks.get(OTHER, np.zeros_like(taken)) | ~taken
    check_bands(masks, len(taken))
    return masks


def check_bands(bands: Mapping[str, NDArray[np.bool_]], voxels: int) -> None:
    """Check that every voxel is in exactly one band, and that no band is empty.

    Parameters
    ----------
    bands : mapping of str to ndarray of shape (voxels,), bool
    voxels : int

    Raises
    ------
    InputError
        If not.
    """
    if not bands:
        raise InputError("there are 0 bands, expected at least one: define bands by regions")
    count = np.zeros(voxels, dtype=np.int64)
    for band, mask in bands.items():
        if mask.shape != (voxels,) or mask.dtype != np.bool_:
            raise InputError(
                f"band {band} is {mask.dtype} of shape {mask.shape}, expected bool of shape ({voxels},): "
                "give one entry per voxel"
            )
        if not mask.any():
            raise InputError(f"band {band} has no voxel, expected at least one: leave the band out")
        count += mask
    wrong = np.flatnonzero(count != 1)
    if len(wrong):
        holders = [band for band, mask in bands.items() if mask[wrong[0]]]
        where = f"in the bands {' and '.join(holders)}" if holders else "in no band"
        raise InputError(
            f"voxel {wrong[0]} is {where} ({len(wrong)} voxels are not in exactly one), expected every voxel in "
            "exactly one band: make bands of regions that do not overlap, or let the first have it (overlap='first')"
        )


def band_kernels(X: NDArray[Any], bands: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.float64]]:
    """Centred kernel of each band.

    Parameters
    ----------
    X : ndarray of shape (n, voxels)
        Training scans.
    bands : mapping of str to ndarray of shape (voxels,), bool
        Every voxel in exactly one.

    Returns
    -------
    dict of str to ndarray of shape (n, n), float64
        They sum to the kernel of all voxels. Together they take the memory of that kernel once per band.

    Raises
    ------
    InputError
        If a band is empty, or a voxel is not in exactly one.
    """
    check_bands(bands, X.shape[1])
    return {band: centred_kernel(X[:, mask])[0] for band, mask in bands.items()}


def combine_kernels(kernels: Sequence[NDArray[Any]], weights: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Weighted sum of the bands' kernels.

    Parameters
    ----------
    kernels : sequence of ndarray of shape (n, n)
    weights : sequence of float
        One per kernel, at least 0.

    Returns
    -------
    ndarray of shape (n, n), float64
    """
    combined = np.zeros(kernels[0].shape)
    for kernel, weight in zip(kernels, weights, strict=True):
        combined += float(weight) * kernel
    return combined


def voxel_scale(bands: Mapping[str, NDArray[np.bool_]], weights: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Factor on each voxel that makes plain ridge a banded one.

    Parameters
    ----------
    bands : mapping of str to ndarray of shape (voxels,), bool
    weights : sequence of float
        One per band, in their order.

    Returns
    -------
    ndarray of shape (voxels,), float64
        Root of the weight of the voxel's band. Multiply training and new scans with it; all else stays as it is.
    """
    scale = np.zeros(len(next(iter(bands.values()))))
    for mask, weight in zip(bands.values(), weights, strict=True):
        scale[mask] = np.sqrt(weight)
    return scale


def band_operators(
    factorisation: Factorisation,
    crosses: Sequence[NDArray[np.float64]],
    weights: Sequence[float] | NDArray[Any],
    alpha: float,
) -> list[NDArray[np.float64]]:
    """Each band's part of the prediction operator; they sum to the operator of all voxels.

    Parameters
    ----------
    factorisation : Factorisation
        Of the combined kernel.
    crosses : sequence of ndarray of shape (m, n)
        Cross kernel of new and training scans for each band (`unibrain.regression.ridge.cross_kernel`).
    weights : sequence of float
        One per band.
    alpha : float
        Penalty above 0.

    Returns
    -------
    list of ndarray of shape (m, n), float64
        Multiply one with centred targets to get what its band adds to the prediction; `unibrain.regression.shares`
        tells from these which band carries how much.
    """
    return [
        factorisation.operator(factorisation.project(float(weight) * cross), alpha)
        for cross, weight in zip(crosses, weights, strict=True)
    ]

"""What each voxel contributes to each latent: computed in blocks, drawn in slices, and as NIfTI volumes."""

import gzip
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.plot import slices
from unibrain.plot.canvas import svg_figure

if TYPE_CHECKING:
    from unibrain.regression import BrainDecoder
    from unibrain.scans import Subject

MAPPED = "What a voxel of a region contributes (1: the average of all voxels)"


def voxel_contributions(decoder: "BrainDecoder", latent: str) -> NDArray[np.float64]:
    """How far each voxel moves the prediction of a latent, shape (voxels,).

    The root of the mean square of a voxel's ridge weights over the latent's dimensions (before rescaling, as
    `unibrain.regression.export_weights` has them), times the voxel's deviation over the training scans. The weights of
    some voxels for some dimensions are in memory at once, never all.
    """
    from unibrain.regression.ridge import choose_backend
    from unibrain.regression.targets import Operators, products

    system = next(system for system in decoder.systems_ if latent in system.names)
    targets, alpha = decoder.targets_[latent], decoder.alphas_[latent]
    backend, memory = choose_backend(decoder.device), decoder.memory * 1e9
    needed = [float(value) for value in np.unique(alpha)]
    n, voxels = decoder.betas_.shape
    squares, deviations = np.zeros(voxels), np.zeros(voxels)
    # The operators of some voxels take no more than a quarter of the memory.
    step = max(1, int(memory / 4 / (8 * n * (len(needed) + 1))))
    for first in range(0, voxels, step):
        part = slice(first, first + step)
        scans = decoder.betas_[:, part].T - decoder.betas_mean_[part, None]
        deviations[part] = scans.std(axis=1, ddof=1)
        if system.weights is not None:
            scans = scans * system.weights[part, None]
        operators = Operators(system.solver.operators(scans, needed), alpha, targets.compute, backend)
        for _, weights, _, _ in products(operators, targets, memory):
            squares[part] += np.einsum("ij,ij->i", weights, weights, dtype=np.float64)
    found: NDArray[np.float64] = np.sqrt(squares / targets.shape[1]) * deviations
    return found


def map_bytes(subject: "Subject", values: NDArray[np.float64], affine: NDArray[np.float64]) -> bytes:
    """A NIfTI volume, compressed; 0 outside the voxels of the run. The same values give the same bytes."""
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(subject.volume(values), affine).to_bytes(), mtime=0)


def map_figure(
    subject: "Subject", maps: Mapping[str, NDArray[np.float64]], regions: Mapping[str, NDArray[np.bool_]]
) -> bytes:
    """A row of slices along the last axis for each latent, in units of the average voxel, with regions' outlines."""
    relative = {latent: values / values.mean() for latent, values in maps.items()}
    with svg_figure(1, 1, "Contributions") as (figure, made):
        slices(subject, relative, regions, "of average", figure)
    return made[0]

"""What each voxel contributes to each latent: computed in blocks, drawn in slices, and as NIfTI volumes."""

import gzip
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain.experiments.page import svg_figure

if TYPE_CHECKING:
    from unibrain.regression import BrainDecoder
    from unibrain.scans import Subject

MAPPED = "What a voxel of a region contributes (1: the average of all voxels)"
_SLICES = 8
_OUTLINES = ("#d0622b", "#3a4fc4", "#2b8a4f", "#a33ea1", "#b58900", "#008b9a", "#7a4b2a", "#c2185b")


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


def volume(subject: "Subject", values: NDArray[np.float64], outside: float = 0.0) -> NDArray[np.float32]:
    """One value per voxel as a volume on the grid of the scans."""
    flat = np.full(int(np.prod(subject.grid_shape)), outside, dtype=np.float32)
    flat[subject.voxel_indices] = values
    return flat.reshape(subject.grid_shape)


def map_bytes(subject: "Subject", values: NDArray[np.float64], affine: NDArray[np.float64]) -> bytes:
    """A NIfTI volume, compressed; 0 outside the voxels of the run. The same values give the same bytes."""
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(volume(subject, values), affine).to_bytes(), mtime=0)


def map_figure(
    subject: "Subject", maps: Mapping[str, NDArray[np.float64]], regions: Mapping[str, NDArray[np.bool_]]
) -> bytes:
    """A row of slices along the last axis for each latent, in units of the average voxel, with regions' outlines."""
    x, y, z = (np.unique(axis) for axis in np.unravel_index(subject.voxel_indices, subject.grid_shape))
    slices = z[np.unique(np.rint(np.linspace(0, len(z) - 1, _SLICES + 2)[1:-1]).astype(np.int64))]
    window = slice(max(0, x[0] - 1), x[-1] + 2), slice(max(0, y[0] - 1), y[-1] + 2)
    outlines = [
        (name, colour, volume(subject, mask.astype(np.float64)))
        for (name, mask), colour in zip(regions.items(), _OUTLINES, strict=False)
    ]
    with svg_figure(1.3 * len(slices) + 1, 1.5 * len(maps) + 0.5, "Contributions") as (figure, made):
        panels = figure.subplots(len(maps), len(slices), squeeze=False)
        for number, (row, (latent, values)) in enumerate(zip(panels, maps.items(), strict=True)):
            relative = volume(subject, values / values.mean(), np.nan)
            most = float(np.quantile(values / values.mean(), 0.99))
            for panel, place in zip(row, slices, strict=True):
                image = panel.imshow(
                    relative[*window, place].T, "Greys", origin="lower", vmin=0, vmax=most, interpolation="nearest"
                )
                for _, colour, outline in outlines:
                    flat = outline[*window, place].T
                    if min(flat.shape) > 1 and np.ptp(flat) > 0:
                        panel.contour(flat, levels=[0.5], colors=[colour], linewidths=0.8)
                panel.set_xticks([])
                panel.set_yticks([])
                panel.spines[:].set_visible(False)
                if number == 0:
                    panel.set_title(f"slice {place}", fontsize=7)
            row[0].set_ylabel(latent)
            figure.colorbar(image, ax=list(row), fraction=0.03, label="of average")
        for name, colour, _ in outlines:
            panels[0][0].plot([], [], color=colour, label=name)
        figure.legend(loc="outside lower center", ncols=8, frameon=False, fontsize=7)
    return made[0]

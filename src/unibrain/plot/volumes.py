"""Values of voxels, in slices of the volume."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError
from unibrain.plot.canvas import figure_of, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from unibrain.scans import Subject

_SLICES = 8
_OUTLINES = ("#d0622b", "#3a4fc4", "#2b8a4f", "#a33ea1", "#b58900", "#008b9a", "#7a4b2a", "#c2185b")


@styled
def slices(
    subject: "Subject",
    maps: Mapping[str, ArrayLike],
    regions: Mapping[str, NDArray[np.bool_]] | None = None,
    label: str = "",
    figure: "Figure | SubFigure | None" = None,
) -> NDArray[Any]:
    """Draw values of voxels in slices along the volume's last axis, a row for each map.

    Maps of values of one sign are grey, from 0 to their 99th percentile; others are red above 0 and blue below.

    Parameters
    ----------
    subject : Subject
        It knows where its voxels lie.
    maps : mapping of str to array-like of shape (voxels,)
        Title of a row to one value per voxel of `subject`, such as a scan.
    regions : mapping of str to ndarray of shape (voxels,), bool, optional
        Regions that are outlined, such as ``subject.regions``; at most eight.
    label : str
        What the values are.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure of pyplot.

    Returns
    -------
    ndarray of shape (maps, slices) of matplotlib Axes

    Raises
    ------
    InputError
        If there is no map, or one has not a value for each voxel.
    """
    values_of = {title: np.asarray(values, dtype=np.float64) for title, values in maps.items()}
    voxels = len(subject.voxel_indices)
    wrong = [title for title, values in values_of.items() if values.shape != (voxels,)]
    if wrong or not values_of:
        shape = f"map {wrong[0]!r} has the shape {values_of[wrong[0]].shape}" if wrong else "there is no map to draw"
        raise InputError(f"{subject.name}: {shape}. Give one value for each of its {voxels} voxels.")
    x, y, z = (np.unique(axis) for axis in np.unravel_index(subject.voxel_indices, subject.grid_shape))
    places = z[np.unique(np.rint(np.linspace(0, len(z) - 1, _SLICES + 2)[1:-1]).astype(np.int64))]
    window = slice(max(0, x[0] - 1), x[-1] + 2), slice(max(0, y[0] - 1), y[-1] + 2)
    outlines = [
        (name, colour, subject.volume(mask.astype(np.float64)))
        for (name, mask), colour in zip((regions or {}).items(), _OUTLINES, strict=False)
    ]
    drawn = figure_of(figure, 1.3 * len(places) + 1, 1.5 * len(values_of) + 0.5)
    panels: NDArray[Any] = drawn.subplots(len(values_of), len(places), squeeze=False)
    for number, (row, (title, values)) in enumerate(zip(panels, values_of.items(), strict=True)):
        flat = np.abs(values[np.isfinite(values)])
        most = float(np.quantile(flat, 0.99)) if len(flat) else 0.0
        most = most or float(flat.max(initial=0.0)) or 1.0
        signed = bool((values < 0).any())
        shown = subject.volume(values, np.nan)
        for panel, place in zip(row, places, strict=True):
            image = panel.imshow(
                shown[*window, place].T,
                "RdBu_r" if signed else "Greys",
                origin="lower",
                vmin=-most if signed else 0,
                vmax=most,
                interpolation="nearest",
            )
            for _, colour, outline in outlines:
                flat_mask = outline[*window, place].T
                if min(flat_mask.shape) > 1 and np.ptp(flat_mask) > 0:
                    panel.contour(flat_mask, levels=[0.5], colors=[colour], linewidths=0.8)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
            if number == 0:
                panel.set_title(f"slice {place}", fontsize=7)
        row[0].set_ylabel(title)
        drawn.colorbar(image, ax=list(row), fraction=0.03, label=label)
    for name, colour, _ in outlines:
        panels[0][0].plot([], [], color=colour, label=name)
    if outlines:
        drawn.legend(loc="outside lower center", ncols=8, frameon=False, fontsize=7)
    return panels

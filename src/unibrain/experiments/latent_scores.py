"""How well latents are predicted, as a table: the two numbers that all experiments on latents give."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.experiments.findings import Cell, Column
from unibrain.latents import LATENTS


def latent_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Two columns for each latent: correlation and two-way identification."""
    found = []
    for name in names:
        title = LATENTS[name].title if name in LATENTS else name
        found.append(Column(f"{name}_r", f"{title}: mean correlation across images", f"{name} r", "latent"))
        found.append(
            Column(f"{name}_two_way", f"{title}: two-way identification (chance is 0.5)", f"{name} 2-way", "latent")
        )
    return tuple(found)


def two_way(predicted: Mapping[str, Any], true: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Two-way identification of every image, shape (n,), by latent."""
    from unibrain.evaluation.identification import latent_identification

    return {one.latent: one.two_way for one in latent_identification(predicted, true)}


def latent_cells(
    setting: str,
    predicted: Mapping[str, Any],
    true: Mapping[str, Any],
    against: tuple[str, Mapping[str, Any]] | None = None,
) -> tuple[Cell, ...]:
    """Correlation and two-way identification of every latent, as cells of the columns of `latent_columns`.

    Parameters
    ----------
    setting : str
        The row of the table.
    predicted, true : Latents
        Of the same images in the same order.
    against : (str, Latents), optional
        A setting, and what was predicted for the same images there: identification gets a paired difference.

    Returns
    -------
    tuple of Cell
        The correlation is over images and has no value for one image alone, so no interval.
    """
    from unibrain.evaluation.statistics import bootstrap_interval, paired_interval
    from unibrain.regression import latent_accuracy

    found, other = two_way(predicted, true), None if against is None else two_way(against[1], true)
    cells = []
    for name, correlation in latent_accuracy(predicted, true).items():
        wins = found[name]
        interval, difference = bootstrap_interval(wins), {}
        if against is not None and other is not None and name in other:
            paired = paired_interval(wins, other[name])
            mean = float(np.mean(wins - other[name]))
            difference = {"against": against[0], "difference": mean}
            difference |= {"difference_low": paired.low, "difference_high": paired.high}
        cells.append(Cell(setting, f"{name}_r", correlation, images=len(wins)))
        cells.append(
            Cell(
                setting,
                f"{name}_two_way",
                float(wins.mean()),
                interval.low,
                interval.high,
                len(wins),
                **difference,  # type: ignore[arg-type]
            )
        )
    return tuple(cells)


def mean_two_way(cells: Iterable[Cell]) -> float:
    """Two-way identification of a row of cells, mean over latents."""
    return float(np.mean([cell.value for cell in cells if cell.metric.endswith("_two_way") and cell.value is not None]))

"""How well latents are predicted, as a table: the two numbers that all experiments on latents give."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.experiments.correlation import correlations_of
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


def latent_values(predicted: Mapping[str, Any], true: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """The key of each of `latent_columns` to one value per image, shape (n,), whose mean is the score."""
    from unibrain.evaluation.identification import latent_identification

    correlation = correlations_of(predicted, true)
    found: dict[str, NDArray[np.float64]] = {}
    for one in latent_identification(predicted, true):
        found |= {f"{one.latent}_r": correlation[one.latent].values, f"{one.latent}_two_way": one.two_way}
    return found


def mean_cell(setting: str, metric: str, values: NDArray[Any], against: tuple[str, NDArray[Any]] | None = None) -> Cell:
    """The mean of one value per image with its interval and, against another setting's, the paired difference."""
    from unibrain.evaluation.statistics import bootstrap_interval, paired_interval, share_interval

    interval = share_interval(values) or bootstrap_interval(values)
    cell = Cell(setting, metric, float(values.mean()), interval.low, interval.high, len(values))
    if against is None:
        return cell
    paired = paired_interval(values, against[1])
    return replace(
        cell,
        against=against[0],
        difference=float(np.mean(values - against[1])),
        difference_low=paired.low,
        difference_high=paired.high,
    )


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
        A setting, and what was predicted for the same images there, for paired differences.

    Returns
    -------
    tuple of Cell
        A correlation is over images; its interval is that of `unibrain.experiments.correlation.Correlation.values`.
    """
    found, other = latent_values(predicted, true), {} if against is None else latent_values(against[1], true)
    return tuple(
        mean_cell(setting, name, values, (against[0], other[name]) if against and name in other else None)
        for name, values in found.items()
    )


def mean_two_way(cells: Iterable[Cell]) -> float:
    """Two-way identification of a row of cells, mean over latents."""
    return float(np.mean([cell.value for cell in cells if cell.metric.endswith("_two_way") and cell.value is not None]))

"""How well latents are predicted: correlation and identification, as numbers for each image and as cells of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.experiments.findings import Cell, Column, compared
from unibrain.latents.table import latent_title


@dataclass(frozen=True, eq=False)
class Correlation:
    """How well one latent is predicted for n images.

    A correlation across images is no mean over images, so that nothing could be drawn again for its interval. These
    values are such a mean: the correlation, and how it would move with a little more weight on each image (its
    influence function; Efron's infinitesimal jackknife, 1982). They serve as any score per image does.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
        Their mean is the mean over dimensions of Pearson's r, as `unibrain.regression.latent_accuracy` has it.
    explained : ndarray of shape (n,), float64
        Their mean is the explained variance of the whole latent, about its mean and up to one factor: the squared
        correlation of all its numbers. 0 where the prediction points the wrong way.
    groups : ndarray of shape (g,), float64
        Mean correlation of each token of a context, each channel of the image latent, or of the text latent as a whole;
        NaN for one that is the same in all images.
    """

    values: NDArray[np.float64]
    explained: NDArray[np.float64]
    groups: NDArray[np.float64]


def correlations_of(predicted: Mapping[str, Any], true: Mapping[str, Any]) -> dict[str, Correlation]:
    """Correlate every latent of two `Latents` of the same images in the same order."""
    return {name: correlate(np.asarray(predicted[name]), np.asarray(true[name])) for name in predicted}


def correlate(predicted: NDArray[Any], true: NDArray[Any]) -> Correlation:
    """Correlate arrays of shape (n, dimensions) or (n, groups, ...); what does not vary in truth is left out."""
    n, groups = len(true), true.shape[1] if true.ndim > 2 else 1
    sides = [array.reshape(n, groups, -1) for array in (predicted, true)]
    values, products, by_group, count = np.zeros(n), np.zeros((3, n)), np.full(groups, np.nan), 0
    for group in range(groups):
        part = [array[:, group].astype(np.float64) for array in sides]
        varies = np.ptp(part[1], axis=0) > 0
        if not varies.any():
            continue
        (p, p_size), (t, t_size) = (_standard(side[:, varies]) for side in part)
        r = np.mean(p * t, axis=0)
        values += (p * t - r / 2 * (p**2 + t**2) + r).sum(axis=1)
        p, t = p * p_size, t * t_size
        products += [(p * t).sum(axis=1), (p * p).sum(axis=1), (t * t).sum(axis=1)]
        by_group[group], count = r.mean(), count + len(r)
    return Correlation(values / max(1, count), _explained(*products), by_group)


def _standard(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deviations in units of their size, 0 for what does not vary, and that size."""
    # Compared by range and not by variance: the mean of equal numbers may be off by a rounding error.
    size = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 0.0)
    return (values - values.mean(axis=0)) / np.where(size > 0, size, np.inf), size


def _explained(
    both: NDArray[np.float64], predicted: NDArray[np.float64], true: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = [part.mean() for part in (both, predicted, true)]
    if sums[0] <= 0 or sums[1] <= 0 or sums[2] <= 0:
        return np.zeros(len(both))
    share = sums[0] ** 2 / (sums[1] * sums[2])
    found: NDArray[np.float64] = share * (1 + 2 * both / sums[0] - predicted / sums[1] - true / sums[2])
    return found


def columns_by_latent(names: Iterable[str], key: str, title: str, short: str, kind: str = "latent") -> list[Column]:
    """One column for each latent."""
    return [Column(f"{n}_{key}", f"{latent_title(n)}: {title}", f"{n} {short}".strip(), kind) for n in names]


def latent_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Two columns for each latent: correlation and two-way identification."""
    known = list(names)
    r = columns_by_latent(known, "r", "mean correlation across images", "r")
    two_way = columns_by_latent(known, "two_way", "two-way identification (chance is 0.5)", "2-way")
    return tuple(column for pair in zip(r, two_way, strict=True) for column in pair)


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
    from unibrain.evaluation.statistics import bootstrap_interval, share_interval

    interval = share_interval(values) or bootstrap_interval(values)
    cell = Cell(setting, metric, float(values.mean()), interval.low, interval.high, len(values))
    return cell if against is None or against[0] == setting else compared(cell, against[0], values, against[1])


def latent_cells(
    setting: str,
    predicted: Mapping[str, Any],
    true: Mapping[str, Any],
    against: tuple[str, Mapping[str, Any]] | None = None,
) -> tuple[Cell, ...]:
    """Correlation and two-way identification of every latent, as cells of the columns of `latent_columns`.

    `against` is a setting, and what was predicted for the same images there, for paired differences if it is another.
    """
    found = latent_values(predicted, true)
    other = {} if against is None or against[0] == setting else latent_values(against[1], true)
    return tuple(
        mean_cell(setting, name, values, (against[0], other[name]) if against and name in other else None)
        for name, values in found.items()
    )


def mean_two_way(cells: Iterable[Cell]) -> float:
    """Two-way identification of a row of cells, mean over latents."""
    return float(np.mean([cell.value for cell in cells if cell.metric.endswith("_two_way") and cell.value is not None]))

"""How sure a score is: intervals over images, differences between runs, label permutation, several metrics at once.

An interval says how a score would vary with *other images*. The resampled images are compared with the same pool: the
value of an image in two-way identification depends on who else is there, so its pool is kept, and only which images'
values enter the mean is drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unibrain.errors import InputError

LEVEL = 0.95
DRAWS = 10_000
_ROUNDING = 1e-12
_AT_ONCE = 2**22  # resampled indices in memory


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Examples
    --------
    >>> print(Interval(0.81, 0.942))
    0.810 to 0.942
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


def bootstrap_interval(values: ArrayLike, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile bootstrap over images of the mean of one value per image, shape (n,).

    Plain percentiles are too narrow for few images: their spread is that of a sample whose mean is known, and normal
    instead of Student's. So the percentiles are taken further out, by ``sqrt(n / (n - 1)) t(n - 1)`` instead of ``z``
    (the expanded percentile interval; Hesterberg 2015, "What teachers should know about the bootstrap"). From a hundred
    images on, that is hardly to be seen. Where all images have the same value, both ends are that value: nothing is
    known of how others would vary.
    """
    from scipy.stats import norm, t

    table = _table(values, 1)
    n = len(table)
    if not 0 < level < 1:
        raise InputError(f"level is {level}. Choose a share between 0 and 1, such as 0.95.")
    if np.ptp(table) == 0:
        return Interval(float(table[0]), float(table[0]))
    rng, step = np.random.default_rng(seed), max(1, _AT_ONCE // n)
    parts = [min(step, draws - start) for start in range(0, draws, step)]
    means = np.concatenate([table[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in parts])
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def share_interval(values: ArrayLike) -> Interval | None:
    """Exact interval (Clopper and Pearson 1934) of a share, if all values are 0 or 1; None if they are not.

    Where all images have the same value a bootstrap knows nothing; here 0 of 40 still means less than 9 %.
    """
    from scipy.stats import binomtest

    row = _table(values, 1)
    if not np.isin(row, (0, 1)).all():
        return None
    found = binomtest(int(row.sum()), len(row)).proportion_ci(LEVEL, method="exact")
    return Interval(float(found.low), float(found.high))


def paired_interval(first: ArrayLike, second: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of ``mean(first) - mean(second)``, where both scored the same images in the same order.

    Images are drawn together for both, so what is hard for both cancels: two runs may differ clearly though the
    intervals of their scores overlap.
    """
    a, b = _table(first, 1), _table(second, 1)
    if a.shape != b.shape:
        raise InputError(
            f"One run has {len(a)} values and the other {len(b)}. Compare the same images in the same order."
        )
    return bootstrap_interval(a - b, draws=draws, seed=seed)


@dataclass(frozen=True)
class PairedDifference:
    """How two runs differ on the same images.

    `difference` is the mean of the first less that of the second, from `low` to `high`; `p` is two-sided. `images` were
    compared, and `left_out` is how many were not, because one of the two has no value there.
    """

    difference: float
    low: float
    high: float
    p: float
    images: int
    left_out: int


def paired_difference(
    first: Sequence[float | None] | NDArray[np.floating],
    second: Sequence[float | None] | NDArray[np.floating],
    draws: int = DRAWS,
    seed: int = 0,
) -> PairedDifference:
    """Compare two runs by their values of the same images in the same order, shape (n,); NaN and None are left out.

    The interval is that of `paired_interval`. The p is from random signs of the differences: if the runs do not differ,
    each image could as well have been scored the other way round. ``(1 + number of random means at least as far from 0)
    / (1 + draws)``; see `holm` for several metrics.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(
            f"One run has values of shape {a.shape} and the other {b.shape}. Compare the same images in the same order."
        )
    there = ~(np.isnan(a) | np.isnan(b))
    interval = paired_interval(a[there], b[there], draws=draws, seed=seed)
    differences, rng = (a - b)[there], np.random.default_rng([seed, 1])
    limit, n = abs(differences.mean()) - _ROUNDING * np.abs(differences).max(initial=1.0), len(differences)
    hits, step = 0, max(1, _AT_ONCE // n)
    for start in range(0, draws, step):
        signs = 2.0 * rng.integers(2, size=(min(step, draws - start), n)) - 1
        hits += int((np.abs(signs @ differences) / n >= limit).sum())
    p = (1 + hits) / (1 + draws)
    return PairedDifference(float(differences.mean()), interval.low, interval.high, p, n, int((~there).sum()))


def _table(values: ArrayLike, rank: int) -> NDArray[np.float64]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != rank or len(table) < 2:
        raise InputError(f"Values of shape {table.shape} have no interval over images. Score at least two images.")
    wrong = np.argwhere(~np.isfinite(table))
    if len(wrong):
        raise InputError(
            f"The value of the image in row {wrong[0][0]} is {table[tuple(wrong[0])]} ({len(wrong)} such values). "
            "Leave it out, or give it the value that the score counts it as."
        )
    return table


def permutation_p(
    values: Callable[[NDArray[np.int64]], NDArray[Any]],
    images: int,
    *,
    higher_is_better: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """How likely random labels score as well (p): decoded items are dealt to the images at random, and scored again.

    `values` takes orders, shape (orders, images), int64, in which image i is compared with item ``order[i]``, and
    returns as many values; an undefined one counts as 0. The p is ``(1 + number of random scores at least as good) /
    (1 + draws)``: never 0 (Phipson and Smyth 2010, "Permutation p-values should never be zero").
    """
    if images < 2:
        raise InputError(f"Labels of {images} image cannot be permuted. Score at least two.")
    sign, rng = 1 if higher_is_better else -1, np.random.default_rng(seed)

    def scores(orders: NDArray[np.int64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.nan_to_num(values(orders), nan=0.0).mean(axis=1)
        return sign * means

    (observed,) = scores(np.arange(images)[None])
    limit, hits, step = observed - _ROUNDING * max(1.0, abs(observed)), 0, max(1, _AT_ONCE // images)
    for start in range(0, draws, step):
        orders = np.stack([rng.permutation(images) for _ in range(start, min(start + step, draws))])
        hits += int((scores(orders) >= limit).sum())
    return (1 + hits) / (1 + draws)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust the p of each metric for looking at all of them (Holm 1979): names and order as given.

    Whatever of it is below 0.05 may be called found: the chance that any of it is a false alarm is at most 0.05.

    Examples
    --------
    >>> holm({"ssim": 0.03, "clip": 0.001, "pixcorr": 0.02})
    {'ssim': 0.04, 'clip': 0.003, 'pixcorr': 0.04}
    """
    adjusted, least = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if not 0 <= p_values[name] <= 1:
            raise InputError(f"p of {name} is {p_values[name]}. Give a number from 0 to 1.")
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def over_samples(values: ArrayLike) -> tuple[float, float]:
    """Variance within and between scans of several samples for each scan, values of shape (n, samples).

    Within: between the samples of a scan (ddof 1), mean over scans; between: that of the scans' means less what the
    samples make of it. More samples sharpen the value of a scan, and tell nothing of other scans. So intervals are over
    images only: one over samples or over random draws would shrink to nothing, whatever the decoder is worth.
    """
    table = _table(values, 2)
    samples = table.shape[1]
    within = float(table.var(axis=1, ddof=1).mean()) if samples > 1 else 0.0
    return within, max(0.0, float(table.mean(axis=1).var(ddof=1)) - within / samples)


def over_subjects(scores: Sequence[float]) -> tuple[float, Interval]:
    """Mean of one score per subject, and its interval (Student's t): how the mean varies with *other subjects*.

    With four subjects it is wide, and that is what four subjects tell. The interval of one subject's score is over
    images (`bootstrap_interval`); images of all subjects are never thrown together, as if they were more subjects.
    """
    from scipy.stats import t

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 1 or len(table) < 2 or not np.isfinite(table).all():
        raise InputError(
            f"Scores {table.tolist()} of subjects have no interval. Give one number each, of at least two."
        )
    mean = float(table.mean())
    half = float(t.ppf((1 + LEVEL) / 2, len(table) - 1) * table.std(ddof=1) / np.sqrt(len(table)))
    return mean, Interval(mean - half, mean + half)

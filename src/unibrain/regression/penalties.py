"""Which alpha predicts best the training images that were left out: per latent, per token, or per target.

What it costs for n rows, a alphas, K folds, c columns and t targets, beyond the one factorisation:

- scoring all rows on c columns: ``2 n^2 c`` to rotate the columns, and per alpha ``n^3 / K`` for the blocks of the
  residual operator, ``2 n^2 c`` for the residuals and ``2 n^2 c / K`` to solve (only the second if one is left out).
  Groups share all of it: an alpha per token costs what its columns cost, not a factorisation;
- scoring m rows on all t targets: per alpha ``n^3 / K + 2 m n^2`` for the operator, and ``2 m n t`` to apply it.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from unibrain.errors import InputError
from unibrain.regression.leave_out import (
    Groups,
    Scheme,
    deviation_operator,
    deviations,
    left_out_operator,
    left_out_residuals,
    sample_rows,
    split_images,
)
from unibrain.regression.ridge import Factorisation
from unibrain.regression.targets import Targets, TrainingTargets, block_width, varying
from unibrain.workspace.progress import track, usable_threads

Per = Literal["latent", "token", "target"]
PERS: tuple[Per, ...] = ("latent", "token", "target")
"""What can have an alpha of its own: a latent, a token (a channel of the image latent), or a single dimension."""

SCORED_IMAGES = 128
"""Where every target has its own alpha, so many images, drawn by seed, are scored: each target gets a short look."""

SINGLE_PRECISION = 2**22
"""Samples of at least this many numbers are multiplied in single precision, if the targets have no more."""

FEW_THREADS = 4
"""Up to so many threads, each scores an alpha of its own, and holds a fold's rows and columns; more share one alpha."""

SMALLEST_SHARE = 4
"""A token is never judged by fewer columns than this, if it has as many dimensions."""


@dataclass(frozen=True, eq=False)
class AlphaChoice:
    """How well each alpha predicted the images left out, for each group of one latent's targets.

    Attributes
    ----------
    alphas : ndarray of shape (a,), float64
        The penalties, ascending.
    r2 : ndarray of shape (groups, a), float32 or float64
        Explained variance: one minus the squared error over the squared deviation from the training mean, both summed
        over images and the group's columns; at most 1. All 0 for a group that does not vary.
    correlation : ndarray of shape (groups, a), float32 or float64
        Correlation across images of predicted and true deviations from the training mean, mean over the columns that
        vary; -1 to 1.
    per : {"latent", "token", "target"}
        What a group is. Groups are equal, consecutive parts of the flattened latent.
    targets : int
        Number of dimensions of the latent.
    columns : int
        How many of them, drawn by seed, were looked at in each group.
    scheme : int or "loo"
        Number of folds, or one image left out at a time.
    images : int
        How many of the images were scored when they were left out.
    total_images : int
        How many training images there are.
    seed : int
        Seed of folds, columns and images.
    """

    alphas: NDArray[np.float64]
    r2: NDArray[np.floating[Any]]
    correlation: NDArray[np.floating[Any]]
    per: Per
    targets: int
    columns: int
    scheme: Scheme
    images: int
    total_images: int
    seed: int

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.r2)

    @property
    def best_step(self) -> NDArray[np.int64]:
        """Position of `best` in the grid, of shape (groups,)."""
        steps: NDArray[np.int64] = len(self.alphas) - 1 - np.argmax(self.r2[:, ::-1], axis=1)
        return steps

    @property
    def best(self) -> NDArray[np.float64]:
        """The alpha with the highest `r2`, of shape (groups,); the largest of them if several are equal."""
        return self.alphas[self.best_step]

    @property
    def per_target(self) -> NDArray[np.float64]:
        """`best`, of shape (targets,), or (1,) if there is one group."""
        return self.best if self.groups == 1 else np.repeat(self.best, self.targets // self.groups)

    @property
    def varies(self) -> NDArray[np.bool_]:
        """False for groups that are the same for all images, of shape (groups,): their curves are all 0."""
        varies: NDArray[np.bool_] = (self.r2 != 0).any(axis=1)
        return varies

    @property
    def at_edge(self) -> NDArray[np.bool_]:
        """True where `best` is the smallest or largest alpha of several, so that a wider grid might hold a better one.

        Of shape (groups,). Groups that do not vary, and those that no alpha predicts better than their mean (the
        largest penalty is right for them), are never at an edge.
        """
        low, high = self.best_step == 0, self.best_step == len(self.alphas) - 1
        hopeless = high & (self.r2.max(axis=1) <= 0)
        edge: NDArray[np.bool_] = (low | high) & self.varies & ~hopeless & (len(self.alphas) > 1)
        return edge

    @property
    def edge_warning(self) -> str:
        """What to know if `best` is at an edge of the grid; empty if it is not."""
        count = int(self.at_edge.sum())
        if not count:
            return ""
        which = f"{count:,} of {self.groups:,} {self.per}s at" if self.groups > 1 else "best at"
        return f"{which} the edge of the grid: try alphas beyond {self.alphas[0]:g} to {self.alphas[-1]:g}"

    def describe(self) -> str:
        """One sentence on what the choice looked at, for a report or a log.

        Examples
        --------
        >>> curve = np.zeros((1, 2))
        >>> AlphaChoice(np.array([1.0, 2.0]), curve, curve, "latent", 768, 512, 5, 100, 100, 0).describe()
        'One alpha per latent, by 5 folds of 100 images; 512 of 768 dimensions, drawn by seed 0.'
        """
        size = self.targets // self.groups
        looked_at = f"{self.columns} of {size:,} dimensions, drawn by seed {self.seed}"
        if self.columns == size:
            looked_at = "all dimensions" if size > 1 else "every dimension on its own"
        each = " of each token" if self.per == "token" and self.groups > 1 else ""
        folds = "leaving out one image at a time" if self.scheme == "loo" else f"{self.scheme} folds"
        scored = f"of {self.total_images:,} images"
        if self.images < self.total_images:
            scored += f", scored on {self.images:,} of them drawn by seed {self.seed}"
        return f"One alpha per {self.per}, by {folds} {scored}; {looked_at}{each}."


def alpha_grid(alphas: Iterable[float], what: str = "alphas") -> NDArray[np.float64]:
    """The penalties, ascending and each once; refused unless they are finite and above 0."""
    grid: NDArray[np.float64] = np.unique(np.asarray(list(alphas), dtype=np.float64))
    wrong = grid[~(np.isfinite(grid) & (grid > 0))]
    if len(wrong) or not len(grid):
        found = f"holds {wrong[0]:g}" if len(wrong) else "is empty"
        raise InputError(f"{what} {found}. Give finite numbers above 0.")
    return grid


def choose_alphas(
    factorisation: Factorisation,
    targets: TrainingTargets,
    alphas: Iterable[float],
    *,
    per: Per = "latent",
    scheme: Scheme = 5,
    sampled_targets: int = 512,
    seed: int = 0,
    verbose: bool = False,
    memory: float = 2e9,
) -> dict[str, AlphaChoice]:
    """Choose alphas by predicting training images that were left out, from the one factorisation of all of them.

    Parameters are those of `BrainDecoder`; `memory` is in bytes. Targets are read at most once.
    """
    grid, images = alpha_grid(alphas), len(np.unique(targets.ids))
    held_out = split_images(targets.ids, scheme, seed)
    scored = images
    curves: dict[str, Curves]
    if per == "target":
        scored = min(images, SCORED_IMAGES)
        rows = sample_rows(targets.ids, scored, seed)
        curves = score_targets(factorisation, held_out, rows, targets, grid, verbose, memory)
        looked_at = dict.fromkeys(targets, 1)
    else:
        sample = sample_targets(targets, per, sampled_targets, seed, memory)
        curves = score_alphas(factorisation, held_out, sample, grid, verbose)
        looked_at = {name: int(edges[1] - edges[0]) for name, edges in sample.groups.items()}
    return {
        name: AlphaChoice(
            grid, r2, correlation, per, targets[name].shape[1], looked_at[name], scheme, scored, images, seed
        )
        for name, (r2, correlation) in curves.items()
    }


# A few columns that stand for hundreds of thousands of targets


@dataclass(frozen=True)
class Sample:
    """Columns of shape (n, c) that stand for the targets of some latents, less their mean over rows.

    `varies` is False for columns that are the same for all images: there is nothing to predict. `groups` says for each
    latent where the columns of each of its groups start, and where the last one ends.
    """

    columns: NDArray[Any]
    varies: NDArray[np.bool_]
    groups: Mapping[str, NDArray[np.int64]]


def sample_targets(
    targets: TrainingTargets, per: Literal["latent", "token"], count: int, seed: int, memory: float
) -> Sample:
    """Draw `count` dimensions of each latent, reading all of it once.

    Its tokens share them evenly, whatever the groups are (that is less noisy than a free draw), and have at least
    `SMALLEST_SHARE` each if they are groups. What has fewer dimensions is taken whole.
    """
    taken, varies, groups = [], [], {}
    total = 0
    for name, latent in targets.items():
        shape, t = targets.shapes[name], latent.shape[1]
        tokens = shape[0] if len(shape) > 1 else 1
        share = min(max(-(-count // tokens), SMALLEST_SHARE if per == "token" else 1), t // tokens)
        columns = latent.take(_draw(t, tokens, share, seed), memory).astype(np.float64, copy=False)
        changes = varying(columns)
        columns -= columns.mean(axis=0)
        columns[:, ~changes] = 0.0
        taken.append(columns)
        varies.append(changes)
        number = tokens if per == "token" else 1
        groups[name] = total + np.arange(number + 1) * (len(changes) // number)
        total += len(changes)
    columns = np.concatenate(taken, axis=1)
    if columns.size >= SINGLE_PRECISION:
        columns = columns.astype(_precision(targets.values()), copy=False)
    return Sample(columns, np.concatenate(varies), groups)


def _draw(t: int, groups: int, share: int, seed: int) -> NDArray[np.int64]:
    """Columns drawn from each of equal groups, ascending."""
    size = t // groups
    if share == size:
        return np.arange(t)
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.choice(size, share, replace=False)) + size * group for group in range(groups)]
    return np.concatenate(drawn)


def _precision(targets: Iterable[Targets]) -> np.dtype[Any]:
    return np.result_type(np.float32, *(latent.dtype for latent in targets))


# Scores

Curves = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
"""R squared and correlation, each of shape (groups, alphas); see `AlphaChoice`."""


def score_alphas(
    factorisation: Factorisation, held_out: Groups, sample: Sample, alphas: NDArray[np.float64], verbose: bool = False
) -> dict[str, Curves]:
    """Score every alpha on all rows, by a sample of the targets.

    With few threads, alphas have one each, and so have products, which gain little from sharing two or three.
    """
    true = deviations(held_out, sample.columns)
    basis = factorisation.basis.astype(true.dtype, copy=False)
    rotated = sample.columns.T @ basis
    beside = np.zeros(1, true.dtype) if factorisation.complete else sample.columns - basis @ rotated.T
    del basis

    def moments_of(alpha: float) -> NDArray[np.float64]:
        found = np.zeros((3, true.shape[1]))
        for rows, residual in left_out_residuals(factorisation, held_out, alpha, rotated, beside):
            own = true[rows]
            found += _moments(residual, own - residual, own)
        return found

    usable = usable_threads()
    few = usable <= FEW_THREADS
    with threadpool_limits(1 if few else None), ThreadPoolExecutor(usable if few else 1) as threads:
        scored: Iterable[NDArray[np.float64]] = threads.map(moments_of, alphas.tolist())
        if verbose:
            scored = track(scored, "choose alphas", total=len(alphas), unit="alpha")
        moments = np.stack(list(scored), axis=1)
    total = _sum_of_products(true, true) * sample.varies
    error, predicted, product = moments * sample.varies
    cosine = _cosine(product, predicted, total)
    curves: dict[str, Curves] = {}
    for name, edges in sample.groups.items():
        starts, whole = edges[:-1], slice(edges[0], edges[-1])
        sums = [
            np.add.reduceat(array[..., whole], starts - edges[0], axis=-1)
            for array in (error, total, cosine, sample.varies.astype(np.float64))
        ]
        curves[name] = _r2(sums[0], sums[1]).T, (sums[2] / np.maximum(sums[3], 1)).T
    return curves


def score_targets(
    factorisation: Factorisation,
    held_out: Groups,
    rows: NDArray[np.int64],
    targets: TrainingTargets,
    alphas: NDArray[np.float64],
    verbose: bool = False,
    memory: float = 2e9,
) -> dict[str, Curves]:
    """Score every alpha for every single target, on some rows, reading the targets once; a group is one target.

    There is a curve for each of up to hundreds of thousands of targets: single precision is exact enough for them.
    """
    n, m = factorisation.n, len(rows)
    stacked = np.empty((len(alphas) + 1, m, n), dtype=_precision(targets.values()))
    stacked[0] = deviation_operator(held_out, n, rows)
    for step, alpha in enumerate(alphas):
        stacked[step + 1] = left_out_operator(factorisation, held_out, float(alpha), rows)
    operator = stacked.reshape(-1, n)
    average = np.full((1, n), 1 / n, dtype=stacked.dtype)
    curves: dict[str, Curves] = {}
    for name, latent in targets.items():
        t = latent.shape[1]
        r2, correlation = np.zeros((t, len(alphas)), np.float32), np.zeros((t, len(alphas)), np.float32)
        # Beside the products, their squares and products with each other are held, in part in double precision.
        width = block_width(latent, 3 * len(operator), memory, operator.nbytes)
        blocks: Iterable[tuple[slice, NDArray[Any]]] = latent.blocks(width)
        if verbose:
            blocks = track(blocks, f"choose alphas of {name}", total=-(-t // width), unit="block")
        for block, read in blocks:
            values = read.copy() if latent.in_memory else read
            varies = varying(values)
            # Rows of the operator sum to zero: this is for precision, and need not be exact itself.
            values -= average @ values
            values[:, ~varies] = 0
            true, *predictions = (operator @ values).reshape(len(alphas) + 1, m, -1)
            total = _sum_of_products(true, true)
            for step, prediction in enumerate(predictions):
                error, predicted, product = _moments(true - prediction, prediction, true)
                r2[block, step] = _r2(error, total)
                correlation[block, step] = _cosine(product, predicted, total)
        curves[name] = r2, correlation
    return curves


def _moments(
    residual: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per column: squared residual, squared prediction, and prediction times truth."""
    return (
        _sum_of_products(residual, residual),
        _sum_of_products(predicted, predicted),
        _sum_of_products(predicted, true),
    )


def _sum_of_products(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum(first * second, axis=0, dtype=np.float64)
    return total


def _r2(error: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.divide(error, total, out=np.ones_like(error), where=np.broadcast_to(total > 0, error.shape))
    return 1 - share


def _cosine(
    product: NDArray[np.float64], predicted: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    norm = np.sqrt(predicted * total)
    cosine: NDArray[np.float64] = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
    return cosine

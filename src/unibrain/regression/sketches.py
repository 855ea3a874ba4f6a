"""A few columns that stand for hundreds of thousands of targets where alphas are chosen.

Either a seeded sample of the dimensions, or seeded random projections of all of them. The columns of a projection are
sums of a token's dimensions with random signs (Rademacher variables; Achlioptas, 2003, "Database-friendly random
projections"): the squared error of a projected prediction has the summed squared error of the token as its mean, for
every alpha with the same signs, so that the curves of alphas keep their shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.targets import TargetReader, Targets, as_targets, block_width, varying

__all__ = [
    "PROJECTIONS",
    "Per",
    "Projection",
    "Sketch",
    "check_targets",
    "group_count",
    "sketch_targets",
]

Per = Literal["latent", "token", "target"]
"""What gets an alpha of its own: a latent, a token (a channel of the image latent), or a single dimension."""

Projection = Literal["sample", "random"]

PROJECTIONS: tuple[Projection, ...] = ("sample", "random")
"""A sample of the dimensions, or random projections of all of them."""

SINGLE_PRECISION = 2**22
"""Sketches of at least this many numbers are multiplied in single precision, if the targets have no more."""

SMALLEST_SHARE = 4
"""A token is never judged by fewer columns than this, if it has as many dimensions."""


@dataclass(frozen=True)
class Sketch:
    """Columns that stand for the targets of some latents.

    Attributes
    ----------
    columns : ndarray of shape (n, c), float32 or float64
        Less their mean over rows. float64 if any of the targets is, or the sketch is small (`SINGLE_PRECISION`).
    varies : ndarray of shape (c,), bool
        False for columns of dimensions that are the same for all images: there is nothing to predict.
    groups : mapping of str to ndarray of shape (groups + 1,), int64
        For each latent, where the columns of each of its groups start, and where the last one ends.
    """

    columns: NDArray[Any]
    varies: NDArray[np.bool_]
    groups: Mapping[str, NDArray[np.int64]]


def group_count(shape: Sequence[int], per: Per) -> int:
    """How many groups one image's latent of this shape has.

    Examples
    --------
    >>> [group_count(shape, "token") for shape in [(257, 768), (4, 64, 64), (768,)]]
    [257, 4, 1]
    """
    if per == "target":
        return int(np.prod(shape))
    return int(shape[0]) if per == "token" and len(shape) > 1 else 1


def sketch_targets(
    targets: Mapping[str, TargetReader],
    shapes: Mapping[str, tuple[int, ...]],
    per: Literal["latent", "token"] = "latent",
    count: int = 512,
    projection: Projection = "sample",
    seed: int = 0,
    memory: float = 2e9,
) -> Sketch:
    """Reduce all targets to a few columns per group, reading them at most once.

    Parameters
    ----------
    targets : mapping of str to reader of shape (n, t)
        Flattened latents.
    shapes : mapping of str to tuple of int
        Shape of one image's latent; its product is t.
    per : {"latent", "token"}
        What a group is.
    count : int
        Columns per latent. Its tokens share them evenly, and have at least `SMALLEST_SHARE` each if they are groups.
        What has fewer dimensions is taken whole.
    projection : {"sample", "random"}
        See the module. ``"random"`` projects each token onto directions of its own.
    seed : int
        Seed of the sample or the signs.
    memory : float
        Bytes for blocks of targets.

    Returns
    -------
    Sketch
    """
    sketches, varies, groups = [], [], {}
    total = 0
    for name, reader in targets.items():
        latent = as_targets(reader, name)
        tokens, t = group_count(shapes[name], "token"), latent.shape[1]
        # Every token has its say in the same measure, whatever the groups are: that is less noisy than a free draw.
        share = min(max(-(-count // tokens), SMALLEST_SHARE if per == "token" else 1), t // tokens)
        if projection == "sample" or share == t // tokens:
            columns, changes = _take(latent, _sample(t, tokens, share, seed), memory)
        else:
            columns, changes = _project(latent, tokens, share, seed, memory)
        sketches.append(columns)
        varies.append(changes)
        number = group_count(shapes[name], per)
        groups[name] = total + np.arange(number + 1) * (len(changes) // number)
        total += len(changes)
    columns = np.concatenate(sketches, axis=1)
    if columns.size >= SINGLE_PRECISION:
        precision = np.result_type(np.float32, *(reader.dtype for reader in targets.values()))
        columns = columns.astype(precision, copy=False)
    return Sketch(columns, np.concatenate(varies), groups)


def _sample(t: int, groups: int, share: int, seed: int) -> NDArray[np.int64]:
    """Columns drawn from each of equal groups, ascending."""
    size = t // groups
    if share == size:
        return np.arange(t)
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.choice(size, share, replace=False)) + size * group for group in range(groups)]
    return np.concatenate(drawn)


def _take(targets: Targets, columns: NDArray[np.int64], memory: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    taken = targets.take(columns, memory).astype(np.float64, copy=False)
    return _centre(taken, varying(taken))


def _project(
    targets: Targets, groups: int, share: int, seed: int, memory: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    n, t = targets.shape
    size = t // groups
    # All targets pass here: in the precision that they have, as in predictions.
    signs = (np.random.default_rng(seed).integers(0, 2, (t, share), dtype=np.int8) * 2 - 1).astype(targets.compute)
    average = np.full((1, n), 1 / n, dtype=targets.compute)
    projected = np.zeros((n, groups, share))
    varies = np.zeros(groups, dtype=np.bool_)
    for block, values in targets.own_blocks(block_width(targets, share, memory)):
        changes = varying(values)
        # Sums of large means would leave few digits to what varies.
        values -= average @ values
        for group in range(block.start // size, (block.stop - 1) // size + 1):
            start, stop = max(block.start, group * size), min(block.stop, (group + 1) * size)
            own = slice(start - block.start, stop - block.start)
            projected[:, group] += values[:, own] @ signs[start:stop]
            varies[group] |= changes[own].any()
    projected /= np.sqrt(share)
    return _centre(projected.reshape(n, groups * share), np.repeat(varies, share))


def _centre(columns: NDArray[np.float64], varies: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    columns -= columns.mean(axis=0)
    columns[:, ~varies] = 0.0
    return columns, varies


def check_targets(targets: Mapping[str, TargetReader], shapes: Mapping[str, tuple[int, ...]], n: int) -> None:
    """Check that every latent has n rows, a shape, and as many columns as its shape says.

    Parameters
    ----------
    targets : mapping of str to reader
    shapes : mapping of str to tuple of int
    n : int
        Number of training scans.

    Raises
    ------
    InputError
        If not, or if there is no latent at all.
    """
    if not targets:
        raise InputError("there are 0 latents, expected at least one: pass the training latents")
    for name, reader in targets.items():
        expected = (n, int(np.prod(shapes[name]))) if name in shapes else None
        if expected is None or tuple(reader.shape) != expected or 0 in expected:
            raise InputError(
                f"the targets of latent {name} have shape {tuple(reader.shape)}, expected {expected or 'a shape'}: "
                "pass one row per training scan and the shape of one image's latent"
            )

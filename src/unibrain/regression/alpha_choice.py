"""Which alpha predicts best the training images that were left out: per latent, per token, or per target."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.regression.alpha_scores import alpha_grid, sample_rows, score_alphas, score_targets
from unibrain.regression.ridge import Factorisation
from unibrain.regression.sketches import (
    PROJECTIONS,
    Per,
    Projection,
    check_targets,
    group_count,
    sketch_targets,
)
from unibrain.regression.splits import Scheme, split_images
from unibrain.regression.targets import TargetReader

__all__ = ["PERS", "AlphaChoice", "choose_alphas"]

PERS: tuple[Per, ...] = ("latent", "token", "target")
"""What can have an alpha of its own."""

SAMPLED_TARGETS = 512
SAMPLED_IMAGES = 128


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
        How many columns were looked at in each group.
    projection : {"all", "sample", "random"}
        What the columns are: all dimensions, dimensions drawn by seed, or random projections of all dimensions.
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
    projection: str
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

    def per_target(self, t: int) -> NDArray[np.float64]:
        """The chosen alpha of each dimension.

        Parameters
        ----------
        t : int
            Number of dimensions of the latent.

        Returns
        -------
        ndarray of shape (t,), float64

        Raises
        ------
        InputError
            If it is not the number that the choice was made for.
        """
        if t != self.targets:
            raise InputError(
                f"the alphas were chosen for {self.targets} targets, expected {t}: choose alphas for this latent"
            )
        return np.repeat(self.best, t // self.groups)

    def describe(self) -> str:
        """One sentence on what the choice looked at, for a report or a log.

        Examples
        --------
        >>> curve = np.zeros((1, 2))
        >>> choice = AlphaChoice(np.array([1.0, 2.0]), curve, curve, "latent", 768, 512, "sample", 5, 100, 100, 0)
        >>> choice.describe()
        'One alpha per latent, by 5 folds of 100 images; 512 of 768 dimensions, drawn by seed 0.'
        """
        size = self.targets // self.groups
        of = f"{self.columns} of {size:,} dimensions"
        ways = {
            "all": "all dimensions" if size > 1 else "every dimension on its own",
            "sample": f"{of}, drawn by seed {self.seed}",
            "random": f"all {size:,} dimensions, as {self.columns} random projections drawn by seed {self.seed}",
        }
        each = " of each token" if self.per == "token" and self.groups > 1 else ""
        folds = "leaving out one image at a time" if self.scheme == "loo" else f"{self.scheme} folds"
        scored = f"of {self.total_images:,} images"
        if self.images < self.total_images:
            scored += f", scored on {self.images:,} of them drawn by seed {self.seed}"
        return f"One alpha per {self.per}, by {folds} {scored}; {ways[self.projection]}{each}."

    def settings(self) -> dict[str, Any]:
        """All but the arrays, as JSON knows it."""
        arrays = self.arrays()
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in arrays}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays: ``alphas``, ``r2`` and ``correlation``."""
        return {"alphas": self.alphas, "r2": self.r2, "correlation": self.correlation}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "AlphaChoice":
        """The choice that `settings` and `arrays` were taken from."""
        fields: dict[str, Any] = {**settings, **arrays}
        return cls(**fields)


def choose_alphas(
    factorisation: Factorisation,
    stimulus_ids: NDArray[np.int64],
    targets: Mapping[str, TargetReader],
    shapes: Mapping[str, tuple[int, ...]],
    alphas: Sequence[float] | NDArray[np.float64],
    *,
    per: Per = "latent",
    scheme: Scheme = 5,
    sampled_targets: int = SAMPLED_TARGETS,
    projection: Projection = "sample",
    seed: int = 0,
    sampled_images: int | None = None,
    verbose: bool = False,
    memory: float = 2e9,
) -> dict[str, AlphaChoice]:
    """Choose alphas by predicting training images that were left out, from the one factorisation of all of them.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    stimulus_ids : ndarray of shape (n,), int64
        Image of each row. Rows of an image are left out together.
    targets : mapping of str to reader of shape (n, t)
        Flattened latents: arrays, memory maps, or anything that has ``shape`` and ``dtype`` and can be sliced by
        columns. Read at most once.
    shapes : mapping of str to tuple of int
        Shape of one image's latent: (tokens, width), (channels, height, width) or (width,).
    alphas : sequence of float
        Penalties above 0, in any order.
    per : {"latent", "token", "target"}
        What gets an alpha of its own; a token of the image latent is a channel.
    scheme : int or "loo"
        Number of folds, or one image left out at a time.
    sampled_targets : int
        Columns that stand for a latent, shared by its tokens (at least four each where they have an alpha of their
        own). Not used per target.
    projection : {"sample", "random"}
        What the columns are: dimensions drawn by seed, or random projections of all dimensions of each token.
    seed : int
        Seed of folds, columns and images.
    sampled_images : int, optional
        Per target, only this many images, drawn by seed, are scored (128 by default): every target is looked at, each
        a little. They are predicted by ridges of all images but their own fold.
    verbose : bool
        Show a progress bar.
    memory : float
        Bytes for blocks of targets, which are read ahead.

    Returns
    -------
    dict of str to AlphaChoice

    Raises
    ------
    InputError
        If a parameter is out of range, there are more folds than images, targets and shapes do not belong together, or
        an alpha is too small for the kernel.
    """
    grid = alpha_grid(alphas)
    images = len(np.unique(stimulus_ids))
    scored = images if per != "target" else min(images, SAMPLED_IMAGES if sampled_images is None else sampled_images)
    _check(per, projection, sampled_targets, scored)
    if len(stimulus_ids) != len(factorisation.eigenvalues):
        raise InputError(
            f"{len(stimulus_ids)} stimulus ids for a kernel of {len(factorisation.eigenvalues)} scans, expected one "
            "per scan: pass the ids of the training scans"
        )
    check_targets(targets, shapes, len(stimulus_ids))
    held_out = split_images(stimulus_ids, scheme, seed)
    curves: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    if per == "target":
        rows = sample_rows(stimulus_ids, scored, seed)
        for name, (r2, correlation) in score_targets(
            factorisation, held_out, rows, targets, grid, verbose, memory
        ).items():
            # There is a curve for each of up to hundreds of thousands of targets: half the size is exact enough.
            curves[name] = r2.astype(np.float32), correlation.astype(np.float32)
        looked_at = dict.fromkeys(targets, 1)
    else:
        sketch = sketch_targets(targets, shapes, per, sampled_targets, projection, seed, memory)
        curves.update(score_alphas(factorisation, held_out, sketch, grid, verbose))
        looked_at = {name: int(edges[1] - edges[0]) for name, edges in sketch.groups.items()}

    choices = {}
    for name, (r2, correlation) in curves.items():
        t, columns = targets[name].shape[1], looked_at[name]
        whole = columns == t // group_count(shapes[name], per)
        way = "all" if whole else projection
        choices[name] = AlphaChoice(grid, r2, correlation, per, t, columns, way, scheme, scored, images, seed)
    return choices


def _check(per: str, projection: str, sampled_targets: int, sampled_images: int) -> None:
    if per not in PERS:
        raise InputError(f"per is {per!r}, expected one of {', '.join(PERS)}: choose one of them")
    if projection not in PROJECTIONS:
        raise InputError(f"projection is {projection!r}, expected one of {', '.join(PROJECTIONS)}: choose one of them")
    if sampled_targets < 1:
        raise InputError(f"sampled_targets is {sampled_targets}, expected at least 1: leave it at its default")
    if sampled_images < 2:
        raise InputError(f"{sampled_images} images to score, expected at least two: score more images")

"""One curve per latent, in the form that the decoder's file keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.regression.alpha_scores import alpha_grid, score_alphas
from unibrain.regression.left_out import leave_out_moments, leave_out_operator
from unibrain.regression.ridge import Factorisation
from unibrain.regression.sketches import sketch_targets
from unibrain.regression.splits import split_folds

__all__ = ["AlphaCurve", "alpha_curves", "leave_out_moments", "leave_out_operator", "split_folds"]

SAMPLED_TARGETS = 512
"""How many dimensions of a latent the choice of its alpha looks at, drawn by seed."""


@dataclass(frozen=True)
class AlphaCurve:
    """How well each alpha predicted the images that were left out.

    Attributes
    ----------
    alphas : tuple of float
        The penalties, ascending.
    r2 : tuple of float
        Explained variance: one minus the squared error over the squared deviation from the training mean, both summed
        over images and dimensions; at most 1.
    correlation : tuple of float
        Correlation across images of predicted and true deviations from the training mean, mean over the dimensions
        that vary; -1 to 1.
    targets : int
        Number of dimensions that were looked at.
    """

    alphas: tuple[float, ...]
    r2: tuple[float, ...]
    correlation: tuple[float, ...]
    targets: int

    @property
    def best(self) -> float:
        """The alpha with the highest `r2`; the largest of them if several are equal."""
        return max(zip(self.r2, self.alphas, strict=True))[1]

    @property
    def at_edge(self) -> bool:
        """True if `best` is the smallest or largest alpha, so that a wider grid might hold a better one."""
        return self.best in (self.alphas[0], self.alphas[-1])


def alpha_curves(
    factorisation: Factorisation,
    held_out: Sequence[NDArray[np.int64]],
    latents: Mapping[str, NDArray[Any]],
    alphas: Sequence[float],
    sampled_targets: int = SAMPLED_TARGETS,
    seed: int = 0,
    verbose: bool = False,
) -> dict[str, AlphaCurve]:
    """Score every alpha on the images that each fold leaves out.

    Parameters
    ----------
    factorisation : Factorisation
        Of the centred kernel of all n rows.
    held_out : sequence of ndarray of int64
        Rows that each fold leaves out, from `split_folds`.
    latents : mapping of str to ndarray of shape (n, t)
        Flattened latents; may be memory maps.
    alphas : sequence of float
        Penalties above 0.
    sampled_targets : int
        Of a latent with more dimensions, this many are drawn (without replacement) and stand for all.
    seed : int
        Seed of that draw.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    dict of str to AlphaCurve
    """
    grid = alpha_grid(alphas)
    shapes = {name: (targets.shape[1],) for name, targets in latents.items()}
    sketch = sketch_targets(latents, shapes, "latent", sampled_targets, "sample", seed)
    curves = {}
    for name, (r2, correlation) in score_alphas(factorisation, held_out, sketch, grid, verbose).items():
        count = int(sketch.groups[name][-1] - sketch.groups[name][0])
        scores = tuple(map(float, r2[0])), tuple(map(float, correlation[0]))
        curves[name] = AlphaCurve(tuple(map(float, grid)), *scores, count)
    return curves

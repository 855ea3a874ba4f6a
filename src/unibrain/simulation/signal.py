"""The noise-free response of every voxel of ``nsdgeneral`` to every image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.simulation.anatomy import Anatomy
from unibrain.simulation.early import EarlyTuning, draw_early_tuning, early_responses
from unibrain.simulation.semantic import SemanticTuning, draw_semantic_tuning, scene_features, semantic_responses
from unibrain.stimuli.scenes import Scene, SceneObject

__all__ = ["Tuning", "draw_tuning", "signal"]


@dataclass(frozen=True)
class Tuning:
    """What every voxel of ``nsdgeneral`` answers to.

    Attributes
    ----------
    is_early : ndarray of shape (voxels,), bool
    early : EarlyTuning
    semantic : SemanticTuning
    catalogue : tuple of SceneObject
    """

    is_early: NDArray[np.bool_]
    early: EarlyTuning
    semantic: SemanticTuning
    catalogue: tuple[SceneObject, ...]


def draw_tuning(anatomy: Anatomy, catalogue: Sequence[SceneObject], rng: np.random.Generator) -> Tuning:
    """Draw the tuning of a subject's voxels."""
    early = anatomy.is_early
    return Tuning(
        is_early=early,
        early=draw_early_tuning(anatomy.areas[early], anatomy.fields, rng),
        semantic=draw_semantic_tuning(anatomy.areas[~early], catalogue, rng),
        catalogue=tuple(catalogue),
    )


def signal(
    tuning: Tuning, pictures: NDArray[np.uint8], scenes: Sequence[Scene], training: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Compute the responses: mean 0 and variance 1 over the training images, for every voxel.

    Parameters
    ----------
    tuning : Tuning
    pictures : ndarray of shape (n, size, size, 3), uint8
        All that early voxels see.
    scenes : sequence of Scene
        All that semantic voxels know.
    training : ndarray of shape (n,), bool
        The images that mean and variance are taken over.

    Returns
    -------
    ndarray of shape (n, voxels), float32
    """
    energy, colour = early_responses(pictures, tuning.early)
    share = tuning.early.energy_share
    early = np.sqrt(share) * _standardised(energy, training)
    early += np.sqrt(1 - share) * _standardised(colour, training)
    parts = semantic_responses(scene_features(scenes, tuning.catalogue), tuning.semantic)
    semantic = np.zeros((len(scenes), int((~tuning.is_early).sum())), dtype=np.float32)
    for part, response in parts.items():
        semantic += np.sqrt(tuning.semantic.shares[part]) * _standardised(response, training)
    responses = np.empty((len(scenes), len(tuning.is_early)), dtype=np.float32)
    responses[:, tuning.is_early] = _standardised(early, training)
    responses[:, ~tuning.is_early] = _standardised(semantic, training)
    return responses


def _standardised(values: NDArray[np.float32], training: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean, deviation = values[training].mean(axis=0), values[training].std(axis=0)
    return np.asarray((values - mean) / np.where(deviation > 1e-6, deviation, 1), dtype=np.float32)

"""Semantic voxels: which objects and which place are shown, and how large. No pixel enters here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.stimuli.scenes import BACKGROUNDS, CATEGORIES, Scene, SceneObject

__all__ = ["SceneFeatures", "SemanticTuning", "draw_semantic_tuning", "scene_features", "semantic_responses"]

PREFERENCES: dict[str, dict[str, float]] = {
    "faces": {"faces": 1.0, "animals": 0.4, "bodies": 0.3},
    "bodies": {"bodies": 1.0, "animals": 0.5, "faces": 0.3},
    "places": {"places": 1.0, "vehicles": 0.3},
    "words": {"words": 1.0, "things": 0.2},
}
"""How strongly each region answers to each category of objects, after the functional localisers' contrasts."""

PARTS: dict[str, dict[str, float]] = {
    "faces": {"category": 0.5, "objects": 0.25, "keywords": 0.25},
    "bodies": {"category": 0.5, "objects": 0.25, "keywords": 0.25},
    "words": {"category": 0.5, "objects": 0.25, "keywords": 0.25},
    "places": {"category": 0.3, "objects": 0.1, "keywords": 0.1, "background": 0.5},
    "ventral": {"category": 0.2, "objects": 0.4, "keywords": 0.4},
    "lateral": {"category": 0.2, "objects": 0.3, "keywords": 0.5},
}
"""Share of the signal variance that each part gets, by area."""


@dataclass(frozen=True)
class SceneFeatures:
    """What is on the pictures, in numbers; objects count by their size (side as a fraction of the picture).

    Attributes
    ----------
    category : ndarray of shape (n, 8), float32
        In the order of `CATEGORIES`.
    objects : ndarray of shape (n, objects), float32
    keywords : ndarray of shape (n, keywords), float32
    background : ndarray of shape (n, backgrounds), float32
        One-hot.
    """

    category: NDArray[np.float32]
    objects: NDArray[np.float32]
    keywords: NDArray[np.float32]
    background: NDArray[np.float32]


@dataclass(frozen=True)
class SemanticTuning:
    """Each semantic voxel's weights.

    Attributes
    ----------
    areas : ndarray of shape (voxels,), str
    weights : dict of str to ndarray of shape (features, voxels), float32
        By part: ``category``, ``objects``, ``keywords``, ``background``.
    shares : dict of str to ndarray of shape (voxels,), float32
        Share of the signal variance, by part.
    """

    areas: NDArray[np.str_]
    weights: dict[str, NDArray[np.float32]]
    shares: dict[str, NDArray[np.float32]]


def scene_features(scenes: Sequence[Scene], catalogue: Sequence[SceneObject]) -> SceneFeatures:
    """Count objects, categories and keywords, weighted by the objects' size.

    Parameters
    ----------
    scenes : sequence of Scene
    catalogue : sequence of SceneObject
        All objects that may occur.

    Returns
    -------
    SceneFeatures
    """
    objects = {thing.name: column for column, thing in enumerate(catalogue)}
    words = {word: column for column, word in enumerate(sorted({w for thing in catalogue for w in thing.keywords}))}
    categories = {name: column for column, name in enumerate(CATEGORIES)}
    places = {name: column for column, name in enumerate(BACKGROUNDS)}
    features = SceneFeatures(
        *(np.zeros((len(scenes), len(names)), dtype=np.float32) for names in (categories, objects, words, places))
    )
    for row, scene in enumerate(scenes):
        features.background[row, places[scene.background]] = 1
        for placement in scene.placements:
            thing = placement.object
            features.category[row, categories[thing.category]] += placement.size
            features.objects[row, objects[thing.name]] += placement.size
            features.keywords[row, [words[word] for word in thing.keywords]] += placement.size
    return features


def draw_semantic_tuning(
    areas: NDArray[np.str_], catalogue: Sequence[SceneObject], rng: np.random.Generator
) -> SemanticTuning:
    """Draw each voxel's tuning: its area's preferred categories, and random weights for everything else.

    Parameters
    ----------
    areas : ndarray of shape (voxels,), str
        ``faces``, ``bodies``, ``places``, ``words``, ``ventral`` or ``lateral``.
    catalogue : sequence of SceneObject
    rng : numpy.random.Generator

    Returns
    -------
    SemanticTuning
    """
    voxels = len(areas)
    keywords = len({word for thing in catalogue for word in thing.keywords})
    sizes = {
        "category": len(CATEGORIES),
        "objects": len(catalogue),
        "keywords": keywords,
        "background": len(BACKGROUNDS),
    }
    weights = {part: rng.normal(size=(size, voxels)).astype(np.float32) for part, size in sizes.items()}
    for column, area in enumerate(areas):
        if str(area) in PREFERENCES:
            preferred = np.array([PREFERENCES[str(area)].get(category, 0.0) for category in CATEGORIES])
            weights["category"][:, column] = preferred + 0.1 * weights["category"][:, column]
    shares = {part: np.array([PARTS[str(area)].get(part, 0.0) for area in areas], dtype=np.float32) for part in sizes}
    return SemanticTuning(areas, weights, shares)


def semantic_responses(features: SceneFeatures, tuning: SemanticTuning) -> dict[str, NDArray[np.float32]]:
    """Weigh the features of every scene.

    Parameters
    ----------
    features : SceneFeatures
    tuning : SemanticTuning

    Returns
    -------
    dict of str to ndarray of shape (n, voxels), float32
        The parts of the response, not yet standardised.
    """
    return {part: np.asarray(getattr(features, part) @ weights) for part, weights in tuning.weights.items()}

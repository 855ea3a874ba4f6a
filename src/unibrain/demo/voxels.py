"""What every voxel of ``nsdgeneral`` answers to an image, and the noise of single trials.

Early voxels (V1 to V4) see contrast energy and colour of the picture through a receptive field, and no label; after the
models of Kay et al. (2008, Nature 452:352) and St-Yves and Naselaris (2018, NeuroImage 180:188). Semantic voxels know
which objects and which place are shown, and how large (or how much of their receptive field is filled), and no pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unibrain.demo.anatomy import PICTURE_DEGREES, Anatomy, ReceptiveFields, eccentricities
from unibrain.demo.backgrounds import BACKGROUNDS
from unibrain.demo.scenes import CATEGORIES, Scene, SceneObject
from unibrain.demo.settings import Difficulty
from unibrain.scans.nsd_layout import REPEATS

Floats = NDArray[np.float32]

CYCLES = (4.0, 8.0, 16.0)
"""Spatial frequencies of the filters, cycles per picture."""
ORIENTATIONS = 4
_BANDWIDTH = 0.35
_BATCH = 64
_NOTHING = 1e-20
_ENERGY_SHARE = {"V1": 0.6, "V2": 0.55, "V3": 0.5, "V4": 0.4}
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

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
"""Share of the signal variance that each part of a scene's description gets, by area."""

# Receptive field size in degrees: at the fovea, and per degree of eccentricity. Category-selective areas have fields
# of a few degrees, most in the other half of the visual field (Kay et al. 2015, Current Biology 25:595). These are
# round numbers of that order, larger from back to front; nothing was fitted.
_SEMANTIC_FIELDS = {
    "words": (1.2, 0.3),
    "faces": (1.4, 0.3),
    "lateral": (1.4, 0.4),
    "bodies": (1.5, 0.4),
    "ventral": (1.6, 0.4),
    "places": (2.0, 0.4),
}

_SPREAD = 0.5
_LEAST_PRIVATE = 0.5


@dataclass(frozen=True)
class EarlyTuning:
    """What each early voxel prefers.

    Attributes
    ----------
    fields : ReceptiveFields
    energy : ndarray of shape (voxels, frequencies x orientations), float32
        Weights of the contrast energies, 0 or more.
    colour : ndarray of shape (voxels, 3), float32
        Weights of luminance, red-green and blue-yellow.
    energy_share : ndarray of shape (voxels,), float32
        Share of the signal variance that contrast energy gets; colour gets the rest.
    """

    fields: ReceptiveFields
    energy: Floats
    colour: Floats
    energy_share: Floats


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
    fields : ReceptiveFields or None
        None: an object counts by its size, wherever it is.
    """

    areas: NDArray[np.str_]
    weights: dict[str, Floats]
    shares: dict[str, Floats]
    fields: ReceptiveFields | None = None


@dataclass(frozen=True)
class Tuning:
    """What every voxel of ``nsdgeneral`` answers to; `is_early` has shape (voxels,)."""

    is_early: NDArray[np.bool_]
    early: EarlyTuning
    semantic: SemanticTuning
    catalogue: tuple[SceneObject, ...]


def draw_tuning(
    anatomy: Anatomy, catalogue: Sequence[SceneObject], rng: np.random.Generator, semantic_fields: bool = False
) -> Tuning:
    """Draw the tuning of a subject's voxels."""
    early = anatomy.is_early
    return Tuning(
        is_early=early,
        early=_early_tuning(anatomy.areas[early], anatomy.fields, rng),
        semantic=_semantic_tuning(anatomy, catalogue, rng, semantic_fields),
        catalogue=tuple(catalogue),
    )


def signal(tuning: Tuning, pictures: NDArray[np.uint8], scenes: Sequence[Scene], training: NDArray[np.bool_]) -> Floats:
    """Compute the noise-free responses: mean 0 and variance 1 over the training images, for every voxel.

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
    semantic = np.zeros((len(scenes), int((~tuning.is_early).sum())), dtype=np.float32)
    for part, response in semantic_responses(scenes, tuning.semantic, tuning.catalogue).items():
        semantic += np.sqrt(tuning.semantic.shares[part]) * _standardised(response, training)
    responses = np.empty((len(scenes), len(tuning.is_early)), dtype=np.float32)
    responses[:, tuning.is_early] = _standardised(early, training)
    responses[:, ~tuning.is_early] = _standardised(semantic, training)
    return responses


def _standardised(values: Floats, training: NDArray[np.bool_]) -> Floats:
    mean, deviation = values[training].mean(axis=0), values[training].std(axis=0)
    return np.asarray((values - mean) / np.where(deviation > 1e-6, deviation, 1), dtype=np.float32)


# Early voxels


def _early_tuning(areas: NDArray[np.str_], fields: ReceptiveFields, rng: np.random.Generator) -> EarlyTuning:
    """Draw preferred orientations, spatial frequencies (finer near the fovea) and colours."""
    voxels = len(areas)
    orientations = np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS
    preferred = rng.uniform(0, np.pi, voxels)
    to_orientation = np.exp(1.5 * (np.cos(2 * (orientations - preferred[:, None])) - 1))
    octave = np.log2(np.clip(16 / (1 + fields.eccentricity / 1.5), 4, 16)) + rng.normal(0, 0.5, voxels)
    to_frequency = np.exp(-np.square(np.log2(CYCLES) - octave[:, None]) / 2)
    energy = (to_frequency[:, :, None] * to_orientation[:, None, :]).reshape(voxels, -1)
    share = np.array([_ENERGY_SHARE[str(area)] for area in areas])
    colour = rng.normal(size=(voxels, 3))
    return EarlyTuning(fields, energy.astype(np.float32), colour.astype(np.float32), share.astype(np.float32))


def filter_maps(pictures: NDArray[np.uint8]) -> Floats:
    """Filter pictures (n, size, size, 3) to maps of shape (15, n, size / 2, size / 2).

    Twelve contrast energies (frequency by frequency, four orientations each), luminance, red-green, blue-yellow.
    """
    n, size = pictures.shape[:2]
    half = size // 2
    red, green, blue = (np.divide(pictures[..., i], np.float32(255), dtype=np.float32) for i in range(3))
    luminance = sum(share * colour for share, colour in zip(_LUMINANCE, (red, green, blue), strict=True))
    maps = np.empty((len(CYCLES) * ORIENTATIONS + 3, n, half, half), dtype=np.float32)
    average = _padded(size).mean(axis=0).astype(np.float32)
    brightness = (luminance @ average) @ average
    for channel, (down, across, constant) in enumerate(_gabor_filters(size)):
        # Both axes in two products of real matrices: rows and columns are real parts, then imaginary ones.
        both = down @ (luminance @ across)
        real = both[:, :half, :half] - both[:, half:, half:] - constant * brightness[:, None, None]
        imaginary = both[:, half:, :half] + both[:, :half, half:]
        np.sqrt(real * real + imaginary * imaginary, out=maps[channel])
    opponents = (luminance, red - green, blue - (red + green) / np.float32(2))
    for channel, colour in enumerate(opponents, len(CYCLES) * ORIENTATIONS):
        maps[channel] = _halve(colour)
    return maps


def early_responses(pictures: NDArray[np.uint8], tuning: EarlyTuning) -> tuple[Floats, Floats]:
    """Pool the filtered pictures over every voxel's receptive field: energy and colour, (n, voxels) each."""
    weights = np.ascontiguousarray(_pooling(tuning.fields, pictures.shape[1] // 2).T)
    energy = np.empty((len(pictures), weights.shape[1]), dtype=np.float32)
    colour = np.empty_like(energy)
    bank = len(CYCLES) * ORIENTATIONS
    for start in range(0, len(pictures), _BATCH):
        batch = slice(start, start + _BATCH)
        maps = filter_maps(pictures[batch])
        # One large product for all channels: many small ones are slow on a busy machine.
        pooled = (maps.reshape(-1, len(weights)) @ weights).reshape(*maps.shape[:2], -1)
        energy[batch] = np.einsum("cnv,vc->nv", pooled[:bank], tuning.energy)
        colour[batch] = np.einsum("cnv,vc->nv", pooled[bank:], tuning.colour)
    return energy, colour


@lru_cache(maxsize=2)
def _gabor_filters(size: int) -> list[tuple[Floats, Floats, np.float32]]:
    """One-sided Gabor filters, the modulus of whose output is the quadrature energy, sampled at every second pixel.

    A Gaussian in frequency is a product of one along each axis, and so is the filter: a matrix (size, size) for what
    comes down, and one for what comes across, each with its real and its imaginary part. The third value is what they
    make of a picture's mean. It is to be taken away: no filter is to see that.
    """
    padded = _padded(size)
    pad = (len(padded) - size) // 2
    frequencies = np.fft.fftfreq(len(padded), 1 / size)  # cycles per picture
    # Half a pixel, so that the output is taken between two pixels, at the centre of the map's pixel.
    spectrum = np.fft.fft(padded, axis=0) * np.exp(1j * np.pi * frequencies / size)[:, None]
    filters = []
    for cycles in CYCLES:
        for orientation in range(ORIENTATIONS):
            angle = orientation * np.pi / ORIENTATIONS
            strength = cycles / CYCLES[0]  # undoes the 1/f fall of natural amplitudes
            constant, parts = strength, []
            for preferred in (cycles * np.sin(angle), cycles * np.cos(angle)):
                pass_band = np.exp(-np.square((frequencies - preferred) / (_BANDWIDTH * cycles)) / 2)
                one_axis = np.fft.ifft(pass_band[:, None] * spectrum, axis=0)[pad : pad + size : 2]
                parts.append(np.concatenate([one_axis.real, one_axis.imag]))
                constant *= pass_band[0]
            down, across = (strength * parts[0]).astype(np.float32), np.ascontiguousarray(parts[1].T, dtype=np.float32)
            filters.append((down, across, np.float32(constant)))
    return filters


def _padded(size: int) -> NDArray[np.float64]:
    """Matrix that replicates borders: without them the wrap-around of the transform is an edge that nobody saw."""
    return np.pad(np.eye(size), ((size // 8, size // 8), (0, 0)), mode="edge")


def _halve(images: Floats) -> Floats:
    """Means over two by two pixels."""
    rows = images[:, ::2] + images[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / np.float32(4), dtype=np.float32)


def _pooling(fields: ReceptiveFields, size: int) -> Floats:
    """Gaussian weights over the map's pixels, summing to 1: shape (voxels, size x size)."""
    centres = ((np.arange(size) + 0.5) / size - 0.5) * PICTURE_DEGREES
    across = np.square(centres - fields.x[:, None]) / fields.sigma[:, None] ** 2
    down = np.square(-centres - fields.y[:, None]) / fields.sigma[:, None] ** 2
    weights = np.exp(-(down[:, :, None] + across[:, None, :]) / 2).reshape(len(fields.x), -1)
    weights /= weights.sum(axis=1, keepdims=True)
    # Tails that single precision cannot hold in full slow the processor down ninefold, and add nothing.
    weights[weights < _NOTHING] = 0
    return weights.astype(np.float32)


# Semantic voxels


def _semantic_tuning(
    anatomy: Anatomy, catalogue: Sequence[SceneObject], rng: np.random.Generator, with_fields: bool
) -> SemanticTuning:
    """Draw preferred categories by area, random weights for everything else, and receptive fields."""
    areas = anatomy.areas[~anatomy.is_early]
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
    if not with_fields:
        return SemanticTuning(areas, weights, shares)
    left = anatomy.left[anatomy.nsdgeneral][~anatomy.is_early]
    eccentricity = eccentricities(rng.uniform(size=voxels))
    angle = rng.uniform(-np.pi / 2, np.pi / 2, voxels)
    size, growth = np.array([_SEMANTIC_FIELDS[str(area)] for area in areas]).T
    fields = ReceptiveFields(
        x=np.where(left, 1, -1) * eccentricity * np.cos(angle),  # each hemisphere sees the other side
        y=eccentricity * np.sin(angle),
        sigma=size + growth * eccentricity,
    )
    return SemanticTuning(areas, weights, shares, fields)


def semantic_responses(
    scenes: Sequence[Scene], tuning: SemanticTuning, catalogue: Sequence[SceneObject]
) -> dict[str, Floats]:
    """Weigh objects, their categories and keywords, and backgrounds: parts of the response, (n, voxels) each."""
    objects = {thing.name: row for row, thing in enumerate(catalogue)}
    features = _features(catalogue)
    behind = np.zeros((len(scenes), len(BACKGROUNDS)), dtype=np.float32)
    behind[np.arange(len(scenes)), [BACKGROUNDS.index(scene.background) for scene in scenes]] = 1
    responses: dict[str, Floats] = {"background": np.asarray(behind @ tuning.weights["background"])}
    if tuning.fields is None:
        sizes = np.zeros((len(scenes), len(catalogue)), dtype=np.float32)
        for row, scene in enumerate(scenes):
            for placement in scene.placements:
                sizes[row, objects[placement.object.name]] = placement.size
        counts = {part: sizes @ known for part, known in features.items()}
        answers: dict[str, Floats] = {part: np.asarray(counts[part] @ tuning.weights[part]) for part in features}
        return {**answers, **responses}
    filled: dict[str, Floats] = {
        part: np.zeros((len(scenes), len(tuning.areas)), dtype=np.float32) for part in features
    }
    liking = {part: known @ tuning.weights[part] for part, known in features.items()}
    for slot in range(max(len(scene.placements) for scene in scenes)):
        rows = np.array([row for row, scene in enumerate(scenes) if len(scene.placements) > slot])
        placements = [scenes[row].placements[slot] for row in rows]
        things = [objects[placement.object.name] for placement in placements]
        centres = np.array([[placement.x - 0.5, 0.5 - placement.y] for placement in placements]) * PICTURE_DEGREES
        halves = np.array([placement.size for placement in placements]) * PICTURE_DEGREES / 2
        across = _inside(centres[:, 0], halves, tuning.fields.x, tuning.fields.sigma)
        share = across * _inside(centres[:, 1], halves, tuning.fields.y, tuning.fields.sigma)
        for part in features:
            filled[part][rows] += share * liking[part][things]
    return {**filled, **responses}


def _features(catalogue: Sequence[SceneObject]) -> dict[str, Floats]:
    """Category, identity and keywords of every object, in ones and zeros."""
    words = sorted({word for thing in catalogue for word in thing.keywords})
    category = np.array([[thing.category == name for name in CATEGORIES] for thing in catalogue])
    keywords = np.array([[word in thing.keywords for word in words] for thing in catalogue])
    parts = {"category": category, "objects": np.eye(len(catalogue)), "keywords": keywords}
    return {part: np.asarray(values, dtype=np.float32) for part, values in parts.items()}


def _inside(
    centres: NDArray[np.float64], halves: NDArray[np.float64], at: NDArray[np.float64], sigma: NDArray[np.float64]
) -> Floats:
    """Share of each voxel's Gaussian, along one axis, between the edges of each object: (objects, voxels)."""
    from scipy.special import ndtr

    edges, number = np.unique(np.concatenate([centres - halves, centres + halves]), return_inverse=True)
    below = ndtr((edges[:, None] - at) / sigma).astype(np.float32)
    return np.asarray(below[number[len(centres) :]] - below[number[: len(centres)]])


# Noise


class TrialNoise:
    """Noise of single trials: first with the signal's own covariance, then private to each voxel.

    Private noise alone is far too easy: a decoder averages it away over voxels. Noise that is spread over voxels as
    the signal is cannot be told from it, however many voxels there are.

    Parameters
    ----------
    signal : ndarray of shape (images, voxels), float32
        The noise-free responses to the training images (mean 0, variance 1).
    difficulty : Difficulty
    rng : numpy.random.Generator
        Draws how reliable each voxel is.

    Attributes
    ----------
    private : ndarray of shape (voxels,), float32
        Deviation of each voxel's private noise.
    """

    def __init__(self, signal: Floats, difficulty: Difficulty, rng: np.random.Generator) -> None:
        self._signal = signal
        self._scale = difficulty.shared_scale
        # ceiling = 100 / (1 + variance / repeats) for a signal of variance 1, solved for the noise variance.
        median = REPEATS * (100 / difficulty.noise_ceiling - 1)
        total = median * np.exp(rng.normal(0, _SPREAD, signal.shape[1]))
        private = np.maximum(total - difficulty.shared_scale**2, _LEAST_PRIVATE)
        self.private: Floats = np.sqrt(private).astype(np.float32)

    def draw(self, trials: int, rng: np.random.Generator) -> Floats:
        """Draw noise of shape (trials, voxels), in units of the signal's deviation."""
        images, voxels = self._signal.shape
        # A random mixture of all images' signals has exactly the signal's covariance.
        mixture = rng.standard_normal((trials, images), dtype=np.float32)
        mixture /= np.float32(np.sqrt(images))
        noise: Floats = mixture @ self._signal
        noise *= np.float32(self._scale)
        private = rng.standard_normal((trials, voxels), dtype=np.float32)
        private *= self.private
        noise += private
        return noise

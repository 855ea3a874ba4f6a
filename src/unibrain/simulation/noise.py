"""Noise of single trials: first with the signal's own covariance, then private to each voxel.

Private noise alone is far too easy: a decoder averages it away over voxels. Noise that is spread over voxels as the
signal is cannot be told from it, however many voxels there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.scans.nsd_layout import REPEATS

__all__ = ["DIFFICULTIES", "Difficulty", "TrialNoise"]

_SPREAD = 0.5
_LEAST_PRIVATE = 0.5


@dataclass(frozen=True)
class Difficulty:
    """How noisy single trials are.

    Attributes
    ----------
    shared_scale : float
        Deviation of the noise with the signal's covariance, in units of the signal's.
    noise_ceiling : float
        Median noise ceiling of three averaged repeats over ``nsdgeneral``, percent. NSD's subjects have 13 to 34.
    """

    shared_scale: float
    noise_ceiling: float


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(shared_scale=1.0, noise_ceiling=30.0),
    "realistic": Difficulty(shared_scale=2.0, noise_ceiling=18.0),
}


class TrialNoise:
    """Draws the noise of single trials.

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

    def __init__(self, signal: NDArray[np.float32], difficulty: Difficulty, rng: np.random.Generator) -> None:
        self._signal = signal
        self._scale = difficulty.shared_scale
        # ceiling = 100 / (1 + variance / repeats) for a signal of variance 1, solved for the noise variance.
        median = REPEATS * (100 / difficulty.noise_ceiling - 1)
        total = median * np.exp(rng.normal(0, _SPREAD, signal.shape[1]))
        private = np.maximum(total - difficulty.shared_scale**2, _LEAST_PRIVATE)
        self.private: NDArray[np.float32] = np.sqrt(private).astype(np.float32)

    def draw(self, trials: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw noise of shape (trials, voxels), float32, in units of the signal's deviation."""
        images, voxels = self._signal.shape
        # A random mixture of all images' signals has exactly the signal's covariance.
        mixture = rng.standard_normal((trials, images), dtype=np.float32) / np.float32(np.sqrt(images))
        noise = np.float32(self._scale) * (mixture @ self._signal)
        noise += self.private * rng.standard_normal((trials, voxels), dtype=np.float32)
        return np.asarray(noise, dtype=np.float32)

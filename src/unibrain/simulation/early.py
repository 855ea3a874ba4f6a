"""Early voxels: contrast energy and colour of the picture, seen through a receptive field. No label enters here.

After the models of Kay et al. (2008, Nature 452:352) and St-Yves and Naselaris (2018, NeuroImage 180:188): a bank of
Gabor energy filters, pooled by a Gaussian over space; receptive fields grow with eccentricity and from V1 to V4.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain.simulation.anatomy import PICTURE_DEGREES, ReceptiveFields

__all__ = ["EarlyTuning", "draw_early_tuning", "early_responses", "filter_maps"]

CYCLES = (4.0, 8.0, 16.0)
"""Spatial frequencies of the filters, cycles per picture."""
ORIENTATIONS = 4
_BANDWIDTH = 0.35
_BATCH = 128
_ENERGY_SHARE = {"V1": 0.6, "V2": 0.55, "V3": 0.5, "V4": 0.4}
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


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
    energy: NDArray[np.float32]
    colour: NDArray[np.float32]
    energy_share: NDArray[np.float32]


def draw_early_tuning(areas: NDArray[np.str_], fields: ReceptiveFields, rng: np.random.Generator) -> EarlyTuning:
    """Draw each voxel's preferred orientation, spatial frequency (finer near the fovea) and colours.

    Parameters
    ----------
    areas : ndarray of shape (voxels,), str
        ``V1`` to ``V4``.
    fields : ReceptiveFields
    rng : numpy.random.Generator

    Returns
    -------
    EarlyTuning
    """
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


def filter_maps(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Filter pictures: contrast energies, luminance and two colour opponents, at half the resolution.

    Parameters
    ----------
    pictures : ndarray of shape (n, size, size, 3), uint8

    Returns
    -------
    ndarray of shape (15, n, size / 2, size / 2), float32
        Twelve energies (frequency by frequency, four orientations each), luminance, red-green, blue-yellow.
    """
    from scipy import fft

    n, size = pictures.shape[:2]
    rgb: NDArray[np.float32] = pictures.astype(np.float32) / np.float32(255)
    luminance = rgb @ _LUMINANCE
    # Replicated borders: without them the wrap-around of the transform is an edge that nobody saw.
    pad = size // 8
    padded = np.pad(luminance, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    spectrum = fft.fft2(padded)
    maps = np.empty((len(CYCLES) * ORIENTATIONS + 3, n, size // 2, size // 2), dtype=np.float32)
    for channel, kernel in enumerate(_gabor_spectra(size, pad)):
        energy = np.abs(fft.ifft2(_fold(spectrum * kernel)))
        maps[channel] = energy[:, pad // 2 : (pad + size) // 2, pad // 2 : (pad + size) // 2]
    red, green, blue = (rgb[..., i] for i in range(3))
    opponents = (luminance, red - green, blue - (red + green) / np.float32(2))
    for channel, colour in enumerate(opponents, len(CYCLES) * ORIENTATIONS):
        maps[channel] = _halve(colour)
    return maps


def early_responses(
    pictures: NDArray[np.uint8], tuning: EarlyTuning
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pool the filtered pictures over every voxel's receptive field.

    Parameters
    ----------
    pictures : ndarray of shape (n, size, size, 3), uint8
    tuning : EarlyTuning

    Returns
    -------
    energy, colour : ndarray of shape (n, voxels), float32
        The two parts of the response, not yet standardised.
    """
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


def _gabor_spectra(size: int, pad: int) -> list[NDArray[np.complex64]]:
    """Transfer functions of one-sided Gabor filters: the modulus of their output is the quadrature energy."""
    frequencies = np.fft.fftfreq(size + 2 * pad, 1 / size)  # cycles per picture
    fy, fx = np.meshgrid(frequencies, frequencies, indexing="ij")
    # Half a pixel, so that the output is taken between two pixels, at the centre of the map's pixel.
    half_pixel = np.exp(1j * np.pi * (fx + fy) / size)
    spectra = []
    for cycles in CYCLES:
        for orientation in range(ORIENTATIONS):
            angle = orientation * np.pi / ORIENTATIONS
            distance = np.hypot(fx - cycles * np.cos(angle), fy - cycles * np.sin(angle))
            # The factor undoes the 1/f fall of natural amplitudes.
            spectrum = cycles / CYCLES[0] * np.exp(-np.square(distance / (_BANDWIDTH * cycles)) / 2)
            spectrum[0, 0] = 0
            spectra.append((spectrum * half_pixel).astype(np.complex64))
    return spectra


def _fold(spectra: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Spectra of every second sample along both axes: taking samples in space is folding in frequency."""
    n, height, width = spectra.shape
    folded = spectra.reshape(n, 2, height // 2, 2, width // 2)
    return (folded[:, 0, :, 0] + folded[:, 0, :, 1] + folded[:, 1, :, 0] + folded[:, 1, :, 1]) / 4


def _halve(images: NDArray[np.float32]) -> NDArray[np.float32]:
    n, height, width = images.shape
    return np.asarray(images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4)), dtype=np.float32)


def _pooling(fields: ReceptiveFields, size: int) -> NDArray[np.float32]:
    """Gaussian weights over the map's pixels, summing to 1: shape (voxels, size x size)."""
    centres = ((np.arange(size) + 0.5) / size - 0.5) * PICTURE_DEGREES
    across = np.square(centres - fields.x[:, None]) / fields.sigma[:, None] ** 2
    down = np.square(-centres - fields.y[:, None]) / fields.sigma[:, None] ** 2
    weights = np.exp(-(down[:, :, None] + across[:, None, :]) / 2).reshape(len(fields.x), -1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)

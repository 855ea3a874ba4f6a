"""Random scans and targets, and their store, for the tests of regressions."""

import numpy as np

from unibrain.latents import Latents, LatentWriter, open_latents
from unibrain.regression.targets import training_targets

SHAPES = {"z_image": (2, 4, 3), "z_text": (6,), "c_image": (3, 5), "c_text": (4, 5)}
N, M, VOXELS = 40, 9, 60


def named(**arrays):
    return training_targets(arrays)


def make(n=N, m=M, voxels=VOXELS, noise=1.0, dtype=np.float32, seed=0):
    """Scans, and latents of the same n + m images."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + m, voxels)).astype(dtype)
    arrays = {}
    for name, shape in SHAPES.items():
        weights = rng.standard_normal((voxels, *shape)) / np.sqrt(voxels)
        noisy = np.tensordot(X, weights, 1) + noise * rng.standard_normal((n + m, *shape)) + 2
        arrays[name] = noisy.astype(dtype)
    return X, Latents(np.arange(100, 100 + n + m), arrays)


def store(folder, latents, storage="zarr", precision="float32"):
    writer = LatentWriter(folder, latents.stimulus_ids, "small", "f", storage=storage, precision=precision)
    writer.begin({name: array.shape[1:] for name, array in latents.items()})
    writer.write_rows(0, dict(latents.items()))
    writer.finish()
    return open_latents(folder)


def changed(latents, **arrays):
    return Latents(latents.stimulus_ids, {**latents.arrays, **arrays})


def flat(latents, name):
    return latents[name].reshape(len(latents[name]), -1)


def same(one, other, tolerance=2e-5):
    assert list(one) == list(other)
    for name in one:
        assert np.abs(one[name] - other[name]).max() <= tolerance * np.abs(other[name]).max(), name

"""Random targets and their store, for the tests of regressions whose targets lie on a disk."""

import numpy as np

from unibrain.latents import LATENT_NAMES, Latents, LatentWriter, open_latents

SHAPES = {"z_image": (2, 4, 3), "z_text": (6,), "c_image": (3, 5), "c_text": (4, 5)}
N, M, VOXELS = 40, 9, 60


def make(n=N, m=M, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + m, VOXELS)).astype(np.float32)
    arrays = []
    for shape in SHAPES.values():
        weights = rng.standard_normal((VOXELS, *shape)) / np.sqrt(VOXELS)
        noisy = np.tensordot(X, weights, 1) + rng.standard_normal((n + m, *shape)) + 2
        arrays.append(noisy.astype(np.float32))
    return X, Latents(np.arange(100, 100 + n + m), *arrays)


def store(folder, latents, storage="zarr", precision="float32"):
    writer = LatentWriter(folder, latents.stimulus_ids, "small", "f", storage=storage, precision=precision)
    writer.begin(SHAPES)
    writer.write_rows(0, dict(latents.items()))
    writer.finish()
    return open_latents(folder)


def same(one, other, tolerance=2e-5):
    for name in LATENT_NAMES:
        assert np.abs(one[name] - other[name]).max() < tolerance * np.abs(other[name]).max(), name

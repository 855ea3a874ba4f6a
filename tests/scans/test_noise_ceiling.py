import numpy as np
from scipy.stats import zscore

from unibrain.scans.nsd import NcsnrAccumulator, noise_ceiling


def recipe(sessions: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """The authors' recipe, word for word, over all trials at once."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.concatenate([zscore(betas.astype(float), axis=0, ddof=1) for betas in sessions])
    complete = [image for image in np.unique(images) if (images == image).sum() == 3]
    variance = np.array([np.var(z[images == image], axis=0, ddof=1) for image in complete])
    noise = np.sqrt(np.nanmean(variance, axis=0))
    return np.sqrt(np.maximum(0, 1 - noise**2)) / noise


def test_accumulator_equals_the_recipe() -> None:
    rng = np.random.default_rng(0)
    images = rng.permutation(np.concatenate([np.tile(np.arange(30), 3), [30, 31, 31, 32]])) % 33
    images = images[:93]
    signal = rng.normal(size=(33, 6)) * np.linspace(0, 2, 6)
    betas = np.rint(300 * (signal[images] + rng.normal(size=(93, 6))) + 200).astype(np.int16)
    sessions = list(betas.reshape(3, 31, 6))
    sessions[1][:, 4] = 0
    ceiling = NcsnrAccumulator(33, 6)
    for number, session in enumerate(sessions):
        ceiling.add(session, images[31 * number : 31 * number + 31])
    np.testing.assert_allclose(ceiling.ncsnr(), recipe(sessions, images), rtol=1e-4, atol=1e-3)


def test_percent() -> None:
    np.testing.assert_allclose(noise_ceiling(np.array([0.0, 0.361, 1.0, np.nan])), [0, 28.1, 75, np.nan], atol=0.02)

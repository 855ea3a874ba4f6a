"""Blurred contexts against what ridge regression really predicts from noisy measurements."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from unibrain.training.blurred_contexts import blurred_contexts

TOKENS, WIDTH, N = 3, 8, 3000


@pytest.fixture(scope="module")
def contexts():
    generator = torch.Generator().manual_seed(0)
    deviations = torch.logspace(0, -2, TOKENS * WIDTH)
    rotation = torch.linalg.qr(torch.randn(TOKENS * WIDTH, TOKENS * WIDTH, generator=generator))[0]
    flat = torch.randn(N, TOKENS * WIDTH, generator=generator) * deviations @ rotation.T + 1
    return flat.unflatten(1, (TOKENS, WIDTH))


def draw(blur, noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    partners = torch.randint(N, (N, 4), generator=generator)
    shares = torch.randn((N, 4), generator=generator) / 2
    return blur.draw(torch.arange(N), torch.full((N, 1), noise), partners, shares)


def correlation_per_component(blur, a, b):
    x, y = ((part - blur.mean).flatten(1) @ blur.axes.T for part in (a, b))
    return np.array([np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(x.shape[1])])


def test_axes_are_principal_components(contexts):
    blur = blurred_contexts(contexts)
    expected = np.linalg.eigvalsh(np.cov(contexts.flatten(1).numpy().T, bias=True))[::-1]
    np.testing.assert_allclose(blur.variances, expected, rtol=1e-3)
    torch.testing.assert_close(blur.mean + (blur.scores @ blur.axes).view_as(contexts), contexts, atol=1e-4, rtol=0)


def test_is_as_reliable_as_ridge_from_noisy_measurements(contexts):
    """A measurement is a random mixture of all entries with white noise; ridge is fitted on one half."""
    blur = blurred_contexts(contexts)
    noise = 0.05
    rng = np.random.default_rng(0)
    flat = contexts.flatten(1).numpy()
    mixing = np.linalg.qr(rng.standard_normal((flat.shape[1], flat.shape[1])))[0]
    level = np.sqrt(noise * float(blur.variances.sum()))
    scans = (flat - flat.mean(0)) @ mixing + level * rng.standard_normal(flat.shape)
    half = N // 2
    predicted = Ridge(half * level**2).fit(scans[:half], flat[:half]).predict(scans[half:])
    by_ridge = correlation_per_component(
        blur, torch.tensor(predicted, dtype=torch.float32).view(-1, TOKENS, WIDTH), contexts[half:]
    )
    drawn = correlation_per_component(blur, draw(blur, noise), contexts)
    # The components that carry nine tenths of the variance; of the others neither tells much.
    large = blur.variances.cumsum(0) < 0.9 * blur.variances.sum()
    np.testing.assert_allclose(drawn[large], by_ridge[large], atol=0.1)
    assert drawn[-5:].max() < 0.2


def test_keeps_the_summed_variance(contexts):
    blur = blurred_contexts(contexts)
    for noise in (0.004, 0.1):
        blurred = draw(blur, noise)
        assert blurred.shape == contexts.shape
        ratio = (blurred - blur.mean).square().sum() / (contexts - blur.mean).square().sum()
        assert float(ratio) == pytest.approx(1, abs=0.06)


def test_more_noise_tells_less(contexts):
    blur = blurred_contexts(contexts)
    similar = [
        torch.cosine_similarity((draw(blur, noise) - blur.mean).flatten(1), (contexts - blur.mean).flatten(1))
        .mean()
        .item()
        for noise in (0.004, 0.02, 0.1)
    ]
    assert similar == sorted(similar, reverse=True)
    assert similar[0] > 0.8
    assert similar[-1] < 0.7

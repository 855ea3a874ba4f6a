import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr
from skimage import data
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity as skimage_ssim

from unibrain.errors import InputError
from unibrain.evaluation import pictures
from unibrain.evaluation.pictures import (
    _load_network,
    at_size,
    network_is_installed,
    picture_features,
    pixel_correlation,
    structural_similarity,
)


@pytest.fixture(scope="module")
def pair():
    """Photographs and noisy copies, uint8 (3, 60, 80, 3)."""
    random = np.random.default_rng(0)
    seen = np.stack([picture[100:160, 100:180] for picture in (data.chelsea(), data.astronaut(), data.coffee())])
    noisy = np.clip(seen + random.normal(0, 40, seen.shape), 0, 255).astype(np.uint8)
    return seen, noisy


def test_pixcorr_is_scipys_correlation_of_all_values(pair):
    seen, noisy = pair
    expected = [pearsonr(a.ravel(), b.ravel()).statistic for a, b in zip(seen, noisy, strict=True)]
    np.testing.assert_allclose(pixel_correlation(seen, noisy), expected, rtol=1e-12)


def test_pixcorr_of_one_colour_is_not_a_number(pair):
    grey = np.full_like(pair[0], 77)
    assert np.isnan(pixel_correlation(pair[0], grey)).all()
    assert np.isnan(pixel_correlation(grey, pair[0])).all()


def test_ssim_is_that_of_skimage_with_the_published_settings(pair):
    seen, noisy = pair
    expected = [
        skimage_ssim(
            rgb2gray(a), rgb2gray(b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for a, b in zip(seen, noisy, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(seen, noisy), expected, rtol=1e-12)


def test_pictures_too_small_for_a_window():
    with pytest.raises(InputError, match="10 x 80 pixels"):
        structural_similarity(*np.zeros((2, 3, 10, 80, 3), np.uint8))


def test_pictures_are_resized_as_pillow_does(pair):
    small = at_size(pair[1], 32, 32)
    np.testing.assert_array_equal(small[1], Image.fromarray(pair[1][1]).resize((32, 32), Image.Resampling.BICUBIC))


needs_network = pytest.mark.skipif(
    not network_is_installed(), reason="EfficientNet-lite0 is not installed (extra demo)"
)


@pytest.fixture(scope="module")
def photographs():
    """A cat, a cup of coffee, a person: uint8 (3, 256, 256, 3)."""
    squares = data.chelsea()[:, 75:375], data.coffee()[:, 100:500], data.astronaut()
    return np.concatenate([at_size(square[None], 256, 256) for square in squares])


@needs_network
def test_the_network_names_a_cat_and_a_cup(photographs):
    """ImageNet classes, so weights, value range and layer are the right ones."""
    import torch

    logits = _load_network()._fc(torch.from_numpy(picture_features(photographs)))
    cat, cup, _ = logits.argmax(1).tolist()
    assert cat in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian cat
    assert cup in (504, 967, 968)  # mug, espresso, cup
    assert logits.softmax(1)[1].max() > 0.9


@needs_network
def test_features_are_those_of_the_picture_whatever_its_size_and_batch(photographs, monkeypatch):
    monkeypatch.setattr(pictures, "_BATCH", 2)
    large = picture_features(photographs)
    assert large.shape == (3, 1280)
    assert large.dtype == np.float32
    np.testing.assert_allclose(picture_features(photographs[2:]), large[2:], atol=1e-4)
    small = picture_features(at_size(photographs, 112, 112))
    similarity = np.corrcoef(large, small)[:3, 3:]
    others = similarity[~np.eye(3, dtype=bool)]
    assert np.diag(similarity).min() > 0.5 > others.max()


def test_without_the_network_the_message_says_how_to_install_it(monkeypatch, photographs):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "unibrain\[demo\]"'):
        picture_features(photographs)

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


def test_pixcorr_of_a_negative_is_minus_one(pair):
    np.testing.assert_allclose(pixel_correlation(pair[0], 255 - pair[0]), -1.0, rtol=1e-12)


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


def test_ssim_is_two_dimensional_and_symmetric(pair):
    seen, noisy = pair
    turned = [pictures.transpose(0, 2, 1, 3) for pictures in pair]
    np.testing.assert_allclose(structural_similarity(*turned), structural_similarity(seen, noisy), atol=1e-9)
    np.testing.assert_allclose(structural_similarity(noisy, seen), structural_similarity(seen, noisy), atol=1e-9)
    np.testing.assert_allclose(structural_similarity(seen, seen), 1.0)


def test_decoded_pictures_take_the_size_of_the_seen_ones(pair):
    seen, noisy = pair
    small = at_size(noisy, 32, 32)
    assert small.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(small[1], Image.fromarray(noisy[1]).resize((32, 32), Image.Resampling.BICUBIC))
    back = at_size(small, 60, 80)
    np.testing.assert_array_equal(pixel_correlation(seen, small), pixel_correlation(seen, back))
    np.testing.assert_array_equal(structural_similarity(seen, small), structural_similarity(seen, back))


def test_pictures_that_fit_are_not_copied(pair):
    assert at_size(pair[0], 60, 80) is pair[0]


@pytest.mark.parametrize(
    ("metric", "seen", "decoded", "named"),
    [
        (structural_similarity, (3, 10, 80, 3), (3, 10, 80, 3), "10 x 80 pixels"),
        (pixel_correlation, (3, 60, 80, 3), (3, 60, 80), r"shape \(3, 60, 80\)"),
        (pixel_correlation, (3, 60, 80, 3), (2, 60, 80, 3), "3 seen and 2 decoded"),
    ],
)
def test_wrong_arrays(metric, seen, decoded, named):
    with pytest.raises(InputError, match=named):
        metric(np.zeros(seen, np.uint8), np.zeros(decoded, np.uint8))


def test_floating_point_pictures_are_refused(pair):
    with pytest.raises(InputError, match="float64"):
        pixel_correlation(pair[0], pair[1] / 255)


needs_network = pytest.mark.skipif(
    not network_is_installed(), reason="EfficientNet-lite0 is not installed (extra demo)"
)


def square(picture):
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[None, top : top + side, left : left + side]


@pytest.fixture(scope="module")
def photographs():
    """A cat, a cup of coffee, a person: uint8 (3, 256, 256, 3)."""
    return np.concatenate([at_size(square(p), 256, 256) for p in (data.chelsea(), data.coffee(), data.astronaut())])


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
def test_features_are_those_of_the_picture_whatever_its_size_and_batch(photographs):
    large = picture_features(photographs, batch_size=2)
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

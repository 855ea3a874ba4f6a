import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr
from skimage import data
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity as skimage_ssim

from unibrain.errors import InputError
from unibrain.evaluation.pixels import at_size, pixel_correlation, structural_similarity


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


def test_pictures_below_the_window_are_refused(pair):
    with pytest.raises(InputError, match="10 x 80 pixels, expected at least 11 x 11"):
        structural_similarity(pair[0][:, :10], pair[1][:, :10])


@pytest.mark.parametrize(
    ("decoded", "message"),
    [
        (np.zeros((3, 60, 80, 3)), "float64"),
        (np.zeros((3, 60, 80), np.uint8), r"shape \(3, 60, 80\)"),
        (np.zeros((2, 60, 80, 3), np.uint8), "3 seen and 2 decoded"),
    ],
)
def test_other_arrays_are_refused(pair, decoded, message):
    with pytest.raises(InputError, match=message):
        pixel_correlation(pair[0], decoded)

"""Preprocessing of pictures for CLIP, computed again with Pillow and NumPy alone."""

import numpy as np
import pytest
from PIL import Image

from unibrain.backbone import VersatileDiffusion
from unibrain.backbone.clip import make_image_processor, preprocess
from unibrain.backbone.config import ClipConfig
from unibrain.errors import InputError

# Radford et al., arXiv 2103.00020: mean and deviation of the training pictures.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])


def config(image_size: int, resize: int) -> ClipConfig:
    return ClipConfig(vision={"image_size": image_size}, resize=resize)


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


def by_hand(picture: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    image = Image.fromarray(picture)
    for size in sizes:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(image, dtype=np.float64) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("height", "width", "resize", "image_size", "sizes"),
    [
        (20, 31, 24, 16, (24, 16)),
        (24, 24, 24, 16, (16,)),
        (12, 12, 16, 16, (16,)),
        (16, 16, 16, 16, ()),
        (60, 48, 32, 40, (32, 40)),
    ],
)
def test_pixels(height: int, width: int, resize: int, image_size: int, sizes: tuple[int, ...]) -> None:
    shown = pictures(height, width)
    found = preprocess(make_image_processor(config(image_size, resize)), shown, resize).numpy()
    assert found.dtype == np.float32
    assert found.shape == (3, 3, image_size, image_size)
    np.testing.assert_allclose(found, np.stack([by_hand(picture, sizes) for picture in shown]), atol=1e-5, rtol=0)


def test_grey_has_the_known_value() -> None:
    grey = np.full((1, 16, 16, 3), 127, dtype=np.uint8)
    pixels = preprocess(make_image_processor(config(16, 16)), grey, 16)[0, :, 0, 0]
    np.testing.assert_allclose(pixels, [0.0617, 0.1539, 0.3257], atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((1, 16, 16, 3), 0.5, dtype=np.float32),
        np.zeros((1, 16, 16, 3), dtype=np.int64),
        np.zeros((16, 16, 3), dtype=np.uint8),
        np.zeros((1, 3, 16, 16), dtype=np.uint8),
    ],
)
def test_other_pictures_are_refused(tiny: VersatileDiffusion, wrong: np.ndarray) -> None:
    for method in (tiny.picture_contexts, tiny.picture_embeddings, tiny.encode_pictures):
        with pytest.raises(InputError, match=r"expected uint8 of shape \(n, height, width, 3\)"):
            method(wrong)

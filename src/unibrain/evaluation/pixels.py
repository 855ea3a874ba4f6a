"""How alike two pictures are, pixel by pixel: PixCorr and SSIM."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

__all__ = ["at_size", "pixel_correlation", "structural_similarity"]

_SIGMA = 1.5
_WINDOW = 11  # what sigma 1.5, cut off at 3.5 sigma, needs


def at_size(pictures: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize pictures, bicubic, as 8-bit pictures (Pillow, with its antialiasing).

    Parameters
    ----------
    pictures : ndarray of shape (n, h, w, 3), uint8
    height, width : int

    Returns
    -------
    ndarray of shape (n, height, width, 3), uint8
        `pictures` itself if it has that size.
    """
    if pictures.shape[1:3] == (height, width):
        return pictures
    from PIL import Image

    resized = np.empty((len(pictures), height, width, 3), np.uint8)
    for row, picture in enumerate(pictures):
        resized[row] = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    return resized


def pixel_correlation(seen: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PixCorr: Pearson's correlation over all values (pixels times colours) of a picture.

    Parameters
    ----------
    seen : ndarray of shape (n, height, width, 3), uint8
    decoded : ndarray of shape (n, h, w, 3), uint8
        Resized to the size of `seen` where it differs.

    Returns
    -------
    ndarray of shape (n,), float64, -1 to 1
        NaN where one of the two pictures has one colour value only.
    """
    _check(seen, decoded)
    decoded = at_size(decoded, *seen.shape[1:3])
    values = np.full(len(seen), np.nan)
    for row, (a, b) in enumerate(zip(seen, decoded, strict=True)):
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        x -= x.mean()
        y -= y.mean()
        if a.min() != a.max() and b.min() != b.max():
            values[row] = x @ y / np.sqrt((x @ x) * (y @ y))
    return values


def structural_similarity(seen: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """SSIM (Wang et al. 2004) of the grey pictures: Gaussian window with sigma 1.5, values between 0 and 1.

    Two-dimensional, as computed by scikit-image since 0.20. Older versions read ``multichannel=True``, which public
    scripts pass, as one-dimensional SSIM of single columns; numbers from there are 0.08 to 0.15 higher.

    Parameters
    ----------
    seen : ndarray of shape (n, height, width, 3), uint8
        At least 11 x 11 pixels.
    decoded : ndarray of shape (n, h, w, 3), uint8
        Resized to the size of `seen` where it differs.

    Returns
    -------
    ndarray of shape (n,), float64, at most 1

    Raises
    ------
    InputError
        If the pictures are smaller than the window.
    """
    from skimage.color import rgb2gray

    _check(seen, decoded)
    height, width = seen.shape[1:3]
    if min(height, width) < _WINDOW:
        raise InputError(
            f"the seen pictures are {height} x {width} pixels, "
            f"expected at least {_WINDOW} x {_WINDOW} for SSIM: use larger pictures"
        )
    # Picture by picture: in floating point, a thousand large pictures would not fit into memory.
    pairs = zip(seen, at_size(decoded, height, width), strict=True)
    return np.array([_grey_similarity(rgb2gray(a), rgb2gray(b)) for a, b in pairs])


def _grey_similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from skimage.metrics import structural_similarity as skimage_ssim

    similarity: Callable[..., float] = skimage_ssim
    return similarity(a, b, gaussian_weights=True, sigma=_SIGMA, use_sample_covariance=False, data_range=1.0)


def _check(seen: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> None:
    for name, pictures in (("seen", seen), ("decoded", decoded)):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise InputError(
                f"{name} pictures are {pictures.dtype} of shape {pictures.shape}, "
                "expected uint8 of shape (n, height, width, 3)"
            )
    if len(seen) != len(decoded):
        raise InputError(
            f"{len(seen)} seen and {len(decoded)} decoded pictures, expected one decoded picture per seen one"
        )

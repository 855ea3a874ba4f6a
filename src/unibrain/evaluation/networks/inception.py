"""Inception-v3 (Szegedy et al. 2016), with the names of torchvision's published weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = int | tuple[int, int]
Unit = tuple[int, Size]
Chain = Sequence[Unit | tuple[Unit, Unit]]

_EPS = 0.001  # PyTorch's usual 1e-5 would be another network
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU; padded to keep the size, unless it takes strides."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int = 1, *, padded: bool = True) -> None:
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (height // 2, width // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Chains of units side by side, and a pooling, whose own chain (``branch_pool``) may be absent.

    A chain's last step may be a pair: two units that see the same. With maximum pooling, the last unit of every chain
    takes strides, and so halves the size.
    """

    def __init__(self, inputs: int, pooling: Literal["mean", "max"], **chains: Chain) -> None:
        super().__init__()
        self.pooling, self.chains = pooling, dict[str, list[list[str]]]()
        for name, chain in chains.items():
            width, self.chains[name] = inputs, []
            for number, step in enumerate(chain, start=1):
                stride = 2 if pooling == "max" and number == len(chain) else 1
                units = step if isinstance(step[0], tuple) else (step,)
                suffixes = ["a", "b"] if len(units) == 2 else [""]
                place = f"_{number}" if len(chain) > 1 else ""
                names = [f"{name}{place}{suffix}" for suffix in suffixes]
                for unit_name, (outputs, kernel) in zip(names, units, strict=True):
                    self.add_module(unit_name, _Unit(width, outputs, kernel, stride))
                self.chains[name].append(names)
                width = units[0][0]

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 3, 1, 1) if self.pooling == "mean" else functional.max_pool2d(x, 3, 2)
        found = []
        for name, steps in self.chains.items():
            y = pooled if name == "branch_pool" else x
            for names in steps:
                y = torch.cat([self.get_submodule(unit)(y) for unit in names], 1)
            found.append(y)
        return torch.cat(found if "branch_pool" in self.chains else [*found, pooled], 1)


def _a(inputs: int, pooled: int) -> _Mixed:
    double: Chain = [(64, 1), (96, 3), (96, 3)]
    return _Mixed(
        inputs,
        "mean",
        branch1x1=[(64, 1)],
        branch5x5=[(48, 1), (64, 5)],
        branch3x3dbl=double,
        branch_pool=[(pooled, 1)],
    )


def _c(width: int) -> _Mixed:
    row, column = (1, 7), (7, 1)
    return _Mixed(
        768,
        "mean",
        branch1x1=[(192, 1)],
        branch7x7=[(width, 1), (width, row), (192, column)],
        branch7x7dbl=[(width, 1), (width, column), (width, row), (width, column), (192, row)],
        branch_pool=[(192, 1)],
    )


def _e(inputs: int) -> _Mixed:
    split = ((384, (1, 3)), (384, (3, 1)))
    return _Mixed(
        inputs,
        "mean",
        branch1x1=[(320, 1)],
        branch3x3=[(384, 1), split],
        branch3x3dbl=[(448, 1), (384, 3), split],
        branch_pool=[(192, 1)],
    )


class InceptionV3(nn.Module):
    """Pictures (B, 3, s, s), ImageNet-normalised, s at least 75, to logits (B, 1000); ``avgpool`` has 2048 features.

    The published weights come from TensorFlow and expect values from -1 to 1, so the input is mapped from ImageNet's
    normalisation to that, as torchvision's ``transform_input`` does. The auxiliary head is left out: it only trains.
    """

    def __init__(self, *, remap: bool = True) -> None:
        super().__init__()
        self.remap = remap
        self.Conv2d_1a_3x3 = _Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = _Unit(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = _Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = _Unit(80, 192, 3, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = _a(192, 32)
        self.Mixed_5c = _a(256, 64)
        self.Mixed_5d = _a(288, 64)
        self.Mixed_6a = _Mixed(288, "max", branch3x3=[(384, 3)], branch3x3dbl=[(64, 1), (96, 3), (96, 3)])
        self.Mixed_6b = _c(128)
        self.Mixed_6c = _c(160)
        self.Mixed_6d = _c(160)
        self.Mixed_6e = _c(192)
        narrow: Chain = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]
        self.Mixed_7a = _Mixed(768, "max", branch3x3=[(192, 1), (320, 3)], branch7x7x3=narrow)
        self.Mixed_7b = _e(1280)
        self.Mixed_7c = _e(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the 1000 classes."""
        x = pictures
        if self.remap:
            scale = x.new_tensor([std / 0.5 for std in _IMAGENET_STD])
            shift = x.new_tensor([(mean - 0.5) / 0.5 for mean in _IMAGENET_MEAN])
            x = x * scale[:, None, None] + shift[:, None, None]
        for name, module in self.named_children():
            x = self.fc(x.flatten(1)) if name == "fc" else module(x)
        return x

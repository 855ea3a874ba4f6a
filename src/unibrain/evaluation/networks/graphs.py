"""The graphs of the networks behind published scores, with the names of torchvision's published weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the colours that pictures are normalised by."""


class _Classifier(nn.Module):
    """Features, averaged over space, to logits."""

    features: nn.Module
    avgpool: nn.Module
    classifier: nn.Module

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(pictures)).flatten(1))
        return logits


class AlexNet(_Classifier):
    """Krizhevsky 2014, "One weird trick": pictures (B, 3, s, s), ImageNet-normalised, s from 63, to logits (B, 1000).

    Layers have the numbers of torchvision's graph: ``features.4`` and ``features.11`` are the second and the fifth
    convolution behind their ReLU, ``features.5`` and ``features.12`` the poolings after them, ``classifier.5`` is the
    second hidden layer. No ReLU works in place, so that any of them can be asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 1000),
        )


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        shortcut = [nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)]
        self.downsample = nn.Sequential(*(shortcut if inputs != 4 * width else []))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(_Bottleneck(inputs, width, stride), *rest)


class ResNet50(nn.Module):
    """He et al. 2016, without its classifier: what SwAV (Caron et al. 2020) is.

    Pictures (B, 3, s, s), ImageNet-normalised, to features (B, 2048), which are also those of ``avgpool``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3, 1)
        self.layer2 = _stage(256, 128, 4, 2)
        self.layer3 = _stage(512, 256, 6, 2)
        self.layer4 = _stage(1024, 512, 3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features of the last layer, averaged over space."""
        x = pictures
        for module in self.children():
            x = module(x)
        return x.flatten(1)


# Of each stage of EfficientNet-B1: expansion, kernel, stride of its first block, width, blocks.
_STAGES = (
    (1, 3, 1, 16, 2),
    (6, 3, 2, 24, 3),
    (6, 5, 2, 40, 3),
    (6, 3, 2, 80, 4),
    (6, 5, 1, 112, 4),
    (6, 5, 2, 192, 5),
    (6, 3, 1, 320, 2),
)


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, active: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *([nn.SiLU()] if active else []))


class _Gate(nn.Module):
    """Squeeze and excitation: a factor from 0 to 1 for each channel, from the channels' means."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        factor: Tensor = self.fc2(functional.silu(self.fc1(means))).sigmoid()
        return x * factor


class _Block(nn.Module):
    """Inverted residual: expand, convolve each channel, gate, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.block = nn.Sequential(
            *([_convolution(inputs, wide)] if expansion > 1 else []),
            _convolution(wide, wide, kernel, stride, groups=wide),
            _Gate(wide, inputs // 4),
            _convolution(wide, outputs, active=False),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return x + found if self.adds else found


class EfficientNetB1(_Classifier):
    """Tan and Le 2019: pictures (B, 3, s, s), ImageNet-normalised, to logits; ``avgpool`` has 1280 features."""

    def __init__(self) -> None:
        super().__init__()
        stages, width = [], 32
        for expansion, kernel, stride, outputs, blocks in _STAGES:
            first = _Block(width, outputs, expansion, kernel, stride)
            rest = [_Block(outputs, outputs, expansion, kernel, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            width = outputs
        self.features = nn.Sequential(_convolution(3, 32, 3, 2), *stages, _convolution(width, 4 * width))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * width, 1000))


Size = int | tuple[int, int]
Unit = tuple[int, Size]
Chain = Sequence[Unit | tuple[Unit, Unit]]

_EPS = 0.001  # PyTorch's usual 1e-5 would be another network


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
    """Szegedy et al. 2016: pictures (B, 3, s, s), ImageNet-normalised, s from 75, to logits (B, 1000).

    ``avgpool`` has 2048 features. The published weights come from TensorFlow and expect values from -1 to 1, so the
    input is mapped from ImageNet's normalisation to that, as torchvision's ``transform_input`` does. The auxiliary head
    is left out: it only trains.
    """

    def __init__(self) -> None:
        super().__init__()
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
        means, deviations = IMAGENET
        scale = pictures.new_tensor([deviation / 0.5 for deviation in deviations])
        shift = pictures.new_tensor([(mean - 0.5) / 0.5 for mean in means])
        x = pictures * scale[:, None, None] + shift[:, None, None]
        for name, module in self.named_children():
            x = self.fc(x.flatten(1)) if name == "fc" else module(x)
        return x

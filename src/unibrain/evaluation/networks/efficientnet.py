"""EfficientNet-B1 (Tan and Le 2019), with the names of torchvision's published weights."""

from torch import Tensor, nn
from torch.nn import functional

# Of each stage: expansion, kernel, stride of its first block, width, blocks.
_STAGES = (
    (1, 3, 1, 16, 2),
    (6, 3, 2, 24, 3),
    (6, 5, 2, 40, 3),
    (6, 3, 2, 80, 4),
    (6, 5, 1, 112, 4),
    (6, 5, 2, 192, 5),
    (6, 3, 1, 320, 2),
)


def _unit(
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
            *([_unit(inputs, wide)] if expansion > 1 else []),
            _unit(wide, wide, kernel, stride, groups=wide),
            _Gate(wide, inputs // 4),
            _unit(wide, outputs, active=False),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return x + found if self.adds else found


class EfficientNetB1(nn.Module):
    """Pictures (B, 3, s, s), ImageNet-normalised, to logits (B, 1000); ``avgpool`` has 1280 features."""

    def __init__(self) -> None:
        super().__init__()
        stages, width = [], 32
        for expansion, kernel, stride, outputs, blocks in _STAGES:
            first = _Block(width, outputs, expansion, kernel, stride)
            rest = [_Block(outputs, outputs, expansion, kernel, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            width = outputs
        self.features = nn.Sequential(_unit(3, 32, 3, 2), *stages, _unit(width, 4 * width))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * width, 1000))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the 1000 classes."""
        logits: Tensor = self.classifier(self.avgpool(self.features(pictures)).flatten(1))
        return logits

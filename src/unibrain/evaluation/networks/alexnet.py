"""AlexNet (Krizhevsky 2014, "One weird trick"), with the names of torchvision's published weights."""

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Pictures (B, 3, s, s), ImageNet-normalised, s at least 63, to logits (B, 1000).

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

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the 1000 classes."""
        logits: Tensor = self.classifier(self.avgpool(self.features(pictures)).flatten(1))
        return logits

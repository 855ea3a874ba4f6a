"""Data blocks: two-dimensional ones for image latents, flat ones for text latents.

Module names follow the published checkpoint (``in_layers``, ``emb_layers``, ``op``, ...), so that its keys fit as they
are.
"""

from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.plan import DataBlock
from unibrain.backbone.products import Conv2d, GroupNorm, Linear, PointwiseConv

__all__ = ["make_image_block", "make_text_block"]

NORM_GROUPS = 32


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(NORM_GROUPS, channels, eps=1e-5)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, plus the time embedding, once more, plus the input.

    Parameters
    ----------
    channels_in, channels_out : int
    embedding_width : int
        Width of the time embedding.
    """

    def __init__(self, channels_in: int, channels_out: int, embedding_width: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(_norm(channels_in), nn.SiLU(), self._mix(channels_in, channels_out))
        self.emb_layers = nn.Sequential(nn.SiLU(), Linear(embedding_width, channels_out))
        # Index 2 is a dropout of zero in the published model; it holds the place so that the keys fit.
        self.out_layers = nn.Sequential(
            _norm(channels_out), nn.SiLU(), nn.Identity(), self._mix(channels_out, channels_out)
        )
        same = channels_in == channels_out
        self.skip_connection = nn.Identity() if same else self._widen(channels_in, channels_out)

    @staticmethod
    def _mix(channels_in: int, channels_out: int) -> nn.Module:
        return Conv2d(channels_in, channels_out, 3, padding=1)

    @staticmethod
    def _widen(channels_in: int, channels_out: int) -> nn.Module:
        return Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] and [B or 1, embedding_width] to [B, channels_out, H, W]."""
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halve height and width with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H/2, W/2]."""
        return self.op(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Double height and width by repetition, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, 2H, 2W]."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class PlainConv(Conv2d):
    """A convolution that ignores the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map [B, channels_in, H, W] to [B, channels_out, H, W]."""
        return super().forward(x)


class ImageHead(nn.Sequential):
    """GroupNorm, SiLU, convolution to the latent's channels."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__(_norm(channels), nn.SiLU(), Conv2d(channels, image_channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map [B, C, H, W] to [B, image_channels, H, W]."""
        return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


class FlatResidualBlock(ResidualBlock):
    """A residual block on the flattened text state; feature c of row s becomes channel ``c * second_dim + s``."""

    def __init__(self, channels_in: int, channels_out: int, embedding_width: int, second_dim: int) -> None:
        super().__init__(channels_in * second_dim, channels_out * second_dim, embedding_width)
        self.second_dim = second_dim

    @staticmethod
    def _mix(channels_in: int, channels_out: int) -> nn.Module:
        return PointwiseConv(channels_in, channels_out)

    _widen = _mix

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map [B, channels_in, second_dim, 1] to [B, channels_out, second_dim, 1]."""
        flat = x.flatten(1)
        h = self.in_layers(flat) + self.emb_layers(embedding)
        return (self.skip_connection(flat) + self.out_layers(h)).view(len(x), -1, self.second_dim, 1)  # type: ignore[no-any-return]


class FlatLinear(Linear):
    """A linear map into the text state, or within it.

    Parameters
    ----------
    width_in : int
        Width of the flattened input.
    channels_out, second_dim : int
        Shape of the output state.
    """

    def __init__(self, width_in: int, channels_out: int, second_dim: int) -> None:
        super().__init__(width_in, channels_out * second_dim)
        self.second_dim = second_dim

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map [B, width_in] or a state of that many entries to [B, channels_out, second_dim, 1]."""
        return super().forward(x.flatten(1)).view(len(x), -1, self.second_dim, 1)


class TextHead(nn.Sequential):
    """GroupNorm over the unflattened state, SiLU, linear map to the text latent."""

    def __init__(self, channels: int, text_width: int, second_dim: int) -> None:
        super().__init__(_norm(channels), nn.SiLU(), Linear(channels * second_dim, text_width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map [B, C, second_dim, 1] to [B, text_width]."""
        norm, activation, linear = self
        return linear(activation(norm(x)).flatten(1))  # type: ignore[no-any-return]


def make_image_block(block: DataBlock, image_channels: int, embedding_width: int) -> nn.Module:
    """Build the module of one data position for image latents.

    Parameters
    ----------
    block : DataBlock
    image_channels : int
        Channels of the image latent.
    embedding_width : int
        Width of the time embedding.

    Returns
    -------
    torch.nn.Module
        Called with a state [B, C, H, W] and a time embedding [B, embedding_width].
    """
    match block.kind:
        case "stem":
            return PlainConv(image_channels, block.channels_out, 3, padding=1)
        case "residual":
            return ResidualBlock(block.channels_in, block.channels_out, embedding_width)
        case "down":
            return Downsample(block.channels_out)
        case "up":
            return Upsample(block.channels_out)
        case "head":
            return ImageHead(block.channels_in, image_channels)


def make_text_block(block: DataBlock, text_width: int, embedding_width: int, second_dim: int) -> nn.Module:
    """Build the module of one data position for text latents; down- and upsamplers keep the size here.

    Parameters
    ----------
    block : DataBlock
    text_width : int
        Width of the text latent.
    embedding_width : int
        Width of the time embedding.
    second_dim : int
        Rows of the state.

    Returns
    -------
    torch.nn.Module
        Called with a state [B, C, second_dim, 1] (the stem: [B, text_width]) and a time embedding.
    """
    match block.kind:
        case "stem":
            return FlatLinear(text_width, block.channels_out, second_dim)
        case "residual":
            return FlatResidualBlock(block.channels_in, block.channels_out, embedding_width, second_dim)
        case "down" | "up":
            return FlatLinear(block.channels_in * second_dim, block.channels_out, second_dim)
        case "head":
            return TextHead(block.channels_in, text_width, second_dim)

"""The four-flow network of Versatile Diffusion: image or text latents, guided by image and text contexts at once.

Data blocks are chosen by the type of the latent, context blocks by the type of the context, and the time embedding is
shared. Module names follow the published checkpoint below ``diffuser.``, so that its keys fit as they are
(arXiv 2211.08332, section 3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.products import Conv2d, GroupNorm, LayerNorm, Linear, PointwiseConv, linear

KeyValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of a context, [B or 1, heads, tokens, head width] each: one pair for the whole batch, or one for the
unconditional half and one for the conditional."""

PreparedTime = tuple[Tensor, ...]
"""A timestep as each residual block adds it, [1 or B, channels] each, in the order of the blocks."""

BlockKind = Literal["stem", "residual", "down", "up", "head"]


# The order of the blocks.


@dataclass(frozen=True)
class DataBlock:
    """What stands at one data position; a head ends at `channels_in`, its output width depends on the latent."""

    kind: BlockKind
    channels_in: int
    channels_out: int


@dataclass(frozen=True)
class Step:
    """Run data or context block `index`, save the state, or join it with the one that was saved last."""

    action: Literal["data", "context", "save", "join"]
    index: int = 0


@dataclass(frozen=True)
class Plan:
    """The blocks and the walk through them: it builds the network and runs it, for both types of latents."""

    data: tuple[DataBlock, ...]
    context_channels: tuple[int, ...]
    steps: tuple[Step, ...]


def make_plan(config: FlowsConfig) -> Plan:
    """Lay out a U-shaped network of data and context positions (Versatile Diffusion, figure 3).

    >>> plan = make_plan(FlowsConfig())
    >>> len(plan.data), len(plan.context_channels)
    (30, 16)
    """
    data: list[DataBlock] = []
    contexts: list[int] = []
    steps: list[Step] = []
    skips: list[int] = []

    def add_data(kind: BlockKind, channels_in: int, channels_out: int) -> None:
        steps.append(Step("data", len(data)))
        data.append(DataBlock(kind, channels_in, channels_out))

    def add_context(channels: int) -> None:
        steps.append(Step("context", len(contexts)))
        contexts.append(channels)

    def save(channels: int) -> None:
        steps.append(Step("save"))
        skips.append(channels)

    widths = [config.model_channels * multiple for multiple in config.channel_mult]
    last = len(widths) - 1
    current = config.model_channels
    add_data("stem", 0, current)
    save(current)
    for level, width in enumerate(widths):
        for _ in range(config.res_blocks[level]):
            add_data("residual", current, width)
            current = width
            if config.attention[level]:
                add_context(current)
            save(current)
        if level != last:
            add_data("down", current, current)
            save(current)

    add_data("residual", current, current)
    add_context(current)
    add_data("residual", current, current)

    for level in reversed(range(len(widths))):
        for _ in range(config.res_blocks[level] + 1):
            steps.append(Step("join"))
            add_data("residual", current + skips.pop(), widths[level])
            current = widths[level]
            if config.attention[level]:
                add_context(current)
        if level != 0:
            add_data("up", current, current)
    add_data("head", current, current)
    return Plan(tuple(data), tuple(contexts), tuple(steps))


# Data blocks: two-dimensional for image latents, flat for text latents.


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Encode timesteps (B,) as cosines, then sines, of geometric frequencies: (B, width), float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps.float()[:, None] * frequencies.to(timesteps.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(32, channels, eps=1e-5)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, plus the time embedding, once more, plus the input."""

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

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] and what `emb_layers` made, [B or 1, channels_out], to [B, channels_out, H, W]."""
        h = self.in_layers(x) + time[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halve height and width with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H/2, W/2]."""
        return self.op(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Double height and width by repetition, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, 2H, 2W]."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class FlatResidualBlock(ResidualBlock):
    """A residual block on the flattened text state; feature c of row s becomes channel ``c * second_dim + s``."""

    def __init__(self, channels_in: int, channels_out: int, embedding_width: int, second_dim: int) -> None:
        super().__init__(channels_in * second_dim, channels_out * second_dim, embedding_width)
        self.second_dim = second_dim

    @staticmethod
    def _mix(channels_in: int, channels_out: int) -> nn.Module:
        return PointwiseConv(channels_in, channels_out)

    _widen = _mix

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, channels_in, second_dim, 1] to [B, channels_out, second_dim, 1]."""
        flat = x.flatten(1)
        h = self.in_layers(flat) + time
        return (self.skip_connection(flat) + self.out_layers(h)).view(len(x), -1, self.second_dim, 1)  # type: ignore[no-any-return]


class FlatLinear(Linear):
    """A linear map of a text latent or state to the state [B, channels_out, second_dim, 1]."""

    def __init__(self, width_in: int, channels_out: int, second_dim: int) -> None:
        super().__init__(width_in, channels_out * second_dim)
        self.second_dim = second_dim

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in], or a state of that many entries, to the state."""
        return super().forward(x.flatten(1)).view(len(x), -1, self.second_dim, 1)


class TextHead(nn.Sequential):
    """GroupNorm over the unflattened state, SiLU, linear map to the text latent [B, text_width]."""

    def __init__(self, channels: int, text_width: int, second_dim: int) -> None:
        super().__init__(_norm(channels), nn.SiLU(), Linear(channels * second_dim, text_width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, second_dim, 1] to [B, text_width]."""
        norm, activation, linear = self
        return linear(activation(norm(x)).flatten(1))  # type: ignore[no-any-return]


def _image_block(block: DataBlock, image_channels: int, embedding_width: int) -> nn.Module:
    match block.kind:
        case "stem":
            return Conv2d(image_channels, block.channels_out, 3, padding=1)
        case "residual":
            return ResidualBlock(block.channels_in, block.channels_out, embedding_width)
        case "down":
            return Downsample(block.channels_out)
        case "up":
            return Upsample(block.channels_out)
        case "head":
            last = Conv2d(block.channels_in, image_channels, 3, padding=1)
            return nn.Sequential(_norm(block.channels_in), nn.SiLU(), last)


def _text_block(block: DataBlock, text_width: int, embedding_width: int, second_dim: int) -> nn.Module:
    match block.kind:
        case "stem":
            return FlatLinear(text_width, block.channels_out, second_dim)
        case "residual":
            return FlatResidualBlock(block.channels_in, block.channels_out, embedding_width, second_dim)
        case "down" | "up":  # the size of the text state does not change
            return FlatLinear(block.channels_in * second_dim, block.channels_out, second_dim)
        case "head":
            return TextHead(block.channels_in, text_width, second_dim)


# Context blocks: a transformer block over the state's positions that attends to itself and to a context.


def repeated(x: Tensor, copies: int) -> Tensor:
    """Stack `copies` of a batch, one after the other; the batch itself if it is one."""
    return x if copies == 1 else torch.cat([x] * copies)


class Attention(nn.Module):
    """Multi-head attention without masks, from `width` to what has `source_width`."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(source_width, width, bias=False)
        self.to_v = Linear(source_width, width, bias=False)
        self.to_out = nn.Sequential(Linear(width, width))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Project [B, tokens, source_width] to keys and values, [B, heads, tokens, head width] each."""
        return self._split(self.to_k(source)), self._split(self.to_v(source))

    def forward(self, x: Tensor, sources: KeyValues) -> Tensor:
        """Attend from [B, positions, width] to keys and values; returns [B, positions, width]."""
        shares = self._split(self.to_q(x)).chunk(len(sources))
        attended = []
        for queries, (keys, values) in zip(shares, sources, strict=True):
            if len(keys) != len(queries):
                # Not a copy: the rows of a batch look at the same memory.
                keys, values = (rows.expand(len(queries), -1, -1, -1) for rows in (keys, values))
            attended.append(functional.scaled_dot_product_attention(queries, keys, values))
        joined = attended[0] if len(attended) == 1 else torch.cat(attended)
        return self.to_out(joined.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class GatedLinear(nn.Module):
    """GEGLU: one half of a linear map, gated by the exact GELU of the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to [..., hidden]."""
        # By halves: what lies closely is gated sooner, and in place where nothing has to be known of it later.
        value, gate = map(partial(linear, x), self.proj.weight.chunk(2), self.proj.bias.chunk(2))
        gate = functional.gelu(gate)
        return value * gate if torch.is_grad_enabled() else value.mul_(gate)


class FeedForward(nn.Module):
    """GEGLU of four times the width, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Index 1 is a dropout of zero in the published model.
        self.net = nn.Sequential(GatedLinear(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to [..., width]."""
        return self.net(x)  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each behind a layer norm and beside a residual."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = LayerNorm(width)
        self.attn2 = Attention(width, context_width, heads)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: KeyValues, copies: int = 1) -> Tensor:
        """Map [B, positions, width] to [copies * B, positions, width]; what comes before the context is done once."""
        normed = self.norm1(x)
        x = x + self.attn1(normed, (self.attn1.keys_values(normed),))
        x = repeated(x, copies)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class ContextBlock(nn.Module):
    """The block at one context position."""

    def __init__(self, channels: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in = PointwiseConv(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, context_width)])
        self.proj_out = PointwiseConv(channels, channels)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project a context [B, tokens, context_width] to this position's keys and values."""
        attention = self.transformer_blocks[0].attn2
        assert isinstance(attention, Attention)
        return attention.keys_values(context)

    def forward(self, x: Tensor, context: KeyValues, copies: int = 1) -> Tensor:
        """Map a state [B, C, H, W] (text: H = second_dim, W = 1) to [copies * B, C, H, W], its input added."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        tokens = self.transformer_blocks[0](tokens, context, copies)
        h = self.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[2:])
        return repeated(x, copies) + h  # type: ignore[no-any-return]


# The network.


@dataclass(frozen=True)
class PreparedContext:
    """The context `name`, projected once for all steps: its keys and values at each context position, and its share.

    Shares of all contexts are divided by their sum.
    """

    name: str
    keys_values: tuple[KeyValues, ...]
    share: float = 1.0

    def beside(self, other: "PreparedContext") -> "PreparedContext":
        """Read `other` in the first half of a batch of twice the size, and this context in the second; no copies."""
        pairs = zip(other.keys_values, self.keys_values, strict=True)
        return PreparedContext(self.name, tuple((*first, *second) for first, second in pairs), self.share)


class _Diffuser(nn.Module):
    """Blocks of one type; wrapped singly in containers, as in the published checkpoint."""

    def __init__(self, data: Sequence[nn.Module], plan: Plan, config: FlowsConfig) -> None:
        super().__init__()
        self.data_blocks = nn.ModuleList([nn.ModuleList([block]) for block in data])
        self.context_blocks = nn.ModuleList(
            [
                nn.ModuleList([ContextBlock(channels, config.heads, config.context_width)])
                for channels in plan.context_channels
            ]
        )


class FourFlows(nn.Module):
    """Predict the noise (or velocity) of an image latent (B, channels, H, W) or a text latent (B, text_width).

    With several contexts, every context position runs one block per context, and the outputs are mixed by share.
    """

    def __init__(self, config: FlowsConfig) -> None:
        super().__init__()
        self.config = config
        self.plan = make_plan(config)
        width = 4 * config.model_channels
        self.image = _Diffuser(
            [_image_block(block, config.image_channels, width) for block in self.plan.data], self.plan, config
        )
        self.image.time_embed = nn.Sequential(Linear(config.model_channels, width), nn.SiLU(), Linear(width, width))
        self.text = _Diffuser(
            [_text_block(block, config.text_width, width, config.second_dim) for block in self.plan.data],
            self.plan,
            config,
        )

    def context_block(self, name: str, index: int) -> ContextBlock:
        """The block that reads the context ``c_image`` or ``c_text`` at one position."""
        block = {"c_image": self.image, "c_text": self.text}[name].context_blocks[index][0]  # type: ignore[index]
        assert isinstance(block, ContextBlock)
        return block

    def prepare(self, name: str, context: Tensor, share: float = 1.0) -> PreparedContext:
        """Project ``c_image`` or ``c_text``, (B or 1, tokens, context_width), for every context position."""
        positions = range(len(self.plan.context_channels))
        return PreparedContext(
            name, tuple((self.context_block(name, index).keys_values(context),) for index in positions), share
        )

    def embed_time(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """Time embedding of shape (B, 4 * model_channels); the sinusoid is computed in float32 and then cast."""
        return self.image.time_embed(sinusoid(timesteps, self.config.model_channels).to(dtype))  # type: ignore[no-any-return, operator]

    def prepare_times(self, x: Tensor, timesteps: Tensor) -> dict[int, PreparedTime]:
        """Project timesteps (T,), all in one product per block, for latents of the kind and precision of `x`."""
        rows = (time.split(1) for time in self._project_times(x, timesteps))
        return dict(zip(timesteps.tolist(), zip(*rows, strict=True), strict=True))

    def _data_blocks(self, x: Tensor) -> list[nn.Module]:
        return [holder[0] for holder in (self.image if x.ndim == 4 else self.text).data_blocks]  # type: ignore[index]

    def _project_times(self, x: Tensor, timesteps: Tensor) -> PreparedTime:
        embedding = self.embed_time(timesteps, x.dtype)
        residual = (block for block in self._data_blocks(x) if isinstance(block, ResidualBlock))
        return tuple(block.emb_layers(embedding) for block in residual)

    def forward(self, x: Tensor, timesteps: Tensor | PreparedTime, contexts: Sequence[PreparedContext]) -> Tensor:
        """Predict from latents, int64 timesteps (B,) or (1,) or one that is prepared, and one or more contexts.

        If the contexts are read by halves (`PreparedContext.beside`), `x` is one half: both start from the same rows,
        and what comes before the first context is computed once. The result then has twice the rows.
        """
        data = self._data_blocks(x)
        times = iter(self._project_times(x, timesteps) if isinstance(timesteps, Tensor) else timesteps)
        total = sum(context.share for context in contexts)
        copies = len(contexts[0].keys_values[0]) if contexts[0].keys_values else 1
        saved: list[Tensor] = []
        h = x
        for step in self.plan.steps:
            if step.action == "save":
                saved.append(h)
            elif step.action == "join":
                skip = saved.pop()
                h = torch.cat([h, repeated(skip, len(h) // len(skip))], dim=1)
            elif step.action == "context":
                h = self._mix(h, contexts, step.index, total, copies)
                copies = 1
            elif isinstance(block := data[step.index], ResidualBlock):
                time = next(times)
                h = block(h, time if len(time) == 1 else repeated(time, len(h) // len(time)))
            else:
                h = block(h)
        return repeated(h, copies)

    def _mix(self, h: Tensor, contexts: Sequence[PreparedContext], index: int, total: float, copies: int) -> Tensor:
        def read(context: PreparedContext) -> Tensor:
            return self.context_block(context.name, index)(h, context.keys_values[index], copies)  # type: ignore[no-any-return]

        if len(contexts) == 1:
            return read(contexts[0])
        outputs = ((context.share / total) * read(context) for context in contexts if context.share)
        mixed = next(outputs)
        for output in outputs:
            mixed = mixed + output
        return mixed

"""Context blocks: a transformer block over the state's positions that attends to itself and to a context."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.products import GroupNorm, LayerNorm, Linear, PointwiseConv

__all__ = ["ContextBlock", "KeyValue", "KeyValues", "repeated"]

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of a context, each [B, heads, tokens, head width]; B may be 1."""

KeyValues = tuple[KeyValue, ...]
"""Keys and values of each equal share of the batch: one for all, or the unconditional half's and the conditional's."""


def repeated(x: Tensor, copies: int) -> Tensor:
    """Stack `copies` of a batch, one after the other; the batch itself if it is one."""
    return x if copies == 1 else torch.cat([x] * copies)


class Attention(nn.Module):
    """Multi-head attention without masks.

    Parameters
    ----------
    width : int
        Width of the queries and of the output.
    source_width : int
        Width of what is attended to.
    heads : int
    """

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

    def keys_values(self, source: Tensor) -> KeyValue:
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
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)  # type: ignore[no-any-return]


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
        """Map [B, positions, width] to [copies * B, positions, width], reading `context`.

        What comes before the reading is computed once, and then repeated.
        """
        normed = self.norm1(x)
        x = x + self.attn1(normed, (self.attn1.keys_values(normed),))
        x = repeated(x, copies)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class ContextBlock(nn.Module):
    """The block at one context position.

    Parameters
    ----------
    channels : int
        Channels of the state.
    heads : int
        Attention heads.
    context_width : int
        Width of the context tokens.
    """

    def __init__(self, channels: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in = PointwiseConv(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, context_width)])
        self.proj_out = PointwiseConv(channels, channels)

    def keys_values(self, context: Tensor) -> KeyValue:
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

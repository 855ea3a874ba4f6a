"""The same network, written plainly: what the measured implementation is compared with.

It computes what `unibrain.backbone` computes, with the same weights, in the straightforward way: attention with the
whole softmax matrix in memory, contexts projected to keys and values at every step, 1x1 convolutions as convolutions,
the unconditional half stacked on the conditional one and computed from the first layer on. The arithmetic is that of
the weights' precision throughout.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain.backbone.flows import FourFlows, sinusoid


def _apply(layer: Any, x: Tensor) -> Tensor:
    """Run one layer with PyTorch's own operation on the layer's weights."""
    if isinstance(layer, nn.Conv2d):
        return functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    if isinstance(layer, nn.Linear):
        return functional.linear(x, layer.weight, layer.bias)
    if isinstance(layer, nn.Sequential):
        for inner in layer:
            x = _apply(inner, x)
        return x
    return layer(x)  # type: ignore[no-any-return]


def _attention(attention: Any, x: Tensor, source: Tensor) -> Tensor:
    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    q, k, v = (
        heads(_apply(layer, rows))
        for layer, rows in ((attention.to_q, x), (attention.to_k, source), (attention.to_v, source))
    )
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return _apply(attention.to_out, (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _context_block(block: Any, x: Tensor, context: Tensor) -> Tensor:
    h = _apply(block.proj_in, block.norm(x))
    tokens = h.flatten(2).transpose(1, 2)
    layer = block.transformer_blocks[0]
    normed = layer.norm1(tokens)
    tokens = tokens + _attention(layer.attn1, normed, normed)
    tokens = tokens + _attention(layer.attn2, layer.norm2(tokens), context)
    value, gate = _apply(layer.ff.net[0].proj, layer.norm3(tokens)).chunk(2, dim=-1)
    tokens = tokens + _apply(layer.ff.net[2], value * functional.gelu(gate))
    return x + _apply(block.proj_out, tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def _residual(block: Any, x: Tensor, embedding: Tensor) -> Tensor:
    h = _apply(block.in_layers, x) + _apply(block.emb_layers, embedding)[:, :, None, None]
    return _apply(block.skip_connection, x) + _apply(block.out_layers, h)


def _data_block(kind: str, block: Any, x: Tensor, embedding: Tensor, second_dim: int | None) -> Tensor:
    if second_dim is None:
        if kind == "residual":
            return _residual(block, x, embedding)
        if kind == "down":
            return _apply(block.op, x)
        if kind == "up":
            return _apply(block.conv, functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return _apply(block, x)
    if kind == "residual":
        flat = x.flatten(1)[:, :, None, None]
        return _residual(block, flat, embedding).view(len(x), -1, second_dim, 1)
    if kind == "head":
        norm, activation, last = block
        return _apply(last, activation(norm(x)).flatten(1))
    return _apply(block, x.flatten(1)).view(len(x), -1, second_dim, 1)


def _predict(flows: FourFlows, x: Tensor, timesteps: Tensor, contexts: Mapping[str, tuple[Tensor, float]]) -> Tensor:
    diffusers: dict[str, Any] = {"c_image": flows.image, "c_text": flows.text}
    second_dim = None if x.ndim == 4 else flows.config.second_dim
    blocks: Any = (flows.image if x.ndim == 4 else flows.text).data_blocks
    embedding = _apply(flows.image.time_embed, sinusoid(timesteps, flows.config.model_channels).to(x.dtype))
    saved: list[Tensor] = []
    for step in flows.plan.steps:
        if step.action == "save":
            saved.append(x)
        elif step.action == "join":
            x = torch.cat([x, saved.pop()], dim=1)
        elif step.action == "data":
            x = _data_block(flows.plan.data[step.index].kind, blocks[step.index][0], x, embedding, second_dim)
        else:
            x = sum(  # type: ignore[assignment]
                share * _context_block(diffusers[name].context_blocks[step.index][0], x, context)
                for name, (context, share) in contexts.items()
            )
    return x


def plain_guided_model(
    flows: FourFlows,
    conditional: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor],
    shares: Mapping[str, float],
    scale: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Guided prediction, plainly: maps latents (B, ...) and timesteps (B,) to it.

    Contexts are ``c_image`` and ``c_text``, (B, tokens, width) and (1, tokens, width); shares sum to 1.
    """
    contexts = {
        name: (torch.cat([unconditional[name].expand(len(conditional[name]), -1, -1), conditional[name]]), share)
        for name, share in shares.items()
    }

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        e_u, e_c = _predict(flows, torch.cat([x, x]), torch.cat([timesteps, timesteps]), contexts).chunk(2)
        return e_u + scale * (e_c - e_u)

    return model

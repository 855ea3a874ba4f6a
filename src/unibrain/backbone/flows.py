"""The four-flow network of Versatile Diffusion: image or text latents, guided by image and text contexts at once.

Data blocks are chosen by the type of the latent, context blocks by the type of the context, and the time embedding is
shared. Module names follow the published checkpoint below ``diffuser.``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unibrain.backbone.config import FlowsConfig
from unibrain.backbone.context_blocks import ContextBlock, KeyValue
from unibrain.backbone.data_blocks import make_image_block, make_text_block
from unibrain.backbone.plan import Plan, make_plan
from unibrain.backbone.time_embedding import sinusoid

__all__ = ["ContextKind", "FourFlows", "PreparedContext"]

ContextKind = Literal["image", "text"]


@dataclass(frozen=True)
class PreparedContext:
    """A context, projected once for all steps of a run.

    Attributes
    ----------
    kind : {"image", "text"}
        Which context blocks read it.
    keys_values : tuple of KeyValue
        One pair per context position.
    weight : float
        Its share in the mix; the shares of all contexts are divided by their sum.
    """

    kind: ContextKind
    keys_values: tuple[KeyValue, ...]
    weight: float = 1.0


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
    """Predict the noise (or velocity) of an image or text latent.

    Parameters
    ----------
    config : FlowsConfig

    Notes
    -----
    Versatile Diffusion (arXiv 2211.08332), section 3. With several contexts, every context position runs one block per
    context and the outputs are mixed by weight.
    """

    def __init__(self, config: FlowsConfig) -> None:
        super().__init__()
        self.config = config
        self.plan = make_plan(config)
        width = 4 * config.model_channels
        self.image = _Diffuser(
            [make_image_block(block, config.image_channels, width) for block in self.plan.data], self.plan, config
        )
        self.image.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.text = _Diffuser(
            [make_text_block(block, config.text_width, width, config.second_dim) for block in self.plan.data],
            self.plan,
            config,
        )

    def _diffuser(self, kind: ContextKind) -> _Diffuser:
        return self.image if kind == "image" else self.text

    def _context_block(self, kind: ContextKind, index: int) -> ContextBlock:
        block = self._diffuser(kind).context_blocks[index][0]  # type: ignore[index]
        assert isinstance(block, ContextBlock)
        return block

    def prepare(self, kind: ContextKind, context: Tensor, weight: float = 1.0) -> PreparedContext:
        """Project a context for every context position.

        Parameters
        ----------
        kind : {"image", "text"}
        context : Tensor of shape (B, tokens, context_width)
            B is the batch size, or 1 for a context that all share.
        weight : float
            Share in the mix, relative to the other contexts.

        Returns
        -------
        PreparedContext
        """
        positions = range(len(self.plan.context_channels))
        return PreparedContext(
            kind, tuple(self._context_block(kind, index).keys_values(context) for index in positions), weight
        )

    def embed_time(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """Time embedding of shape (B, 4 * model_channels); the sinusoid is computed in float32 and then cast."""
        return self.image.time_embed(sinusoid(timesteps, self.config.model_channels).to(dtype))  # type: ignore[no-any-return, operator]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        contexts: Sequence[PreparedContext],
        choices: Sequence[int] | None = None,
    ) -> Tensor:
        """Predict.

        Parameters
        ----------
        x : Tensor
            Image latents (B, channels, H, W) or text latents (B, text_width).
        timesteps : Tensor of shape (B,), int64
        contexts : sequence of PreparedContext
            One or more.
        choices : sequence of int, optional
            Mixing by layer: for each context position the number of the only context that is read there. By default
            all are read, and mixed by weight.

        Returns
        -------
        Tensor
            Of the shape of `x`.
        """
        data = self._diffuser("image" if x.ndim == 4 else "text").data_blocks
        embedding = self.embed_time(timesteps, x.dtype)
        total = sum(context.weight for context in contexts)
        saved: list[Tensor] = []
        h = x
        for step in self.plan.steps:
            if step.action == "save":
                saved.append(h)
            elif step.action == "join":
                h = torch.cat([h, saved.pop()], dim=1)
            elif step.action == "data":
                h = data[step.index][0](h, embedding)  # type: ignore[index]
            elif choices is not None:
                h = self._read(h, contexts[choices[step.index]], step.index)
            else:
                mixed = torch.zeros_like(h) if len(contexts) > 1 else None
                for context in contexts:
                    if mixed is None:
                        h = self._read(h, context, step.index)
                    elif context.weight:
                        mixed = mixed + (context.weight / total) * self._read(h, context, step.index)
                h = h if mixed is None else mixed
        return h

    def _read(self, h: Tensor, context: PreparedContext, index: int) -> Tensor:
        return self._context_block(context.kind, index)(h, context.keys_values[index])  # type: ignore[no-any-return]

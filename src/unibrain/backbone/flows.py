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
from unibrain.backbone.context_blocks import ContextBlock, KeyValues, repeated
from unibrain.backbone.data_blocks import make_image_block, make_text_block
from unibrain.backbone.plan import Plan, make_plan
from unibrain.backbone.products import Linear
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
    keys_values : tuple of KeyValues
        One entry per context position. An entry has one pair of keys and values, or two: then the first half of the
        batch reads the first, and the second half the second.
    weight : float
        Its share in the mix; the shares of all contexts are divided by their sum.
    """

    kind: ContextKind
    keys_values: tuple[KeyValues, ...]
    weight: float = 1.0

    def beside(self, other: "PreparedContext") -> "PreparedContext":
        """Read `other` in the first half of a batch of twice the size, and this context in the second.

        Nothing is copied: a context that all rows share keeps its one row.
        """
        pairs = zip(other.keys_values, self.keys_values, strict=True)
        return PreparedContext(self.kind, tuple((*first, *second) for first, second in pairs), self.weight)


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
    latents : sequence of {"image", "text"}
        Which latents it can denoise; the data blocks of the others are left out.

    Notes
    -----
    Versatile Diffusion (arXiv 2211.08332), section 3. With several contexts, every context position runs one block per
    context and the outputs are mixed by weight.
    """

    def __init__(self, config: FlowsConfig, latents: Sequence[ContextKind] = ("image", "text")) -> None:
        super().__init__()
        self.config = config
        self.plan = make_plan(config)
        width = 4 * config.model_channels
        image = [make_image_block(block, config.image_channels, width) for block in self.plan.data]
        self.image = _Diffuser(image if "image" in latents else [], self.plan, config)
        self.image.time_embed = nn.Sequential(Linear(config.model_channels, width), nn.SiLU(), Linear(width, width))
        text = [make_text_block(block, config.text_width, width, config.second_dim) for block in self.plan.data]
        self.text = _Diffuser(text if "text" in latents else [], self.plan, config)

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
            kind, tuple((self._context_block(kind, index).keys_values(context),) for index in positions), weight
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
        timesteps : Tensor of shape (B,) or (1,), int64
            One for all rows, or one each.
        contexts : sequence of PreparedContext
            One or more. If they are read by halves (`PreparedContext.beside`), `x` is one half: both start from the
            same rows, and what comes before the first context is computed once.
        choices : sequence of int, optional
            Mixing by layer: for each context position the number of the only context that is read there. By default
            all are read, and mixed by weight.

        Returns
        -------
        Tensor
            Of the shape of `x`; of twice its rows if the contexts are read by halves.
        """
        data = self._diffuser("image" if x.ndim == 4 else "text").data_blocks
        embedding = self.embed_time(timesteps, x.dtype)
        total = sum(context.weight for context in contexts)
        copies = len(contexts[0].keys_values[0]) if contexts[0].keys_values else 1
        saved: list[Tensor] = []
        h = x
        for step in self.plan.steps:
            if step.action == "save":
                saved.append(h)
            elif step.action == "join":
                skip = saved.pop()
                h = torch.cat([h, skip if len(skip) == len(h) else repeated(skip, len(h) // len(skip))], dim=1)
            elif step.action == "data":
                h = data[step.index][0](h, embedding)  # type: ignore[index]
            else:
                read = contexts if choices is None else [contexts[choices[step.index]]]
                h = self._mix(h, read, step.index, total, copies)
                if copies > 1:
                    embedding = embedding if len(embedding) == 1 else repeated(embedding, copies)
                    copies = 1
        return repeated(h, copies)

    def _mix(self, h: Tensor, contexts: Sequence[PreparedContext], index: int, total: float, copies: int) -> Tensor:
        if len(contexts) == 1:
            return self._read(h, contexts[0], index, copies)
        outputs = (
            (context.weight / total) * self._read(h, context, index, copies) for context in contexts if context.weight
        )
        mixed = next(outputs)
        for output in outputs:
            mixed = mixed + output
        return mixed

    def _read(self, h: Tensor, context: PreparedContext, index: int, copies: int) -> Tensor:
        return self._context_block(context.kind, index)(h, context.keys_values[index], copies)  # type: ignore[no-any-return]

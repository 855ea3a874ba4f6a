"""Taking trained flows over as a start: into wider ones, to other image latents, or to another noise schedule."""

import numpy as np
import torch
from torch import Tensor

from unibrain.backbone.config import ScheduleConfig
from unibrain.backbone.flows import FourFlows, sinusoid
from unibrain.backbone.sampling import alphas_cumprod

UNLIKE = 0.5
"""Deviation of what makes a new channel differ from the one that it copies, as a share of the weights' own."""


@torch.no_grad()
def widened(weights: dict[str, Tensor], flows: FourFlows, rows: int) -> dict[str, Tensor]:
    """Weights for `flows`, with 4/3 of the channels, that begin near what the narrower ones compute.

    Each three channels become four, so that groups and heads keep what they had. The fourth begins as a noisy copy of
    the first, which nothing reads yet. The text state keeps its width and has one row less: the last row moves into
    the new channels, where the text's own blocks find it as before and those of the contexts do not read it yet.

    Parameters
    ----------
    weights : dict of str to Tensor
        Of flows with 3/4 of the channels.
    flows : FourFlows
    rows : int
        Of the narrower text state.
    """
    generator = torch.Generator().manual_seed(0)
    features = flows.config.model_channels * flows.config.second_dim
    found = {}
    for key, target in flows.state_dict().items():
        value = weights[key]
        if key.endswith("to_q.weight"):
            value = value * (4 / 3) ** 0.5  # attention divides by the root of a head's width
        for axis, wanted in enumerate(target.shape[:2]):
            size = value.shape[axis]
            if size == wanted and size % features == 0 and key.startswith("text.data_blocks."):
                value = value.index_select(axis, _moved(size, rows))
            elif size != wanted and axis == 1 and key == "image.time_embed.0.weight":
                steps = torch.arange(1000)
                value = value @ _encoded(sinusoid(steps, wanted), sinusoid(steps, size))
            elif size != wanted:
                threes = value.unflatten(axis, (-1, 3))
                more = threes.narrow(axis + 1, 0, 1)
                if axis == 1 or ".proj_out." in key or key.endswith("to_q.weight"):
                    more = torch.zeros_like(more)
                elif value.ndim > 1:
                    more = more + UNLIKE * more.std() * torch.randn(more.shape, generator=generator)
                value = torch.cat([threes, more], axis + 1).flatten(axis, axis + 1)
        found[key] = value
    return found


def _moved(size: int, rows: int) -> Tensor:
    """Place in the narrower text state of each feature: feature c of row s was ``c * rows + s`` there."""
    old = torch.arange(size).view(-1, 3, rows)
    return torch.cat([old[:, :, :-1], old[:, None, :, -1]], 1).flatten()


def _encoded(given: Tensor, wanted: Tensor) -> Tensor:
    """Map that makes one encoding of timesteps of another, as far as one can."""
    # Small directions would need large weights, which bfloat16 does not hold well enough.
    found: Tensor = torch.linalg.lstsq(given, wanted, rcond=1e-2, driver="gelsd").solution
    return found.T


@torch.no_grad()
def rescheduled(weights: dict[str, Tensor], old: ScheduleConfig, new: ScheduleConfig) -> dict[str, Tensor]:
    """Weights that compute at each timestep about what these do where the old schedule has as much noise."""
    key, steps = "image.time_embed.0.weight", torch.arange(new.timesteps)
    then = np.interp(-alphas_cumprod(new).numpy(), -alphas_cumprod(old).numpy(), np.arange(old.timesteps))
    width = weights[key].shape[1]
    as_noisy = sinusoid(torch.from_numpy(then).float(), width)
    return weights | {key: weights[key] @ _encoded(sinusoid(steps, width), as_noisy)}


@torch.no_grad()
def adapted(weights: dict[str, Tensor], old: Tensor, new: Tensor) -> dict[str, Tensor]:
    """Weights that compute on the new image latents about what these compute on the old.

    The first and the last convolution are turned: the new latents are taken to be an affine map of the old. Noise of
    the new ones is not quite noise of the old, which training has to make up for.

    Parameters
    ----------
    weights : dict of str to Tensor
    old, new : Tensor of shape (n, channels, h, w)
        Scaled latents of the same pictures.
    """
    rows_old, rows_new = (latents.double().movedim(1, -1).flatten(0, -2) for latents in (old, new))
    back, forth = _affine(rows_new, rows_old), _affine(rows_old, rows_new)[:-1]
    last = max(int(key.split(".")[2]) for key in weights if key.startswith("image.data_blocks."))
    stem, head = "image.data_blocks.0.0", f"image.data_blocks.{last}.0.2"
    kernel = weights[f"{stem}.weight"]
    # What the mean of the old latents adds depends on the noise; half of it is never far off.
    shift = torch.einsum("oiab,i->o", kernel, back[-1]) / 2
    return weights | {
        f"{stem}.weight": torch.einsum("oiab,ji->ojab", kernel, back[:-1]),
        f"{stem}.bias": weights[f"{stem}.bias"] + shift,
        **{
            f"{head}.{key}": torch.einsum("ij,i...->j...", forth, weights[f"{head}.{key}"])
            for key in ("weight", "bias")
        },
    }


def _affine(given: Tensor, wanted: Tensor) -> Tensor:
    """Weights, and the constants in the last row, that make one from the other; empty directions of it are not read."""
    rows = torch.cat([given, torch.ones(len(given), 1, dtype=given.dtype)], 1)
    solution: Tensor = torch.linalg.lstsq(rows, wanted, rcond=1e-5, driver="gelsd").solution
    return solution.float()

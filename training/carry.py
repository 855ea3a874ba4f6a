"""Taking trained flows over into other sizes, as a start: other image latents, a wider text state."""

import torch
from torch import Tensor

from unibrain.backbone.flows import FourFlows

UNEVEN = 0.35
"""Deviation of the share that the first of two copies of a row takes; with equal ones, both would learn the same."""


@torch.no_grad()
def carried(weights: dict[str, Tensor], flows: FourFlows, old: Tensor, new: Tensor) -> dict[str, Tensor]:
    """Weights for `flows` that compute about what those of a smaller text state and other image latents compute.

    The text state's rows are doubled, and whatever reads them takes a share from either copy, so the text flow gives
    the very same. Of the image flow the first and the last convolution are turned: the new latents are taken to be an
    affine map of the old. Noise of the new ones is not quite noise of the old, which training has to make up for.

    Parameters
    ----------
    weights : dict of str to Tensor
        Of flows with half of the rows in the text state, or as many.
    flows : FourFlows
    old, new : Tensor of shape (n, channels, h, w)
        Scaled latents of the same pictures.
    """
    rows_old, rows_new = (latents.double().movedim(1, -1).flatten(0, -2) for latents in (old, new))
    back, forth = _affine(rows_new, rows_old), _affine(rows_old, rows_new)[:-1]
    stem, head = (f"image.data_blocks.{index}.0" for index in (0, len(flows.plan.data) - 1))
    kernel = weights[f"{stem}.weight"]
    # What the mean of the old latents adds depends on the noise; half of it is never far off.
    shift = torch.einsum("oiab,i->o", kernel, back[-1]) / 2
    turned = weights | {
        f"{stem}.weight": torch.einsum("oiab,ji->ojab", kernel, back[:-1]),
        f"{stem}.bias": weights[f"{stem}.bias"] + shift,
        **{
            f"{head}.2.{key}": torch.einsum("ij,i...->j...", forth, weights[f"{head}.2.{key}"])
            for key in ("weight", "bias")
        },
    }
    generator = torch.Generator().manual_seed(0)
    found = {}
    for key, target in flows.state_dict().items():
        value = turned[key]
        rows = flows.config.second_dim // 2  # feature c of row s is channel c * rows + s
        if value.ndim > 1 and value.shape[1] * 2 == target.shape[1]:
            split = value.unflatten(1, (-1, rows))
            share = 0.5 + UNEVEN * torch.randn(split.shape, generator=generator)
            value = torch.cat([split * share, split * (1 - share)], 2).flatten(1, 2)
        if value.shape[0] * 2 == target.shape[0]:
            split = value.unflatten(0, (-1, rows))
            value = torch.cat([split, split], 1).flatten(0, 1)
        found[key] = value
    return found


def _affine(given: Tensor, wanted: Tensor) -> Tensor:
    """Weights, and the constants in the last row, that make one from the other; empty directions of it are not read."""
    rows = torch.cat([given, torch.ones(len(given), 1, dtype=given.dtype)], 1)
    solution: Tensor = torch.linalg.lstsq(rows, wanted, rcond=1e-5, driver="gelsd").solution
    return solution.float()

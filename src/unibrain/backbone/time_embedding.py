"""How a timestep enters the network."""

import math

import torch
from torch import Tensor

__all__ = ["sinusoid"]


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Encode timesteps as cosines (first half) and sines (second half) of geometric frequencies.

    Parameters
    ----------
    timesteps : Tensor of shape (B,)
    width : int
        Even.

    Returns
    -------
    Tensor of shape (B, width), float32
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps.float()[:, None] * frequencies.to(timesteps.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)

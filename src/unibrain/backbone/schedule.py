"""Noise levels: the training schedule and the steps that DDIM takes on it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.config import ScheduleConfig
from unibrain.errors import InputError

__all__ = ["DDIMSteps", "alphas_cumprod", "ddim_steps", "make_betas"]


def make_betas(config: ScheduleConfig) -> NDArray[np.float64]:
    """Betas that are linear in their square root; float64 of shape (timesteps,)."""
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps, dtype=np.float64) ** 2


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """Cumulative product of 1 - beta, computed in float64; float32 tensor of shape (timesteps,)."""
    return torch.from_numpy(np.cumprod(1.0 - make_betas(config))).float()


@dataclass(frozen=True)
class DDIMSteps:
    """The levels of one DDIM run, least noisy first.

    Attributes
    ----------
    timesteps : Tensor of shape (n,), int64
    alphas, alphas_prev : Tensor of shape (n,), float64
        Cumulative alphas at a step, and at the level it leads to.
    sigmas : Tensor of shape (n,), float64
        Deviation of the noise that is added; zeros if eta is 0.
    """

    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor


def ddim_steps(config: ScheduleConfig, steps: int, eta: float = 0.0) -> DDIMSteps:
    """Choose evenly spaced timesteps, one above the multiples of the stride.

    Parameters
    ----------
    config : ScheduleConfig
    steps : int
        Wanted number of steps. The stride is ``timesteps // steps``, so there are more steps where it does not divide.
    eta : float
        0 for deterministic steps.

    Returns
    -------
    DDIMSteps

    Raises
    ------
    InputError
        If there are more steps than timesteps, or the last timestep would lie outside of the schedule.

    Notes
    -----
    Arranged as in the public code of Versatile Diffusion: the level that the first entry leads to is the schedule's own
    first, not 1.
    """
    if not 1 <= steps <= config.timesteps:
        raise InputError(f"{steps} steps were asked for, expected 1 to {config.timesteps}: take 50 for example")
    chosen = np.arange(0, config.timesteps, config.timesteps // steps) + 1
    if chosen[-1] >= config.timesteps:
        raise InputError(
            f"{steps} steps end at timestep {chosen[-1]} of {config.timesteps}: take fewer steps, 50 for example"
        )
    levels = alphas_cumprod(config).double()
    timesteps = torch.from_numpy(chosen)
    alphas = levels[timesteps]
    alphas_prev = torch.cat([levels[:1], alphas[:-1]])
    sigmas = eta * torch.sqrt((1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev))
    return DDIMSteps(timesteps, alphas, alphas_prev, sigmas)

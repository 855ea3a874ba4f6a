"""DDIM over a plain ``model(x, timesteps)`` callable (Song et al., arXiv 2010.02502)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from unibrain.backbone.config import SamplingSettings
from unibrain.backbone.schedule import DDIMSteps

__all__ = ["SamplingSettings", "add_noise", "sample_ddim", "start_index"]


def start_index(settings: SamplingSettings) -> int:
    """Number of steps that a run from a given latent takes, and the DDIM index whose noise level it starts from.

    Both public implementations of Versatile Diffusion start one level noisier than the first timestep that they
    evaluate; so does this one.

    Examples
    --------
    >>> start_index(SamplingSettings(image_weight=0.6, strength=0.75, steps=50))
    37
    """
    return int(settings.strength * settings.steps)


def add_noise(x0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Bring clean latents to the level `alpha` (cumulative, a scalar tensor)."""
    level = alpha.to(x0.dtype).to(x0.device)
    return level.sqrt() * x0 + (1 - level).sqrt() * noise


def sample_ddim(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    steps: DDIMSteps,
    first: int,
    prediction: Literal["epsilon", "v_prediction"] = "epsilon",
    make_noise: Callable[[int], Tensor] | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Denoise.

    Parameters
    ----------
    model : callable
        Maps latents (B, ...) and int64 timesteps (B,) to the predicted noise or velocity (B, ...).
    x : Tensor of shape (B, ...)
        Noisy latents.
    steps : DDIMSteps
    first : int
        Take the steps ``first - 1, ..., 0``: the length of `steps` for a full run, `start_index` for a partial one.
    prediction : {"epsilon", "v_prediction"}
        What the model predicts.
    make_noise : callable, optional
        Gives the noise of step i, of the shape of `x`; needed only where sigmas are above zero.
    callback : callable, optional
        Called after each step with its index, the new x, and the predicted x0.

    Returns
    -------
    Tensor of shape (B, ...)
        Latents after the last step.
    """
    for index in range(first - 1, -1, -1):
        alpha, alpha_prev, sigma = (
            level[index].to(device=x.device, dtype=x.dtype) for level in (steps.alphas, steps.alphas_prev, steps.sigmas)
        )
        timesteps = torch.full((1,), int(steps.timesteps[index]), dtype=torch.int64, device=x.device).expand(len(x))
        output = model(x, timesteps)
        if prediction == "v_prediction":
            output = alpha.sqrt() * output + (1 - alpha).sqrt() * x
        x0 = (x - (1 - alpha).sqrt() * output) / alpha.sqrt()
        x = alpha_prev.sqrt() * x0 + (1 - alpha_prev - sigma**2).sqrt() * output
        if make_noise is not None and float(sigma) > 0:
            x = x + sigma * make_noise(index)
        if callback is not None:
            callback(index, x, x0)
    return x

"""One flow over one batch of scans: noise from every scan's own seed, guided denoising."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.guidance import guided_model
from unibrain.backbone.sampler import add_noise, sample_ddim, start_index
from unibrain.backbone.schedule import ddim_steps
from unibrain.errors import InputError

__all__ = ["check_rows", "denoise", "noise_of"]

Array = NDArray[np.float32]


def check_rows(
    config: BackboneConfig,
    z: Array | None,
    shape: tuple[int, ...],
    c_image: Array,
    c_text: Array,
    seeds: NDArray[np.int64],
) -> None:
    """Check what is to be sampled from.

    Raises
    ------
    InputError
        If latents or contexts have another shape than the backbone's, or there are not as many of each.
    """
    if z is not None and z.shape[1:] != shape:
        raise InputError(
            f"latents have shape {z.shape}, expected (n, {', '.join(map(str, shape))}): they are not of backbone "
            f"{config.name}"
        )
    width = config.flows.context_width
    if c_image.shape[2:] != (width,) or c_text.shape[2:] != (width,):
        raise InputError(
            f"contexts have shapes {c_image.shape} and {c_text.shape}, expected (n, tokens, {width}): they are not "
            f"of backbone {config.name}"
        )
    counts = {len(rows) for rows in (z, c_image, c_text, seeds) if rows is not None}
    if len(counts) > 1:
        raise InputError(
            f"latents, contexts and seeds are of {sorted(counts)} scans, expected as many of each: give one row "
            "per scan"
        )


def noise_of(seeds: NDArray[np.int64], shape: tuple[int, ...], device: torch.device) -> Callable[[int], Tensor]:
    """Make a source of noise: each call continues one stream per scan, drawn on the processor in float32."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def draw(_: int = 0) -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

    return draw


def denoise(
    flows: FourFlows,
    config: BackboneConfig,
    z: Array | None,
    shape: tuple[int, ...],
    contexts: Mapping[str, Array],
    empty: Mapping[str, PreparedContext],
    settings: SamplingSettings,
    seeds: NDArray[np.int64],
    device: torch.device,
    dtype: torch.dtype,
) -> Array:
    """Denoise the latents of one batch.

    Latents are kept and updated in float32; the network's states have `dtype`.

    Parameters
    ----------
    flows : FourFlows
    config : BackboneConfig
    z : ndarray of shape (n, *shape), float32, or None
        Where to start; None starts from pure noise.
    shape : tuple of int
        Of one latent.
    contexts : mapping of str to ndarray
        ``"image"`` and ``"text"``, (n, tokens, width), float32.
    empty : mapping of str to PreparedContext
        The unconditional contexts that have a share.
    settings : SamplingSettings
    seeds : ndarray of shape (n,), int64
    device : torch.device
    dtype : torch.dtype

    Returns
    -------
    ndarray of shape (n, *shape), float32
    """
    steps = ddim_steps(config.schedule, settings.steps, settings.eta)
    draw = noise_of(seeds, shape, device)
    rows = {
        kind: torch.from_numpy(np.array(context, dtype=np.float32)).to(device, dtype)
        for kind, context in contexts.items()
    }
    model = guided_model(flows, rows, empty, settings.image_weight, settings.guidance_scale)
    if z is None:
        start, count = draw(0), len(steps.timesteps)
    else:
        count = start_index(settings)
        clean = torch.from_numpy(np.array(z, dtype=np.float32)).to(device)
        start = add_noise(clean, draw(0), steps.alphas[count])
    x = sample_ddim(model, start, steps, count, config.schedule.prediction, draw)
    return x.float().cpu().numpy()

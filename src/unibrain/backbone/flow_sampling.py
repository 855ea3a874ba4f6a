"""One flow over one batch of scans: noise from every scan's own seed, guided denoising."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.config import BackboneConfig, SamplingSettings
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.guidance import CONTEXT_KINDS, guided_model
from unibrain.backbone.protocol import Callback, SamplingError
from unibrain.backbone.sampler import add_noise, sample_ddim, start_index
from unibrain.backbone.schedule import ddim_steps
from unibrain.errors import InputError

Array = NDArray[np.float32]


def check_rows(
    config: BackboneConfig,
    start: Array | None,
    shape: tuple[int, ...],
    contexts: Mapping[str, Array],
    seeds: NDArray[np.int64],
) -> None:
    """Refuse latents and contexts of another shape than the backbone's, or not as many of each."""
    if start is not None and start.shape[1:] != shape:
        raise InputError(
            f"latents have shape {start.shape}, not (n, {', '.join(map(str, shape))}): they are not of backbone "
            f"{config.name}."
        )
    width = config.flows.context_width
    for name, context in contexts.items():
        if name not in CONTEXT_KINDS:
            raise InputError(
                f"backbone {config.name} has no context {name!r}. Give some of {', '.join(CONTEXT_KINDS)}."
            )
        if context.ndim != 3 or context.shape[2] != width:
            raise InputError(
                f"{name} has shape {context.shape}, not (n, tokens, {width}): it is not of backbone {config.name}."
            )
    counts = {len(rows) for rows in (start, seeds, *contexts.values()) if rows is not None}
    if len(counts) > 1:
        raise InputError(f"latents, contexts and seeds are of {sorted(counts)} scans. Give one row per scan.")


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
    callback: Callback | None = None,
) -> Array:
    """Denoise the latents of one batch; they are kept and updated in float32, the network's states have `dtype`."""
    steps = ddim_steps(config.schedule, settings.steps, settings.eta)
    draw = noise_of(seeds, shape, device)
    rows = {
        name: torch.from_numpy(np.array(context, dtype=np.float32)).to(device, dtype)
        for name, context in contexts.items()
    }
    model = guided_model(flows, rows, empty, settings.image_weight, settings.guidance_scale)
    if z is None:
        start, count = draw(0), len(steps.timesteps)
    else:
        count = start_index(settings)
        clean = torch.from_numpy(np.array(z, dtype=np.float32)).to(device)
        start = add_noise(clean, draw(0), steps.alphas[count])

    def watch(index: int, x: Tensor, x0: Tensor) -> None:
        finite = torch.isfinite(x).flatten(1).all(dim=1)
        if not bool(finite.all()):
            raise SamplingError("a latent is not finite", int(finite.int().argmin()))
        if callback is not None:
            callback(count - index, count, x0.float().cpu().numpy())

    x = sample_ddim(model, start, steps, count, config.schedule.prediction, draw, watch)
    return x.float().cpu().numpy()

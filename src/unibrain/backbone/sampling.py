"""Guided DDIM and DPM-Solver++: the noise schedule and its steps, guidance, and one flow over one batch of scans."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain.backbone.config import SamplingSettings, ScheduleConfig
from unibrain.backbone.flows import FourFlows, PreparedContext
from unibrain.backbone.protocol import Array, Callback, SamplingError
from unibrain.errors import InputError

CONTEXTS = ("c_image", "c_text")

LARGEST = 1e4
"""A latent has a deviation of about 1 and starts with noise of 1; one that passes this will never be a picture."""


def make_betas(config: ScheduleConfig) -> NDArray[np.float64]:
    """Betas that are linear in their square root; float64 of shape (timesteps,)."""
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps, dtype=np.float64) ** 2


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """Cumulative product of 1 - beta, computed in float64; float32 tensor of shape (timesteps,)."""
    return torch.from_numpy(np.cumprod(1.0 - make_betas(config))).float()


@dataclass(frozen=True)
class DDIMSteps:
    """The levels of one DDIM run, least noisy first.

    `timesteps` are int64; `alphas` are the cumulative alphas at each step and `alphas_prev` at the level that it leads
    to, float64; `sigmas` are the deviation of the noise that is added, zeros if eta is 0.
    """

    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor


def ddim_steps(config: ScheduleConfig, steps: int, eta: float = 0.0) -> DDIMSteps:
    """Choose evenly spaced timesteps, one above the multiples of ``timesteps // steps``, as the public code does.

    There are more steps than asked for where that does not divide. The level that the first entry leads to is the
    schedule's own first, not 1.
    """
    stride = config.timesteps // steps if steps > 0 else 0
    chosen = np.arange(1, config.timesteps + 1, stride or config.timesteps)
    if not stride or chosen[-1] >= config.timesteps:
        raise InputError(f"{steps} steps do not fit {config.timesteps} timesteps. Take other steps, 50 for example.")
    levels = alphas_cumprod(config).double()
    timesteps = torch.from_numpy(chosen)
    alphas = levels[timesteps]
    alphas_prev = torch.cat([levels[:1], alphas[:-1]])
    sigmas = eta * torch.sqrt((1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev))
    return DDIMSteps(timesteps, alphas, alphas_prev, sigmas)


def even_steps(config: ScheduleConfig, count: int, first: int) -> DDIMSteps:
    """At most `count` steps down from the timestep `first`, evenly spaced in the log of the signal-to-noise ratio."""
    levels = alphas_cumprod(config).double()
    ratio = torch.logit(levels)
    wanted = torch.linspace(float(ratio[first]), float(ratio[0]), count + 1, dtype=torch.float64)
    chosen = torch.unique((ratio[None] - wanted[:, None]).abs().argmin(dim=1))
    return DDIMSteps(chosen[1:], levels[chosen[1:]], levels[chosen[:-1]], torch.zeros(len(chosen) - 1))


def start_index(settings: SamplingSettings) -> int:
    """Steps that a run from a given latent takes, and the DDIM index whose noise level it starts from.

    Both public implementations of Versatile Diffusion start one level noisier than the first timestep that they
    evaluate; so does this one.

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
    """Denoise x (B, ...) through the steps ``first - 1, ..., 0`` (Song et al., arXiv 2010.02502).

    `model` maps latents and int64 timesteps (B,) to the predicted noise or velocity; `make_noise` gives the noise of a
    step, where sigmas are above zero; `callback` is called after each step with its index, the new x, and the predicted
    x0.
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


def sample_dpm(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    steps: DDIMSteps,
    first: int,
    prediction: Literal["epsilon", "v_prediction"] = "epsilon",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Denoise as `sample_ddim` does without noise, by DPM-Solver++ (2M; Lu et al. 2022, arXiv 2211.01095).

    Each step extrapolates from the predicted x0 of the step before, over half the log of the signal-to-noise ratio; the
    first step and the last are of first order, which is DDIM.
    """
    before: tuple[Tensor, Tensor] | None = None
    for index in range(first - 1, -1, -1):
        alpha, alpha_prev = (level[index].to(x.device, x.dtype) for level in (steps.alphas, steps.alphas_prev))
        timesteps = torch.full((1,), int(steps.timesteps[index]), dtype=torch.int64, device=x.device).expand(len(x))
        output = model(x, timesteps)
        if prediction == "v_prediction":
            output = alpha.sqrt() * output + (1 - alpha).sqrt() * x
        x0 = (x - (1 - alpha).sqrt() * output) / alpha.sqrt()
        size = 0.5 * (torch.logit(alpha_prev) - torch.logit(alpha))
        ahead = x0
        if before is not None and index > 0:
            ahead = x0 + 0.5 * size / before[1] * (x0 - before[0])
        x = ((1 - alpha_prev) / (1 - alpha)).sqrt() * x - alpha_prev.sqrt() * torch.expm1(-size) * ahead
        before = x0, size
        if callback is not None:
            callback(index, x, x0)
    return x


def context_shares(image_weight: float, present: Collection[str] = CONTEXTS) -> dict[str, float]:
    """Share of each context that is read; an absent one gives its share to the other, all absent count as present."""
    shares = {"c_image": image_weight, "c_text": 1 - image_weight}
    given = [name for name in CONTEXTS if name in present] or CONTEXTS
    return {given[0]: 1.0} if len(given) == 1 else {name: shares[name] for name in given if shares[name]}


def guided_model(
    flows: FourFlows,
    conditional: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor | PreparedContext],
    image_weight: float,
    guidance_scale: float,
    start: Tensor | None = None,
    timesteps: Tensor | None = None,
    guided_from: float = 0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap the network for the sampler; contexts (B or 1, tokens, width) are projected here, once, for all steps.

    So are `timesteps` (T,) for latents like `start`; the model is then called with one of them for all rows.

    The prediction is ``e_u + scale * (e_c - e_u)``, and the mixing happens inside the network, so guidance acts on the
    mixed prediction. At a scale of exactly 1, and at timesteps below `guided_from`, the unconditional half is left out;
    without any conditional context, the conditional one. The network's states have the dtype of the contexts; the
    prediction has that of the latents.
    """
    guided = guidance_scale != 1 and bool(conditional)

    def prepare(source: Mapping[str, Tensor | PreparedContext], name: str) -> PreparedContext:
        rows = source[name]
        return rows if isinstance(rows, PreparedContext) else flows.prepare(name, rows)

    contexts, both = [], []
    for name, share in context_shares(image_weight, conditional).items():
        contexts.append(replace(prepare(conditional or unconditional, name), share=share))
        if guided:
            both.append(contexts[-1].beside(prepare(unconditional, name)))
    dtype = contexts[0].keys_values[0][0][0].dtype
    times = None if start is None or timesteps is None else flows.prepare_times(start.to(dtype), timesteps)

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        # One timestep for all rows (an expanded tensor, as the sampler gives it) is embedded once.
        steps = timesteps[:1] if timesteps.stride(0) == 0 else timesteps
        halves = guided and (guided_from <= 0 or int(steps.max()) >= guided_from)
        time = times[int(steps)] if times else steps
        output = flows(x.to(dtype), time, both if halves else contexts).to(x.dtype)
        if not halves:
            return output  # type: ignore[no-any-return]
        e_u, e_c = output.chunk(2)
        return e_u + guidance_scale * (e_c - e_u)  # type: ignore[no-any-return]

    return model


def noise_of(seeds: NDArray[np.int64], shape: tuple[int, ...], device: torch.device) -> Callable[[int], Tensor]:
    """Make a source of noise: each call continues one stream per scan, drawn on the processor in float32."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def draw(_: int = 0) -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

    return draw


def denoise(
    make_model: Callable[[Tensor, Tensor], Callable[[Tensor, Tensor], Tensor]],
    schedule: ScheduleConfig,
    settings: SamplingSettings,
    start: Array | None,
    shape: tuple[int, ...],
    seeds: NDArray[np.int64],
    device: torch.device,
    callback: Callback | None = None,
) -> Array:
    """Denoise the latents of one batch, from `start` (n, *shape) or from noise; latents are kept in float32.

    `make_model` maps where they start and all timesteps (T,) of the run to the sampler's model; see `guided_model`.
    A latent that leaves the range of numbers raises `SamplingError` with its row.
    """
    steps = ddim_steps(schedule, settings.steps, settings.eta)
    draw = noise_of(seeds, shape, device)
    if start is None:
        x, count = draw(0), len(steps.timesteps)
    else:
        count = start_index(settings)
        x = add_noise(torch.from_numpy(np.array(start, dtype=np.float32)).to(device), draw(0), steps.alphas[count])
    if settings.sampler == "dpm++":
        first = steps.timesteps[min(count, len(steps.timesteps) - 1)]
        steps = even_steps(schedule, count, int(first))
        count = len(steps.timesteps)
    model = make_model(x, steps.timesteps[:count].to(device))

    def watch(index: int, x: Tensor, x0: Tensor) -> None:
        # Written so that NaN fails as well.
        sound = (x.abs() < LARGEST).flatten(1).all(dim=1)
        if not bool(sound.all()):
            raise SamplingError("a latent left the range of numbers", int(sound.int().argmin()))
        if callback is not None:
            callback(count - index, count, x0.float().cpu().numpy())

    if settings.sampler == "dpm++":
        return sample_dpm(model, x, steps, count, schedule.prediction, watch).float().cpu().numpy()
    return sample_ddim(model, x, steps, count, schedule.prediction, draw, watch).float().cpu().numpy()

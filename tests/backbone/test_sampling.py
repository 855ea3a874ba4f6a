"""DDIM against the scheduler of diffusers, and guidance: what is computed, what is left out, the formula."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from unibrain.backbone.config import FlowsConfig, SamplingSettings, ScheduleConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.sampling import (
    alphas_cumprod,
    ddim_steps,
    even_steps,
    guided_model,
    sample_ddim,
    sample_dpm,
    start_index,
)
from unibrain.errors import InputError

PREDICTIONS = ("epsilon", "v_prediction")


class LinearModel:
    def __init__(self, width: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self.matrix = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
        self.offset = torch.randn(width, generator=generator, dtype=torch.float64)
        self.timesteps: list[int] = []

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        assert timesteps.shape == (len(x),)
        assert timesteps.dtype == torch.int64
        self.timesteps.append(int(timesteps[0]))
        return x @ self.matrix + self.offset * (timesteps[:, None] / 1000)


def scheduler(prediction: str, steps: int) -> DDIMScheduler:
    made = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction,
    )
    made.set_timesteps(steps)
    return made


def noises(steps: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("steps", "eta"), [(50, 0.0), (20, 0.0), (20, 1.0), (10, 0.4)])
@pytest.mark.parametrize("strength", [None, 0.75])
def test_trajectory_is_that_of_diffusers(prediction: str, steps: int, eta: float, strength: float | None) -> None:
    count = steps if strength is None else start_index(SamplingSettings(0.5, strength=strength, steps=steps))
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = noises(steps, (3, 6))

    reference, model = scheduler(prediction, steps), LinearModel(6)
    expected, sample = [], x
    for index, timestep in zip(range(count - 1, -1, -1), reference.timesteps[steps - count :], strict=True):
        output = model(sample, torch.full((3,), int(timestep)))
        result = reference.step(output, timestep, sample, eta=eta, variance_noise=noise[index] if eta else None)
        sample = result.prev_sample
        expected.append((index, sample, result.pred_original_sample))

    config = ScheduleConfig(prediction=prediction)
    ours, found, drawn = LinearModel(6), [], []

    def draw(index: int) -> Tensor:
        drawn.append(index)
        return noise[index]

    last = sample_ddim(
        ours, x, ddim_steps(config, steps, eta), count, prediction, draw, lambda *state: found.append(state)
    )
    assert ours.timesteps == model.timesteps
    assert drawn == (list(range(count - 1, -1, -1)) if eta else [])
    for (index, x_found, x0_found), (index_expected, x_expected, x0_expected) in zip(found, expected, strict=True):
        assert index == index_expected
        # The scheduler of diffusers keeps its levels in float32.
        torch.testing.assert_close(x_found, x_expected, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(x0_found, x0_expected, atol=2e-5, rtol=2e-4)
    assert torch.equal(last, found[-1][1])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [5, 20])
def test_dpm_is_that_of_diffusers(prediction: str, steps: int) -> None:
    reference, model = (
        DPMSolverMultistepScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
            euler_at_final=True,
            final_sigmas_type="sigma_min",
        ),
        LinearModel(6),
    )
    config = ScheduleConfig(prediction=prediction)
    own = even_steps(config, steps, 981)
    assert len(own.timesteps) == steps
    reference.set_timesteps(timesteps=own.timesteps.flip(0).tolist())
    x = sample = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for timestep in reference.timesteps:
        sample = reference.step(model(sample, torch.full((3,), int(timestep))), timestep, sample).prev_sample
    ours = LinearModel(6)
    found = sample_dpm(ours, x, own, steps, prediction)
    assert ours.timesteps == model.timesteps
    torch.testing.assert_close(found, sample, atol=1e-4, rtol=1e-4)


def test_dpm_needs_fewer_steps_than_ddim() -> None:
    """On normal data of deviation 0.5 the exact path is known: the state keeps its place between its quantiles."""
    config, x = ScheduleConfig(), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def noise(x: Tensor, timesteps: Tensor) -> Tensor:
        alpha = alphas_cumprod(config)[int(timesteps[0])].double()
        return (1 - alpha).sqrt() * x / (0.25 * alpha + 1 - alpha)

    def error(sample: Any, steps: Any) -> float:
        first, last = (0.25 * level + 1 - level for level in (steps.alphas[-1], steps.alphas_prev[0]))
        return float((sample(noise, x, steps, len(steps.timesteps)) - x * (last / first).sqrt()).abs().max())

    assert error(sample_dpm, even_steps(config, 10, 901)) < 0.25 * error(sample_ddim, ddim_steps(config, 10))
    assert error(sample_dpm, even_steps(config, 10, 901)) < error(sample_ddim, ddim_steps(config, 50))


def test_steps_on_the_schedule() -> None:
    for strength, count, expected in ((0.75, 50, 37), (0.999, 50, 49), (0.1, 10, 1), (0.75, 7, 5)):
        assert start_index(SamplingSettings(0.5, strength=strength, steps=count)) == expected
    steps = ddim_steps(ScheduleConfig(), 30)
    assert steps.timesteps.tolist() == list(range(1, 1000, 33)), "31 where 30 does not divide the schedule"
    assert len(steps.alphas) == len(steps.alphas_prev) == len(steps.sigmas) == 31
    assert torch.equal(steps.alphas_prev[1:], steps.alphas[:-1])
    for eta in (0.0, 0.5, 1.0):
        steps = ddim_steps(ScheduleConfig(), 50, eta)
        assert (steps.sigmas**2 <= 1 - steps.alphas_prev).all(), "more noise than is left"
        assert bool((steps.sigmas > 0).all()) == (eta > 0)
    for timesteps, count in ((1000, 999), (1000, 501), (100, 200), (1000, 0)):
        with pytest.raises(InputError, match=f"{count} steps"):
            ddim_steps(ScheduleConfig(timesteps), count)


# Norms of one channel per group would forget the time: 64 channels, two in each of the 32 groups.
CONFIG = FlowsConfig(3, 10, 64, (1,), (1,), (True,), heads=2, context_width=8, second_dim=2)
SHARES = {"c_image": 0.2, "c_text": 0.8}
LATENTS = {"image": (2, 3, 4, 4), "text": (2, 10)}


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


class Counting(FourFlows):
    """Flows that write down how they are called."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.batches: list[int] = []
        self.read: list[str] = []
        for name in ("c_image", "c_text"):
            for index in range(len(self.plan.context_channels)):
                self.context_block(name, index).register_forward_hook(lambda *_, name=name: self.read.append(name))

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        self.batches.append(len(x))
        return super().forward(x, *arguments, **options)


@pytest.fixture
def flows() -> Counting:
    torch.manual_seed(2)
    # In double precision, so that only a wrong formula makes a difference.
    return Counting().double().eval().requires_grad_(False)


@pytest.fixture
def contexts(flows: Counting) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    conditional = {"c_image": random(2, 4, 8), "c_text": random(2, 6, 8)}
    unconditional = {"c_image": random(1, 4, 8), "c_text": random(1, 6, 8)}
    return conditional, unconditional


def mixed(flows: FourFlows, x: Tensor, timesteps: Tensor, contexts: dict[str, Tensor], weight: float) -> Tensor:
    """One prediction under both contexts, repeated for the batch by hand."""
    shares = {"c_image": weight, "c_text": 1 - weight}
    return flows(
        x,
        timesteps,
        [flows.prepare(name, contexts[name].expand(len(x), -1, -1), share) for name, share in shares.items()],
    )


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_guidance(flows: Counting, contexts: Any, latent: str, weight: float, scale: float) -> None:
    conditional, unconditional = contexts
    x, timesteps = random(*LATENTS[latent]), torch.tensor([7, 700])
    widths: list[int] = []
    for holder in getattr(flows, latent).data_blocks:
        holder[0].register_forward_hook(lambda _, __, output: widths.append(len(output)))
    found = guided_model(flows, conditional, unconditional, weight, scale)(x, timesteps)
    assert flows.batches == [2], "both halves are one call"
    # It doubles at the first context, after two data blocks; at scale 1 the unconditional half is left out.
    assert widths == [2] * 2 + [2 if scale == 1 else 4] * (len(flows.plan.data) - 2)
    # A context without a share is not read.
    read = [name for name, share in (("c_image", weight), ("c_text", 1 - weight)) if share]
    assert sorted(flows.read) == sorted(read * len(flows.plan.context_channels))
    e_c = mixed(flows, x, timesteps, conditional, weight)
    e_u = mixed(flows, x, timesteps, unconditional, weight)
    assert (e_c - e_u).abs().max() > 1e-3
    torch.testing.assert_close(found, (1 - scale) * e_u + scale * e_c, atol=1e-10, rtol=0)


@pytest.mark.parametrize("latent", LATENTS)
def test_prepared_unconditional_contexts_and_one_timestep_for_all_rows(
    flows: Counting, contexts: Any, latent: str
) -> None:
    conditional, unconditional = contexts
    prepared = {kind: flows.prepare(kind, rows) for kind, rows in unconditional.items()}
    x = random(*LATENTS[latent])
    expected = guided_model(flows, conditional, unconditional, 0.6, 3.0)(x, torch.tensor([7, 7]))
    found = guided_model(flows, conditional, prepared, 0.6, 3.0)(x, torch.tensor([7]).expand(2))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    both = flows.prepare("c_image", conditional["c_image"]).beside(prepared["c_image"])
    rows = {len(keys) for pairs in both.keys_values for keys, _ in pairs}
    assert rows == {1, 2}, "the shared row was copied for every scan"


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_times_projected_for_all_steps_at_once(
    flows: Counting, contexts: Any, latent: str, dtype: torch.dtype, tolerance: float
) -> None:
    flows.to(dtype)
    conditional, unconditional = ({name: rows.to(dtype) for name, rows in some.items()} for some in contexts)
    x = random(*LATENTS[latent]).to(dtype)
    embedded: list[int] = []
    flows.image.time_embed.register_forward_hook(lambda _, __, rows: embedded.append(len(rows)))  # type: ignore[union-attr]
    prepared = guided_model(flows, conditional, unconditional, 0.6, 3.0, x, torch.tensor([1, 7, 700]))
    plain = guided_model(flows, conditional, unconditional, 0.6, 3.0)
    late, early = torch.tensor([[700], [7]]).expand(2, 2)
    found = prepared(x, late), prepared(x, early)
    assert embedded == [3], "the steps embed nothing"
    for one, timesteps in zip(found, (late, early), strict=True):
        torch.testing.assert_close(one, plain(x, timesteps), atol=tolerance, rtol=0)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("latent", LATENTS)
def test_guidance_ends(flows: Counting, contexts: Any, latent: str) -> None:
    x = random(*LATENTS[latent])
    ending = guided_model(flows, *contexts, 0.6, 3.0, guided_from=450)
    for timestep, scale in ((449, 1.0), (450, 3.0)):
        timesteps = torch.tensor([timestep]).expand(2)
        expected = guided_model(flows, *contexts, 0.6, scale)(x, timesteps)
        torch.testing.assert_close(ending(x, timesteps), expected, atol=0, rtol=0)


def test_shares_are_relative(flows: Counting, contexts: Any) -> None:
    conditional, _ = contexts
    x, timesteps = random(*LATENTS["image"]), torch.tensor([7, 700])
    once, tenfold = (
        flows(x, timesteps, [flows.prepare(name, conditional[name], share * by) for name, share in SHARES.items()])
        for by in (1, 10)
    )
    torch.testing.assert_close(once, tenfold, atol=1e-12, rtol=0)

"""DDIM against the scheduler of diffusers, on a model whose answer depends linearly on its input."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from unibrain.backbone.config import SamplingSettings, ScheduleConfig
from unibrain.backbone.sampler import add_noise, sample_ddim, start_index
from unibrain.backbone.schedule import ddim_steps
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


def test_noise_is_added_as_in_diffusers() -> None:
    steps = ddim_steps(ScheduleConfig(), 50)
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    for index in (0, 17, 49):
        timestep = steps.timesteps[index]
        expected = scheduler("epsilon", 50).add_noise(x0, noise, timestep.repeat(2))
        torch.testing.assert_close(add_noise(x0, noise, steps.alphas[index]), expected, atol=2e-6, rtol=0)


def test_a_partial_run_starts_one_level_above_its_first_step() -> None:
    settings = SamplingSettings(image_weight=0.6, strength=0.75, steps=50)
    steps, model = ddim_steps(ScheduleConfig(), settings.steps), LinearModel(2)
    count = start_index(settings)
    sample_ddim(model, torch.zeros(1, 2, dtype=torch.float64), steps, count)
    assert (count, int(steps.timesteps[count])) == (37, 741)
    assert model.timesteps == list(range(721, 0, -20))


@pytest.mark.parametrize(
    ("strength", "steps", "expected"), [(0.75, 50, 37), (0.5, 50, 25), (0.999, 50, 49), (0.1, 10, 1), (0.75, 7, 5)]
)
def test_start_index(strength: float, steps: int, expected: int) -> None:
    assert start_index(SamplingSettings(0.5, strength=strength, steps=steps)) == expected


def test_steps_that_do_not_divide_the_schedule() -> None:
    steps = ddim_steps(ScheduleConfig(), 30)
    assert steps.timesteps.tolist() == list(range(1, 1000, 33))
    assert len(steps.alphas) == len(steps.alphas_prev) == len(steps.sigmas) == 31
    assert torch.equal(steps.alphas_prev[1:], steps.alphas[:-1])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_noise_never_exceeds_what_is_left(eta: float) -> None:
    steps = ddim_steps(ScheduleConfig(), 50, eta)
    assert (steps.sigmas**2 <= 1 - steps.alphas_prev).all()
    assert bool((steps.sigmas > 0).all()) == (eta > 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strength": 0.0}, "strength is 0.0"),
        ({"strength": 1.0}, "leave the latent out"),
        ({"strength": -0.5}, "strength is -0.5"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1000}, "steps is 1000"),
        ({"steps": 3, "strength": 0.3}, "less than one step"),
        ({"image_weight": -0.1}, "image_weight is -0.1"),
        ({"image_weight": 1.01}, "image_weight is 1.01"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SamplingSettings(**{"image_weight": 0.5, **wrong})


@pytest.mark.parametrize(("timesteps", "steps"), [(1000, 999), (1000, 501), (100, 200), (1000, 0)])
def test_numbers_of_steps_beyond_the_schedule_are_refused(timesteps: int, steps: int) -> None:
    with pytest.raises(InputError, match=f"{steps} steps"):
        ddim_steps(ScheduleConfig(timesteps), steps)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prediction": "sample"}, "prediction is 'sample'"),
        ({"timesteps": 0}, "0 timesteps"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "from 0.5 to 0.1"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ScheduleConfig(**wrong)

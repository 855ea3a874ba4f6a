"""The four flows, their mixes and the sampler against what the published code computed."""

import re

import pytest
import torch

from unibrain.backbone.config import SamplingSettings
from unibrain.backbone.flows import sinusoid
from unibrain.backbone.sampling import (
    add_noise,
    alphas_cumprod,
    ddim_steps,
    guided_model,
    make_betas,
    sample_ddim,
    start_index,
)


def test_time_embedding(reference):
    golden = reference.load("golden_time")
    timesteps = golden["timesteps"]
    reference.close(sinusoid(timesteps, golden["sinusoid"].shape[1]), golden["sinusoid"], "single_forward")
    reference.close(reference.flows.embed_time(timesteps, torch.float32), golden["time_embed"], "single_forward")


@pytest.mark.parametrize("latent", ["image", "text"])
@pytest.mark.parametrize("context", ["image", "text"])
def test_single_flow(reference, latent, context):
    golden, flows = reference.load("golden_apply_model"), reference.flows
    output = flows(golden[f"x_{latent}"], golden["t"], [flows.prepare(f"c_{context}", golden[f"c_{context}"])])
    reference.close(output, golden[f"eps.x_{latent}.c_{context}"], "single_forward")


def test_every_mix_of_two_contexts(reference):
    golden = reference.load("golden_multicontext")
    flows = reference.flows
    checked = set()
    for key, expected in golden.items():
        # The published code can also draw one context per position ("layer"); nothing here does.
        found = re.fullmatch(r"eps\.(x_\w+)\.attention\.image([0-9.]+)_text([0-9.]+)", key)
        if found is None:
            continue
        latent, image, text = found.groups()
        contexts = [
            flows.prepare("c_image", golden["c_image"], float(image)),
            flows.prepare("c_text", golden["c_text"], float(text)),
        ]
        output = flows(golden[latent], golden["t"], contexts)
        reference.close(output, expected, "single_forward")
        checked.add((latent, image))
    assert {latent for latent, _ in checked} == {"x_image", "x_text"}
    assert len(checked) > 4


def test_schedule(reference):
    buffers = reference.load("schedule_buffers")
    betas = torch.from_numpy(make_betas(reference.schedule))
    levels = alphas_cumprod(reference.schedule)
    assert torch.equal(betas.float(), buffers["betas"])
    assert torch.equal(levels, buffers["alphas_cumprod"])
    exact = torch.cumprod(1 - betas, 0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), exact[:-1]])
    derived = {
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": exact.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - exact).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - exact).log(),
        "sqrt_recip_alphas_cumprod": (1 / exact).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / exact - 1).sqrt(),
        "posterior_variance": betas * (1 - previous) / (1 - exact),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - exact),
        "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - exact),
    }
    for name, value in derived.items():
        torch.testing.assert_close(value.float(), buffers[name], atol=1e-6, rtol=1e-6, msg=name)

    golden = reference.load("golden_schedule")
    steps = ddim_steps(reference.schedule, len(golden["ddim_timesteps"]))
    assert torch.equal(steps.timesteps, golden["ddim_timesteps"])
    assert torch.equal(steps.alphas.float(), golden["ddim_alphas"])
    torch.testing.assert_close(steps.alphas_prev, golden["ddim_alphas_prev"], atol=1e-7, rtol=0)
    torch.testing.assert_close(steps.sigmas, golden["ddim_sigmas"], atol=0, rtol=0)
    torch.testing.assert_close(
        (1 - steps.alphas).sqrt().float(), golden["ddim_sqrt_one_minus_alphas"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("latent", "image_weight"), [("image", 0.6), ("text", 0.9)])
def test_full_ddim_trajectory(reference, latent, image_weight):
    golden = reference.load(f"golden_ddim_{latent}")
    settings = SamplingSettings(image_weight, guidance_scale=7.5, strength=0.75, steps=50)
    steps = ddim_steps(reference.schedule, settings.steps)
    count = start_index(settings)
    assert (steps.timesteps[count] == golden["noise_level_t"]).all()
    assert torch.equal(steps.timesteps[:count].flip(0), golden["visited_t"])

    start = add_noise(golden["x0"], golden["noise"], steps.alphas[count])
    torch.testing.assert_close(start, golden["x_start"], atol=1e-6, rtol=0)
    model = guided_model(
        reference.flows,
        {"c_image": golden["c_image"], "c_text": golden["c_text"]},
        {"c_image": golden["u_image"], "c_text": golden["u_text"]},
        image_weight,
        settings.guidance_scale,
    )

    # Each step alone, from the stored latents: random networks amplify rounding along a whole run.
    for done, index in enumerate(range(count - 1, -1, -1)):
        one = []

        def keep(_, x, x0, one=one):
            one.extend((x, x0))
            raise StopIteration

        with pytest.raises(StopIteration):
            sample_ddim(model, golden["traj_x"][done], steps, index + 1, callback=keep)
        reference.close(one[0], golden["traj_x"][done + 1], "one_ddim_step_from_stored_traj_x")
        # Guidance adds up the errors of two forward passes, scale and scale - 1 times, and x0 divides by sqrt(alpha).
        alpha = float(steps.alphas[index])
        blown_up = (2 * settings.guidance_scale - 1) * ((1 - alpha) / alpha) ** 0.5
        torch.testing.assert_close(
            one[1], golden["traj_pred_x0"][done], atol=reference.tolerance("single_forward") * blown_up, rtol=0
        )

    visited = []
    final = sample_ddim(model, start, steps, count, callback=lambda index, x, _: visited.append((index, x)))
    assert [index for index, _ in visited] == list(range(count - 1, -1, -1))
    for (_, x), expected in zip(visited, golden["traj_x"][1:], strict=True):
        reference.close(x, expected, "full_37_step_run")
    reference.close(final, golden["final"], "full_37_step_run")

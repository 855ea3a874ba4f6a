"""How fast and how lean the backbone is at the official size, with random weights.

    python benchmarks/backbone.py --latent-size 32 --dtype bf16

measures, in one process and alternating the contestants, the seconds of one guided step under two contexts of both
flows against a plain implementation of the same network with the same weights, and under one context against the image
UNet of diffusers at the same size; then, in a process of its own, the peak memory of loading a full-size folder. That
both implementations predict the same is checked on the way. It ends with one line of JSON.
"""

import argparse
import copy
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plain_flows import plain_guided_model
from random_folder import write_random_folder
from torch import Tensor, nn

from unibrain.backbone.coders import decode_latents
from unibrain.backbone.config import OFFICIAL, FlowsConfig
from unibrain.backbone.devices import DTYPES, choose_device, choose_dtype
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.loading import build_empty
from unibrain.backbone.products import UNITS, arithmetic, onednn_from_rows, state_dtype, use_fast_products
from unibrain.backbone.sampling import context_shares, guided_model

TOKENS = {"c_image": 257, "c_text": 77}
SCALE = 7.5
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 5e-3}
"""Largest relative difference (root mean square) of two ways to compute the same prediction in one precision."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

AMPLIFIED = (SCALE**2 + (SCALE - 1) ** 2) ** 0.5
"""Guidance makes rounding errors of the two halves larger by this."""


def machine() -> dict[str, Any]:
    """The processor, and how products in 16 bits are computed on it."""
    described = subprocess.run(["lscpu"], capture_output=True, text=True).stdout if shutil.which("lscpu") else ""
    lines = (line.partition(":") for line in described.splitlines() if "Vulnerability" not in line)
    found = {name.strip(): value.strip() for name, _, value in lines}
    how = {str(dtype).removeprefix("torch."): arithmetic(dtype) for dtype in UNITS}
    return {
        "processor": found.get("Model name", platform.processor()),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "products": {name: f"{'native' if native else 'widened'}: {why}" for name, (native, why) in how.items()},
        "onednn_from_rows": onednn_from_rows(),
        "torch": torch.__version__,
        "lscpu": found,
    }


def filled(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    """Give a network random weights that keep its states at about one."""
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            bound = (3 / weight[0].numel()) ** 0.5
            weight.uniform_(-bound, bound)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


def timed(work: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def race(
    contestants: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of the first contestant; those of the others by the median of their ratios to it, round by round.

    They take turns, so that what else the machine does hits all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values():
        timed(work, device, clock)
    for _ in range(repeats):
        for name, work in contestants.items():
            seconds[name].append(timed(work, device, clock))
    first = next(iter(seconds.values()))
    typical = statistics.median(first)
    return {
        name: typical * statistics.median(time / beside for time, beside in zip(times, first, strict=True))
        for name, times in seconds.items()
    }


def difference(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to that of what is expected."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def contexts(scans: int, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Conditional contexts of all scans, and the unconditional ones with one row, at the norms of CLIP's."""
    width = OFFICIAL.flows.context_width
    drawn = {kind: torch.randn(scans + 1, tokens, width) / width**0.5 for kind, tokens in TOKENS.items()}
    there = {kind: rows.to(device, dtype) for kind, rows in drawn.items()}
    return {kind: rows[1:] for kind, rows in there.items()}, {kind: rows[:1] for kind, rows in there.items()}


def compare_with_plain(
    kind: str,
    arguments: argparse.Namespace,
    dtype: torch.dtype,
    device: torch.device,
    sizes: FlowsConfig = OFFICIAL.flows,
) -> tuple[FourFlows, dict[str, float]]:
    """Race one flow against the plain implementation, under both contexts."""
    flows = build_empty(replace(OFFICIAL, flows=sizes), "flows")
    (flows.text if kind == "image" else flows.image).data_blocks = nn.ModuleList()
    flows = filled(flows, dtype, device)
    weight = OFFICIAL.image.image_weight if kind == "image" else OFFICIAL.text.image_weight
    conditional, unconditional = contexts(arguments.scans, dtype, device)
    side = arguments.latent_size
    shape = (4, side, side) if kind == "image" else (sizes.text_width,)
    x = torch.randn(arguments.scans, *shape).to(device, dtype)
    timesteps = torch.full((1,), 481, device=device).expand(arguments.scans)
    states = state_dtype(dtype, device)
    rows = {name: context.to(states) for name, context in conditional.items()}
    empty = {name: flows.prepare(name, context.to(states)) for name, context in unconditional.items()}
    ours = guided_model(flows, rows, empty, weight, SCALE, x, timesteps[:1])
    # Weights of its own: ours may be brought into another order.
    plain = plain_guided_model(copy.deepcopy(flows), conditional, unconditional, context_shares(weight), SCALE)
    if arguments.compile:
        flows.compile()
    off = difference(ours(x, timesteps), plain(x, timesteps)) / AMPLIFIED
    print(f"{kind} flow: relative difference to the plain implementation {off:.1e}", flush=True)
    if off > TOLERANCE[arguments.dtype]:
        raise SystemExit(f"the {kind} flow predicts something else than the plain implementation: {off:.2e}")
    contestants = {"ours": lambda: ours(x, timesteps), "plain": lambda: plain(x, timesteps)}
    seconds = race(contestants, arguments.repeats, device, CLOCKS[arguments.clock])
    print(
        f"{kind} flow, 2 contexts: {seconds['ours']:.2f} s per guided step, plain {seconds['plain']:.2f} s", flush=True
    )
    return flows, seconds


def compare_with_diffusers(
    flows: FourFlows, arguments: argparse.Namespace, dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """Race the image flow under image contexts alone against the UNet of diffusers, both guided."""
    from diffusers import UNet2DConditionModel

    levels = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=levels,
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            cross_attention_dim=OFFICIAL.flows.context_width,
            attention_head_dim=OFFICIAL.flows.heads,
        )
    unet = filled(unet, dtype, device)
    if device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
    conditional, unconditional = contexts(arguments.scans, dtype, device)
    x = torch.randn(arguments.scans, 4, arguments.latent_size, arguments.latent_size).to(device, dtype)
    timesteps = torch.full((1,), 481, device=device).expand(arguments.scans)
    both = torch.cat([unconditional["c_image"].expand(arguments.scans, -1, -1), conditional["c_image"]])
    states = state_dtype(dtype, device)
    empty = {"c_image": flows.prepare("c_image", unconditional["c_image"].to(states))}
    rows = {"c_image": conditional["c_image"].to(states)}
    ours = guided_model(flows, rows, empty, 1.0, SCALE, x, timesteps[:1])

    def theirs() -> Tensor:
        e_u, e_c = unet(torch.cat([x, x]), timesteps[0], encoder_hidden_states=both).sample.chunk(2)
        return e_u + SCALE * (e_c - e_u)

    contestants = {"ours": lambda: ours(x, timesteps), "diffusers": theirs}
    seconds = race(contestants, arguments.repeats, device, CLOCKS[arguments.clock])
    print(
        f"image flow, 1 context: {seconds['ours']:.2f} s per guided step, diffusers {seconds['diffusers']:.2f} s",
        flush=True,
    )
    return seconds


def throughput(
    kind: str, flows: FourFlows, arguments: argparse.Namespace, dtype: torch.dtype, device: torch.device
) -> float:
    """Scans per second at the best batch, for the steps of the recommended settings and the picture's decoding."""
    settings = OFFICIAL.image if kind == "image" else OFFICIAL.text
    steps, best = int(settings.steps * settings.strength), 0.0
    side = arguments.latent_size
    shape = (4, side, side) if kind == "image" else (OFFICIAL.flows.text_width,)
    autokl = filled(build_empty(OFFICIAL, "autokl"), dtype, device) if kind == "image" else None
    if autokl is not None:
        use_fast_products(autokl)
    for scans in (1, 2, 4, 8, 16, 32, 64):
        try:
            conditional, unconditional = contexts(scans, dtype, device)
            x = torch.randn(scans, *shape).to(device, dtype)
            timesteps = torch.full((1,), 481, device=device).expand(scans)
            given = (conditional, unconditional, settings.image_weight, SCALE)
            model = guided_model(flows, *given, x, timesteps[:1])
            seconds = steps * race({"step": lambda: model(x, timesteps)}, 3, device)["step"]  # noqa: B023
            if autokl is not None:
                factor = OFFICIAL.autokl.scale_factor
                seconds += race({"decode": lambda: decode_latents(autokl, x, factor)}, 3, device)["decode"]  # noqa: B023
        except torch.OutOfMemoryError:
            break
        print(f"{kind} flow, {scans} scans: {scans / seconds:.2f} per second", flush=True)
        best = max(best, scans / seconds)
    return best


def peak_over_weights(dtype: str) -> dict[str, float]:
    """Measure a process that loads a full-size folder and reads all of its weights."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "official"
        print("writing a full-size folder of random weights (6.6 GB)", flush=True)
        write_random_folder(folder, OFFICIAL, DTYPES[dtype])
        script = Path(__file__).parent / "peak_memory.py"
        command = [sys.executable, str(script), str(folder), dtype]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    ratio = (found["after"] - found["before"]) / found["weights"]
    print(
        f"memory: {found['before'] / 2**30:.2f} GiB of Python and libraries, {found['after'] / 2**30:.2f} GiB at the "
        f"peak, weights {found['weights'] / 2**30:.2f} GiB: {ratio:.3f} x",
        flush=True,
    )
    return {**{name: round(size / 2**30, 3) for name, size in found.items()}, "ratio": round(ratio, 4)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latent-size", type=int, default=32, help="64 for the official 512 x 512 pixels")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scans", type=int, default=1, help="scans in a batch")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: seconds of all processors, fair beside other programs (set OMP_WAIT_POLICY=passive)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="torch.compile our flows (graphics cards)")
    parser.add_argument("--only", choices=["image", "text", "memory"], help="one of the measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device, 0, torch.float32)
    torch.manual_seed(1)
    result: dict[str, Any] = {"device": str(device), "dtype": arguments.dtype, "latent_size": arguments.latent_size}
    result |= {"clock": arguments.clock, "threads": arguments.threads, "machine": machine()}
    wanted = [arguments.only] if arguments.only else ["image", "text", "memory"]
    if "image" in wanted:
        flows, seconds = compare_with_plain("image", arguments, dtype, device)
        result |= {"image_step_s": round(seconds["ours"], 3), "image_step_plain_s": round(seconds["plain"], 3)}
        result["image_step_ratio"] = round(seconds["plain"] / seconds["ours"], 2)
        seconds = compare_with_diffusers(flows, arguments, dtype, device)
        result |= {"image_one_context_s": round(seconds["ours"], 3), "diffusers_s": round(seconds["diffusers"], 3)}
        result["image_vs_diffusers"] = round(seconds["diffusers"] / seconds["ours"], 2)
        if device.type != "cpu":
            result["pictures_per_second"] = round(throughput("image", flows, arguments, dtype, device), 3)
        del flows
    if "text" in wanted:
        flows, seconds = compare_with_plain("text", arguments, dtype, device)
        result |= {"text_step_s": round(seconds["ours"], 3), "text_step_plain_s": round(seconds["plain"], 3)}
        result["text_step_ratio"] = round(seconds["plain"] / seconds["ours"], 2)
        if device.type != "cpu":
            result["captions_per_second"] = round(throughput("text", flows, arguments, dtype, device), 3)
        del flows
    if "memory" in wanted:
        memory = peak_over_weights(arguments.dtype)
        result |= {"peak_over_weights": memory["ratio"], "memory_gib": memory}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""A whole subject on one graphics card: what is gained there, with random weights of the official sizes.

    python benchmarks/gpu.py --folder /tmp/random-official --json my-card.json

measures, in one run: both flows against the plain implementation at the same batch, in bf16, fp16 and TF32, compiled
and not; scans per second at the best batch, and peak memory; how fast pictures and captions are encoded; the ridge of
a subject's size on the card beside the processor. From these it tells the minutes of a subject of 8,859 training and
982 test images. Anyone with a card can send the file. `--device cpu --quick` tries the script where there is none.
"""

import argparse
import json
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from random_folder import write_random_folder

from backbone import compare_with_plain, throughput
from unibrain.backbone import load_backbone
from unibrain.backbone.config import OFFICIAL
from unibrain.backbone.devices import DTYPES, choose_device
from unibrain.regression import BrainDecoder

TRAIN, TEST, VOXELS, TARGETS = 8859, 982, 15724, 273_664


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call, the card's own work included."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def flows(device: torch.device, options: Namespace) -> dict[str, Any]:
    """Both flows against the plain implementation, and the best batch, by precision."""
    found: dict[str, Any] = {}
    ways = [("bf16", False)] if options.quick else [(way, c) for way in ("bf16", "fp16", "tf32") for c in (False, True)]
    for way, compiled in ways:
        name = f"{way}{', compiled' if compiled else ''}"
        dtype = torch.float32 if way == "tf32" else DTYPES[way]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = way == "tf32"
        chosen = Namespace(
            **{**vars(options), "dtype": "bf16" if way == "tf32" else way, "compile": compiled, "clock": "wall"}
        )
        rows: dict[str, Any] = {}
        for kind in ("image", "text"):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            network, step = compare_with_plain(kind, chosen, dtype, device)
            rows[kind] = {name: round(value, 4) for name, value in step.items()}
            rows[kind]["ratio"] = round(step["plain"] / step["ours"], 2)
            if not options.quick:
                rows[kind]["per_second"] = round(throughput(kind, network, chosen, dtype, device), 3)
            if device.type == "cuda":
                rows[kind]["peak_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
            del network
        found[name] = rows
        print(f"{name}: {rows}", flush=True)
    return found


def encoding(folder: Path, device: torch.device, options: Namespace) -> dict[str, float]:
    """Images encoded per second, both latents and both contexts with five captions each."""
    backbone = load_backbone(folder, str(device), dtype="bf16")
    count = 2 if options.quick else 256
    pictures = np.random.default_rng(0).integers(0, 256, (count, 425, 425, 3), dtype=np.uint8)
    captions = [f"t{number} t{number + 1} t{number + 2}" for number in range(5 * count)]
    items = {"z_image": pictures, "c_image": pictures, "z_text": captions[:count], "c_text": captions}
    found = {}
    for name, each in items.items():
        backbone.encode(name, each[:2])
        found[name] = round(count / seconds_of(lambda: backbone.encode(name, each), device), 2)  # noqa: B023
    print(f"images encoded per second: {found}", flush=True)
    return found


def ridge(device: torch.device, options: Namespace) -> dict[str, float]:
    """Seconds to fit a subject and predict its test scans, on some of the targets, on the card and the processor."""
    scale = 0.02 if options.quick else 1.0
    n, m, p = (max(24, int(size * scale)) for size in (TRAIN, TEST, VOXELS))
    targets = max(64, int(20_000 * scale))
    rng = np.random.default_rng(0)
    scans, new = (rng.standard_normal((rows, p), dtype=np.float32) for rows in (n, m))
    latents = rng.standard_normal((n, targets), dtype=np.float32)
    found: dict[str, float] = {"targets": targets}
    for place in dict.fromkeys((str(device), "cpu")):

        def work(place: str = place) -> None:
            BrainDecoder(alpha=1000.0, device=place).fit(scans, latents).predict(new)

        found[place] = round(seconds_of(work, device), 2)
    print(f"ridge, {n} x {p} voxels, {targets} targets: {found} s", flush=True)
    return found


def subject_minutes(result: dict[str, Any], device: str) -> float | None:
    """Minutes of a whole subject: encode, fit, predict, draw and write."""
    best = [rows for rows in result["flows"].values() if "per_second" in rows["image"]]
    if not best:
        return None
    pictures, sentences = (max(rows[kind]["per_second"] for rows in best) for kind in ("image", "text"))
    encoded = sum((TRAIN + TEST) / rate for rate in result["images_encoded_per_second"].values())
    # Upper bound: the part that does not grow with the targets is counted for all of them.
    fitted = result["ridge_s"][device] * TARGETS / result["ridge_s"]["targets"]
    return round((encoded + fitted + TEST / pictures + TEST / sentences) / 60, 1)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="random weights; written (6.6 GB) if it is not there"
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scans", type=int, default=8, help="scans in a batch beside the plain implementation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latent-size", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="try the script: few scans, one precision")
    options = parser.parse_args()
    if options.quick:
        options.scans, options.repeats, options.latent_size = 1, 1, 16
    device = choose_device(options.device)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    result: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device),
        "torch": torch.__version__,
        "quick": options.quick,
        "flows": flows(device, options),
    }
    if not options.folder.exists():
        write_random_folder(options.folder, OFFICIAL, torch.bfloat16)
    result["images_encoded_per_second"] = encoding(options.folder, device, options)
    result["ridge_s"] = ridge(device, options)
    result["subject_minutes"] = subject_minutes(result, str(device))
    text = json.dumps(result)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""How long the networks behind published scores take for the pictures of a subject, with random weights.

    python benchmarks/metrics.py --pictures 32

Each network sees a few pictures through the layers that published scores read, streamed as `unibrain evaluate` does it,
and in turn as its plain module: the whole network, in PyTorch's usual memory layout. Seconds for 982 pictures are
extrapolated. It ends with one line of JSON.
"""

import argparse
import json
import os
import time

import torch

from unibrain.evaluation.dialects import DIALECTS
from unibrain.evaluation.networks.features import CHANNELS_LAST, Loaded, build_network, extract
from unibrain.evaluation.networks.weights import NETWORKS

SUBJECT = 982
SIDES = {"inception": 299, "efficientnet-b1-v1": 240, "efficientnet-b1-v2": 240}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    result: dict[str, float | str] = {
        "threads": arguments.threads,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    total = 0.0
    for name in NETWORKS:
        layers = list(
            dict.fromkeys(
                ["image_embeds"] * (name == "clip-vit-b-32")
                + [layer for row in DIALECTS.values() for network, layer in row.layers.values() if network == name]
            )
        )
        side = SIDES.get(name, 224)
        pictures = torch.rand(arguments.pictures, 3, side, side)
        seconds: dict[str, float] = {}
        for way in ("plain", "ours") * (1 + arguments.repeats):
            module = build_network(name).eval().requires_grad_(False)
            if way == "ours" and name in CHANNELS_LAST:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            began = time.perf_counter()
            if way == "ours":
                extract(Loaded(name, module, ""), pictures.split(16), layers)
            else:
                with torch.inference_mode():
                    for batch in pictures.split(16):
                        module(batch)
            seconds[way] = min(time.perf_counter() - began, seconds.get(way, float("inf")))
        whole = seconds["ours"] * SUBJECT / arguments.pictures
        total += whole
        print(
            f"{name}: {whole:.0f} s for {SUBJECT} pictures, {seconds['plain'] / seconds['ours']:.2f} x plain",
            flush=True,
        )
        result[name] = round(whole, 1)
    print(f"all: {total / 60:.0f} minutes for {SUBJECT} pictures, once for those seen and once for those decoded")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

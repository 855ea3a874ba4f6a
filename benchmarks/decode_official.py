"""Decode one scan from end to end at the official sizes, with random weights: seconds per part, and peak memory.

    python benchmarks/decode_official.py --folder /tmp/random-official --dtype bf16 --steps 4

writes a folder of random weights (6.6 GB in 16 bit) unless it is there, loads it, encodes a picture and a caption, and
decodes both under both contexts. What comes out means nothing; memory and time are those of the real weights.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from random_folder import write_random_folder

from unibrain.backbone import load_backbone
from unibrain.backbone.config import OFFICIAL


def main() -> None:
    """Measure, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4, help="DDIM steps of a full run; three quarters are taken")
    options = parser.parse_args()
    if not options.folder.exists():
        write_random_folder(options.folder, OFFICIAL, torch.bfloat16)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - began, 1)
        print(f"{name:>16}: {seconds[name]:.1f} s", flush=True)
        return result

    backbone = timed("load", lambda: load_backbone(options.folder, options.device, dtype=options.dtype))
    picture = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    z_image = timed("encode picture", lambda: backbone.encode("z_image", picture))
    z_text = timed("encode caption", lambda: backbone.encode("z_text", ["t1 t2"]))
    c_image = timed("picture context", lambda: backbone.encode("c_image", picture))
    c_text = timed("caption context", lambda: backbone.encode("c_text", ["t1 t2"]))
    contexts = {"c_image": c_image, "c_text": c_text}
    seeds = np.zeros(1, dtype=np.int64)
    images, texts = (replace(chosen, steps=options.steps) for chosen in (OFFICIAL.image, OFFICIAL.text))
    decoded = timed("decode picture", lambda: backbone.sample("picture", z_image, contexts, images, seeds))
    timed("decode caption", lambda: backbone.sample("caption", z_text, contexts, texts, seeds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        json.dumps(
            {
                "dtype": options.dtype,
                "steps_taken": int(OFFICIAL.image.strength * options.steps),
                "picture": list(decoded.shape),
                "peak_gb": round(peak / 1e9, 2),
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()

"""How fast and how lean the four regressions are at the size of NSD's subject 1, on generated data.

    python benchmarks/ridge.py --folder /tmp/ridge-benchmark

writes random scans and random stored targets (11 GB at full size; `--scale 0.1` is a quick look), and then measures,
each contestant in a process of its own:

- ours: seconds per stage from scans and stored targets to predictions on disk, the achieved share of this machine's
  matrix product rate, and the peak memory of the process;
- the common recipe, scikit-learn's Ridge refitted for each token in double precision, on a few tokens, extrapolated to
  all targets by their number;
- himalaya's KernelRidge on two numbers of targets, from which a fixed part and a part per target follow, and himalaya's
  RidgeCV (choosing among the same penalties by five folds) against ours doing so, per target;
- how our time grows with images, voxels and targets, drawn beside the model 2 * m * n * t / rate.

It ends with one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ridge_growth import draw_growth

from unibrain.latents import LatentWriter

TRAIN, TEST, VOXELS = 8859, 982, 15724
SHAPES = {"z_image": (4, 64, 64), "z_text": (768,), "c_image": (257, 768), "c_text": (77, 768)}
TOKEN = 768


def sizes(scale: float) -> tuple[int, int, int, dict[str, tuple[int, ...]]]:
    """Training images, test images, voxels and latent shapes at a share of the full size."""
    shapes = {
        "z_image": (4, max(8, round(64 * scale)), 64),
        "z_text": (TOKEN,),
        "c_image": (max(2, round(257 * scale)), TOKEN),
        "c_text": (max(2, round(77 * scale)), TOKEN),
    }
    n, m, p = (max(24, round(size * scale)) for size in (TRAIN, TEST, VOXELS))
    return n, m, p, SHAPES if scale == 1 else shapes


def generate(folder: Path, scale: float, precision: str) -> dict[str, Any]:
    """Write scans and targets, unless they are there."""
    n, m, p, shapes = sizes(scale)
    about = {"n": n, "m": m, "p": p, "t": sum(int(np.prod(s)) for s in shapes.values()), "precision": precision}
    if (folder / "about.json").is_file() and json.loads((folder / "about.json").read_text()) == about:
        return about
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "betas.npy", rng.standard_normal((n + m, p), dtype=np.float32))
    # Training images lie scattered among all images, as they do in a run.
    np.save(folder / "train.npy", np.sort(rng.permutation(n + m)[:n]))
    writer = LatentWriter(
        folder / "latents",
        np.arange(n + m),
        "random",
        "none",
        storage="zarr",
        precision=precision,  # type: ignore[arg-type]
    )
    writer.begin(shapes)
    for name, shape in shapes.items():
        width = int(np.prod(shape))
        for start in range(0, width, 4096):
            block = slice(start, min(start + 4096, width))
            values = rng.standard_normal((n + m, block.stop - block.start), dtype=np.float32)
            writer.write_columns(name, block, values + np.float32(0.5))
    writer.finish()
    (folder / "about.json").write_text(json.dumps(about))
    return about


def measure(contestant: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Run one contestant in a process of its own; its last line is JSON."""
    command = [sys.executable, str(Path(__file__).with_name("ridge_contestants.py")), contestant, str(folder)]
    began = time.perf_counter()
    done = subprocess.run([*command, json.dumps(options)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{contestant:>12}: {time.perf_counter() - began:8.1f} s in all  {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    """Measure everything, and print the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size in every direction")
    parser.add_argument("--folder", type=Path, default=Path("ridge-benchmark"), help="where the data go (11 GB)")
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--memory", type=float, default=2.0, help="gigabytes for streaming")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=3, help="tokens that the recipe is timed on")
    parser.add_argument("--himalaya-targets", type=int, default=16384)
    parser.add_argument("--no-cv", action="store_true", help="leave out the choice of alpha (minutes)")
    parser.add_argument("--no-growth", action="store_true", help="leave out growth and its plot")
    parser.add_argument("--plot", type=Path, default=None, help="PNG of the growth")
    arguments = parser.parse_args()

    about = generate(arguments.folder, arguments.scale, arguments.precision)
    print(f"{about['n']} training and {about['m']} test images, {about['p']} voxels, {about['t']} targets", flush=True)
    ours = measure("ours", arguments.folder, memory=arguments.memory, device=arguments.device)
    rescaled = measure("rescaled", arguments.folder, memory=arguments.memory, device=arguments.device)
    recipe = measure("recipe", arguments.folder, tokens=arguments.tokens)
    most = min(arguments.himalaya_targets, about["t"])
    himalaya = measure("himalaya", arguments.folder, targets=[most // 4, most])
    tokens = about["t"] / TOKEN
    total = ours["fit"] + ours["predict"]
    few, many = himalaya["seconds"]
    per_target = (many - few) / (most - most // 4)
    himalaya_total = max(0.0, many - per_target * most) + per_target * about["t"]
    result = {
        **{key: about[key] for key in ("n", "m", "p", "t")},
        "recipe_ratio": round(recipe["seconds_per_token"] * tokens / total, 1),
        "himalaya_ratio": round(himalaya_total / total, 2),
        "gemm_fraction": round(ours["gemm_fraction"], 3),
        "peak_gb": round(ours["peak_gb"], 2),
        "seconds": round(total, 1),
        "stages": {name: round(seconds, 2) for name, seconds in ours["stages"].items()},
        "single_scan_seconds": round(ours["single_scan"], 2),
        "decoder_gb": round(ours["decoder_gb"], 3),
        "rescale_seconds": round(rescaled["fit"] - ours["fit"], 1),
        "himalaya_peak_gb": round(himalaya["peak_gb"], 2),
        "recipe_peak_gb": round(recipe["peak_gb"], 2),
        "gemm_gflops": round(ours["gemm_gflops"], 1),
    }
    if not arguments.no_cv:
        chosen = measure("ours-cv", arguments.folder, memory=arguments.memory, device=arguments.device)
        other = measure("himalaya-cv", arguments.folder, targets=min(2 * TOKEN, about["t"]))
        result["cv_over_single_alpha"] = round(chosen["fit"] / total, 2)
        ours_each, other_each = chosen["fit"] / about["t"], other["seconds"] / other["targets"]
        result["himalaya_cv_ratio_per_target"] = round(other_each / ours_each, 1)
    if not arguments.no_growth:
        rows = measure("growth", arguments.folder)["rows"]
        if arguments.plot is not None:
            draw_growth(rows, arguments.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

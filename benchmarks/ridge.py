"""How fast and how small the four regressions are at the size of NSD's subject 1, on generated data.

    python benchmarks/ridge.py --folder /tmp/ridge-benchmark

writes random scans and random stored targets (11 GB at full size; `--scale 0.1` is a quick look), and then measures,
each contestant in a process of its own:

- ours: seconds per stage from scans and stored targets to predictions on disk, the achieved share of this machine's
  matrix product rate, and the peak memory of the process. All targets are read once before the clock starts, as the
  others' are in memory by then; the time of that is told, too;
- a fit with all defaults, with one given alpha, and with alphas chosen among the default grid from a sample of the
  targets, by five folds or leaving out one image;
- the common recipe, scikit-learn's Ridge refitted for each token in double precision, on a few tokens, extrapolated to
  all targets by their number;
- himalaya's KernelRidge with conjugate gradients, the faster of its solvers here (`--slow-peers` adds its default, an
  eigendecomposition), on two numbers of targets, from which a part that all targets share and a part per target
  follow. The same for KernelRidgeCV, which himalaya itself recommends where there are fewer images than voxels, beside
  our choice of alpha (`--slow-peers` adds RidgeCV);
- how our time grows with images, voxels and targets, drawn beside the model 2 * m * n * t / rate.

A contestant that is not done after `--patience` seconds is stopped, and its numbers are null.

It ends with one line of JSON.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ridge_growth import draw_growth

from backbone import machine
from unibrain.latents import LatentWriter

TRAIN, TEST, VOXELS = 8859, 982, 15724
SHAPES = {"z_image": (4, 64, 64), "z_text": (768,), "c_image": (257, 768), "c_text": (77, 768)}
TOKEN = 768
SOLVERS = (("conjugate_gradient", (1024, 4096)), ("eigenvalues", (64, 320)))


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


def measure(contestant: str, folder: Path, patience: float, **options: Any) -> dict[str, Any] | None:
    """Run one contestant in a process of its own; its last line is JSON. None if it took longer than `patience`."""
    command = [sys.executable, str(Path(__file__).with_name("ridge_contestants.py")), contestant, str(folder)]
    label = " ".join([contestant, *(f"{name}={value}" for name, value in options.items())])
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, json.dumps(options)], stdout=subprocess.PIPE, text=True, check=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        print(f"{label}: stopped after {patience:.0f} s", flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{label}: {time.perf_counter() - began:.1f} s in all  {json.dumps(found)}", flush=True)
    return found


def for_all_targets(found: dict[str, Any] | None, t: int) -> float:
    """Seconds for t targets, from those for few and for many; infinite if there are none."""
    if found is None:
        return math.inf
    (few, many), (fewer, more) = found["seconds"], found["targets"]
    # Of two noisy times the larger number of targets may have the smaller one.
    each = max(0.0, (many - few) / (more - fewer))
    return max(0.0, many - each * more) + each * t


def ratio(other: float, own: float) -> float | None:
    """How many times longer the other takes, or None."""
    return round(other / own, 1) if math.isfinite(other) else None


def main() -> None:
    """Measure everything, and print the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size in every direction")
    parser.add_argument("--folder", type=Path, default=Path("ridge-benchmark"), help="where the data go (11 GB)")
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--memory", type=float, default=2.0, help="gigabytes for streaming")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=3, help="tokens that the recipe is timed on")
    parser.add_argument("--patience", type=float, default=1200.0, help="seconds that each contestant gets")
    parser.add_argument("--no-himalaya", action="store_true", help="leave out himalaya (most of the time)")
    parser.add_argument("--slow-peers", action="store_true", help="also what himalaya takes longer than all else for")
    parser.add_argument("--no-cv", action="store_true", help="leave out the choice of alpha")
    parser.add_argument("--no-growth", action="store_true", help="leave out growth and its plot")
    parser.add_argument("--plot", type=Path, default=None, help="PNG of the growth")
    arguments = parser.parse_args()

    about = generate(arguments.folder, arguments.scale, arguments.precision)
    n, m, p, t = (about[key] for key in "nmpt")
    print(f"{n} training and {m} test images, {p} voxels, {t} targets", flush=True)
    run = partial(measure, folder=arguments.folder, patience=arguments.patience)
    own = {"memory": arguments.memory, "device": arguments.device}
    ours = run("ours", **own)
    assert ours is not None, "raise --patience"
    total = ours["fit"] + ours["predict"]
    result: dict[str, Any] = {"n": n, "m": m, "p": p, "t": t, "recipe_ratio": None, "himalaya_ratio": None}
    result["machine"] = machine()
    result |= {
        "gemm_fraction": round(ours["gemm_fraction"], 3),
        "peak_gb": round(ours["peak_gb"], 2),
        "seconds": round(total, 1),
        "stages": {name: round(seconds, 2) for name, seconds in ours["stages"].items()},
        "single_scan_seconds": round(ours["single_scan"], 2),
        "decoder_gb": round(ours["decoder_gb"], 3),
        "gemm_gflops": round(ours["gemm_gflops"], 1),
        "average_gflops": round(ours["average_gflops"], 1),
        "fraction_of_average": round(ours["average_fraction"], 3),
    }
    recipe = run("recipe", tokens=arguments.tokens)
    if recipe is not None:
        result["recipe_ratio"] = ratio(recipe["seconds_per_token"] * t / TOKEN, total)
        result |= {"recipe_seconds_per_token": round(recipe["seconds_per_token"], 2)}
        result |= {"recipe_peak_gb": round(recipe["peak_gb"], 2)}
    fits = {"one alpha": run("ours-fit", **own, alpha=6e4)}
    if not arguments.no_cv:
        fits["chosen"] = run("ours-fit", **own)
        fits["chosen, leaving one out"] = run("ours-fit", **own, folds="loo")
    result["fit_seconds"] = {name: found and round(found["fit"], 1) for name, found in fits.items()}
    result["fit_peak_gb"] = {name: found and round(found["peak_gb"], 2) for name, found in fits.items()}
    if not arguments.no_himalaya:
        peers = [
            run("himalaya", targets=[min(count, t) for count in counts], solver=solver)
            for solver, counts in SOLVERS[: 1 + arguments.slow_peers]
        ]
        result["himalaya_ratio"] = ratio(min(for_all_targets(peer, t) for peer in peers), total)
        result["himalaya"] = peers
    if not (arguments.no_himalaya or arguments.no_cv):
        chosen = fits["chosen"]
        for estimator in ("KernelRidgeCV", "RidgeCV")[: 1 + arguments.slow_peers]:
            peer = run("himalaya-cv", targets=[min(1024, t), min(4096, t)], estimator=estimator)
            result[f"himalaya_{estimator}"] = peer
            result[f"himalaya_{estimator}_ratio"] = chosen and ratio(for_all_targets(peer, t), chosen["fit"])
    if not arguments.no_growth:
        growth = run("growth")
        if growth is not None and arguments.plot is not None:
            draw_growth(growth["rows"], arguments.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

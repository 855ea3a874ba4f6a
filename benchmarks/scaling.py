"""How a run scales over workers: measured with one and two, and with workers that only sleep; and a model to 64.

``python benchmarks/scaling.py RUN`` takes a finished run, copies it, and does its divided stages again with one worker
and with two. ``--plot FILE`` draws the model for a full-size subject beside what was measured with sleeping workers.
``--columns FOLDER`` fits and predicts generated latents, alone and by blocks of columns with one worker and with two.
"""

import argparse
import heapq
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unibrain.engines import engine_of
from unibrain.latents import LatentWriter, open_latents
from unibrain.pipeline import BackboneSource, RunFolder, kept_settings, run_one
from unibrain.pipeline.plan import DIVIDED
from unibrain.pipeline.shards import block_work
from unibrain.regression import BrainDecoder
from unibrain.regression.blocks import SharedBlocks, Sharing
from unibrain.regression.ridge import centred_kernel
from unibrain.workspace.progress import limit_threads
from unibrain.workspace.shards import Engine, Shard, Work, write_work

FULL_SIZE = {"pictures": 31, "captions": 31}
"""Shards of 982 test scans in batches of 32."""


def scheduled(seconds: Sequence[float], workers: int, start: float, overhead: float) -> float:
    """When the last worker ends, if each takes the next shard as soon as it is free."""
    free = [start] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each + overhead)
    return max(free)


def sleep(work: Work, shard: Shard) -> None:
    """Do a shard by waiting."""
    time.sleep(shard.task["seconds"])


def sleeping(workers: int, seconds: Sequence[float]) -> tuple[float, float, float]:
    """Wall-clock seconds of sleeping shards, of the start of the workers, and what one shard costs beside its sleep."""
    with tempfile.TemporaryDirectory() as folder:
        shards = tuple(Shard(f"s{n}", f"shard {n}", 1, {"seconds": each}) for n, each in enumerate(seconds))
        work = write_work(Work(Path(folder), "sleep", "test", {"device": "cpu"}, shards))
        engine, warm = engine_of(f"local:{workers}", 60, sleep), shards[:1] * workers
        began = time.monotonic()
        first = write_work(
            Work(
                Path(folder, "warm"),
                "sleep",
                "test",
                {"device": "cpu"},
                tuple(Shard(f"w{n}", one.what, 1, {"seconds": 0.0}) for n, one in enumerate(warm)),
            )
        )
        engine(first)
        start, began = time.monotonic() - began, time.monotonic()
        engine(work)
        wall = time.monotonic() - began
        busy = sum(record["seconds"] for record in work.records().values())
        return wall, start, (workers * wall - busy) / len(seconds)


def stages(root: Path, workers: int) -> dict[str, dict[str, float]]:
    """Do the divided stages of a copy of a run again, with some workers."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        shutil.copytree(root, run.root)
        engine, source, settings = engine_of(f"local:{workers}"), BackboneSource("cpu"), kept_settings(run)
        for name in DIVIDED:
            run.record(name).unlink()
            alone = time.monotonic()
            result = run_one(name, run, settings, source, engine=engine)
            record = json.loads(run.record(name).read_bytes())
            about = record["notes"]["shards"]
            found[name] = {
                "wall": time.monotonic() - alone,
                "stage": result.seconds,
                "busy": about["seconds"],
                "shards": about["count"],
            }
    return found


def columns(folder: Path, scans: int, voxels: int, dimensions: int) -> None:
    """Fit to generated latents, and predict 400 scans, alone and with workers; compare the bytes, and print."""
    random = np.random.default_rng(0)
    betas = random.standard_normal((scans + 400, voxels), dtype=np.float32)
    if not (folder / "latents").exists():
        writer = LatentWriter(folder / "latents", np.arange(scans), "generated", "0", storage="zarr")
        writer.begin({"c_image": (dimensions // 64, 64)})
        for start in range(0, scans, 250):
            writer.write_rows(start, {"c_image": random.standard_normal((min(250, scans - start), dimensions))})
        writer.finish()
    stored, made = open_latents(folder / "latents", verify=False), {}
    began = time.monotonic()
    centred_kernel(betas[:scans])
    print(f"kernel {time.monotonic() - began:.1f} s", flush=True)
    for workers in (0, 1, 2):
        engine, works = engine_of(f"local:{max(1, workers)}"), list[Work]()
        place = folder / f"with-{workers}"
        shutil.rmtree(place, ignore_errors=True)

        def sharing(name: str, place: Path = place, engine: Engine = engine, works: list[Work] = works) -> Sharing:
            def share(blocks: SharedBlocks) -> None:
                works.append(block_work(place, name, blocks))
                began = time.monotonic()
                engine(works[-1])
                busy = [record["seconds"] for record in works[-1].records().values()]
                wall, count = time.monotonic() - began, len(busy)
                print(f"  {name}: {count} shards, {wall:.1f} s, busy {sum(busy):.1f} s", flush=True)

            return Sharing(place / name, share)

        for name in ("warm", "fit"):  # the workers start in the first
            began, some = time.monotonic(), sharing(name) if workers else None
            decoder = BrainDecoder(alpha=1e4, memory=0.25).fit(betas[:scans], stored, sharing=some)
            fitted = time.monotonic() - began
        decoder.predict_to(
            place / "predicted", betas[scans:], storage="npy", sharing=sharing("predict") if workers else None
        )
        print(f"{workers} workers: fit {fitted:.1f} s, predict {time.monotonic() - began - fitted:.1f} s", flush=True)
        made[workers] = [decoder.gain_["c_image"].tobytes(), (place / "predicted" / "c_image.npy").read_bytes()]
        shutil.rmtree(place)
    print("same bytes:", made[0] == made[1] == made[2])


def draw(path: Path, start: float, overhead: float, points: Sequence[tuple[int, float]]) -> None:
    """Draw how much faster a full-size reconstruction is on up to 64 workers, by the model."""
    from matplotlib.figure import Figure

    random = np.random.default_rng(0)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    counts = [1, 2, 4, 8, 16, 32, 64]
    axes.plot(counts, counts, color="0.75", linewidth=1, label="ideal")
    for batch, colour in ((32, "#3a4fc4"), (8, "#d0622b")):
        number = 2 * -(-982 // batch)
        seconds = 10.0 * batch * random.lognormal(0, 0.1, number)
        single = scheduled(seconds, 1, start, overhead)
        speed = [single / scheduled(seconds, count, start, overhead) for count in counts]
        axes.plot(counts, speed, "-", color=colour, label=f"model, batches of {batch} ({number} shards)")
        slow = seconds.copy()
        slow[-1] *= 3
        speed = [scheduled(slow, 1, start, overhead) / scheduled(slow, count, start, overhead) for count in counts]
        axes.plot(counts, speed, ":", color=colour, label="the same, one straggler of three times")
    axes.plot([n for n, _ in points], [s for _, s in points], "ko", label="measured, sleeping workers, 48 shards")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="times as fast as one")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--columns", type=Path)
    parser.add_argument("--scans", type=int, default=3000)
    parser.add_argument("--voxels", type=int, default=4000)
    parser.add_argument("--dimensions", type=int, default=65536)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    limit_threads(chosen.threads)
    if chosen.columns is not None:
        columns(chosen.columns, chosen.scans, chosen.voxels, chosen.dimensions)
    if chosen.run is not None:
        for workers in (1, 2):
            for name, about in stages(chosen.run, workers).items():
                print(workers, name, {key: round(value, 2) for key, value in about.items()}, flush=True)
    if chosen.plot is not None:
        seconds = np.random.default_rng(1).lognormal(np.log(0.5), 0.3, 48).tolist()
        points, starts, costs = list[tuple[int, float]](), list[float](), list[float]()
        for workers in (1, 2, 4, 8):
            wall, start, _ = sleeping(workers, seconds)
            overhead = (wall - scheduled(seconds, workers, 0.0, 0.0)) * workers / len(seconds)
            starts.append(start)
            costs.append(overhead)
            points.append((workers, wall))
            print(
                f"{workers} sleeping workers: {wall:.2f} s, model without overhead "
                f"{scheduled(seconds, workers, 0.0, 0.0):.2f} s, overhead {1000 * overhead:.1f} ms a shard, start "
                f"{start:.2f} s",
                flush=True,
            )
        draw(chosen.plot, 60.0, float(np.mean(costs)), [(n, points[0][1] / wall) for n, wall in points])


if __name__ == "__main__":
    main()

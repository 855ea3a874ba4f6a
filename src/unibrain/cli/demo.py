"""`unibrain demo`: the main job, start to end, on a simulated subject."""

import time
from pathlib import Path
from typing import Literal

import click

from unibrain.cli.common import device_option, threads_option

__all__ = ["demo"]


@click.command(epilog="Example: unibrain demo --out unibrain-demo --seed 7")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("unibrain-demo"),
    show_default=True,
    help="Run folder; made if it is not there.",
)
@click.option("--images", type=int, default=120, show_default=True, help="Unseen images that are decoded.")
@click.option("--training-images", type=int, default=3000, show_default=True, help="Images that it is trained on.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated subject.")
@click.option(
    "--difficulty",
    type=click.Choice(["easy", "realistic"]),
    default="easy",
    show_default=True,
    help="How noisy the simulated scans are.",
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Scans at a time.")
@device_option
@threads_option
def demo(
    out: Path,
    images: int,
    training_images: int,
    seed: int,
    difficulty: Literal["easy", "realistic"],
    batch_size: int,
    device: str,
    dtype: str,
    offload: bool,
    threads: int | None,
) -> None:
    """Decode pictures and captions from simulated scans, start to end, and write a page that shows them.

    It needs no data, no network and no graphics card, and takes about two minutes. The scans are simulated, no human
    was scanned; the code is that which reads the Natural Scenes Dataset. Stop it with Ctrl-C, and the same command
    continues where it was.
    """
    from unibrain.cli.run import show_scores
    from unibrain.pipeline import BackboneSource, demo_settings, run_all
    from unibrain.workspace.progress import limit_threads
    from unibrain.workspace.provenance import peak_memory_mb
    from unibrain.workspace.run_folder import RunFolder

    began = time.monotonic()
    settings = demo_settings(images, training_images, seed, difficulty, batch_size)
    limit_threads(threads)
    run_all(RunFolder(out), settings, BackboneSource(device, dtype=dtype, offload=offload))
    show_scores(out)
    click.echo(f"{time.monotonic() - began:.0f} s, at most {peak_memory_mb() / 1000:.1f} GB of memory")

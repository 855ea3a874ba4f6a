"""`unibrain split`: harder splits of a run's images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unibrain.cli.options import Command, backbone_options, out_option, run_argument

if TYPE_CHECKING:
    from unibrain.pipeline import BackboneSource

_LONGEST = 60


@click.command(cls=Command, epilog="Example: unibrain split my-run --clusters 10 --refit")
@run_argument
@click.option("--clusters", type=click.IntRange(2, 1000), required=True, help="How many clusters.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of clusters and naive split."
)
@click.option("--refit", is_flag=True, help="Predict each cluster from the others, beside the naive split.")
@out_option(None, "The .json file to write; left out: RUN/clusters-K.json.")
@backbone_options
def split(run: Path, clusters: int, seed: int, refit: bool, out: Path | None, source: "BackboneSource") -> None:
    """Cluster the images of the run in RUN by their captions, so that whole clusters can be left out of training.

    Test images that are drawn at random have near twins in training: a decoder that only knows categories looks good on
    them. The file holds a fold for each stimulus id, for the clusters and for a naive split of the same sizes. With
    --refit, the training images of each fold are predicted by a decoder that never saw the fold.
    """
    from unibrain.evaluation.splits import refit_lines
    from unibrain.pipeline import RunFolder
    from unibrain.pipeline.split import split_run

    made = split_run(RunFolder(run), clusters, out, seed=seed, refit=refit, backbone=source)
    click.echo(f"{made.path}: {clusters} clusters of {len(made.clusters.stimulus_ids):,} images, and a naive split\n")
    for number, (size, captions) in enumerate(zip(made.clusters.sizes, made.examples, strict=True)):
        texts = (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..." for text in captions)
        click.echo(f"  {number:>3}  {size:>6,} images  {' | '.join(texts)}")
    click.echo()
    if refit:
        click.echo("\n".join(refit_lines(made.refits)))
    else:
        chosen = f" --seed {seed}" * (seed != 0) + (f" --out {out}" if out is not None else "")
        click.echo(f"Next: unibrain split {run} --clusters {clusters}{chosen} --refit")

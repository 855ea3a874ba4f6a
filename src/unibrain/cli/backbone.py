"""`unibrain backbone`: looking at the frozen generative model."""

import click

from unibrain.cli.common import device_option, threads_option

__all__ = ["backbone"]


@click.group(epilog="Example: unibrain backbone quality --scenes 200")
def backbone() -> None:
    """Look at the frozen generative model that turns latents into pictures and captions.

    `quality` measures how good the small one is that comes with the package, given the true latents: no decoder can be
    better than that.
    """


@backbone.command(epilog="Example: unibrain backbone quality --scenes 200")
@click.option(
    "--scenes", type=click.IntRange(min=2), default=200, show_default=True, help="Held-out scenes to measure."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the noise.")
@device_option
@threads_option
def quality(scenes: int, seed: int, device: str, threads: int | None) -> None:
    """Measure the small backbone on scenes that it was not trained on, and print what was found.

    Pictures and captions are generated from true latents, and compared with the scenes that they were taken from.
    """
    from unibrain.workspace.threads import limit_threads

    limit_threads(threads)
    from unibrain.training.quality import measure_quality

    click.echo(measure_quality(scenes=scenes, seed=seed, device=device))
